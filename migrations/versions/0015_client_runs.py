"""Ids of turns that clients choose.

Earlier releases go on beside this one, and store none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
compatible_with = "0006"

_INDEX = "ix_turns_of_run"
_HAS_RUN = sa.text("client_run_id IS NOT NULL")


def upgrade() -> None:
    op.add_column("turns", sa.Column("client_run_id", sa.Text()))
    op.create_index(_INDEX, "turns", ["user_id", "client_run_id"], postgresql_where=_HAS_RUN, sqlite_where=_HAS_RUN)


def downgrade() -> None:
    op.drop_index(_INDEX, "turns")
    op.drop_column("turns", "client_run_id")
