"""Undo: what tool calls changed, and which turns were undone.

Earlier releases go on beside this one. Their tool calls record no changes, so their turns cannot be undone.
"""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
compatible_with = "0006"

_INDEX = "ix_turns_undone"
_IS_UNDONE = sa.text("undone_at IS NOT NULL")
_TIME = DateTimeUTC(timezone=True)


def upgrade() -> None:
    op.add_column("turns", sa.Column("effects", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("turns", sa.Column("undone_at", _TIME))
    op.add_column("messages", sa.Column("undone_at", _TIME))
    op.add_column("tool_calls", sa.Column("changes", sa.Text()))
    op.create_index(_INDEX, "turns", ["user_id", "id"], postgresql_where=_IS_UNDONE, sqlite_where=_IS_UNDONE)


def downgrade() -> None:
    op.drop_index(_INDEX, "turns")
    op.drop_column("tool_calls", "changes")
    op.drop_column("messages", "undone_at")
    op.drop_column("turns", "undone_at")
    op.drop_column("turns", "effects")
