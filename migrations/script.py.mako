"""${message}."""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}
# The oldest release that can use this schema, by the newest revision of that release. A revision that only adds tables,
# and columns that are nullable or have a default, keeps the value of the revision before. The rows that the new release
# writes must also be readable for the oldest one.
compatible_with = "…"


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
