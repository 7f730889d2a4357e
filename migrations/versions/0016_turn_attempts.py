"""Attempts of turns: a turn whose process is gone is continued by another one.

Earlier releases go on beside this one. They store such a turn as interrupted.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
compatible_with = "0006"


def upgrade() -> None:
    op.add_column("turns", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("turns", sa.Column("run_input", sa.Text()))


def downgrade() -> None:
    op.drop_column("turns", "run_input")
    op.drop_column("turns", "attempt")
