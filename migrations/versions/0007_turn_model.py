"""The model that answered a turn.

Turns of earlier releases have none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
compatible_with = "0006"


def upgrade() -> None:
    op.add_column("turns", sa.Column("model", sa.String(200)))


def downgrade() -> None:
    op.drop_column("turns", "model")
