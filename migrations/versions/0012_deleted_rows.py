"""Deleted conversations and artifacts, which are hidden at once and removed in steps.

Earlier releases go on beside this one, and show them until they are removed.
"""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
compatible_with = "0006"

_TABLES = ("conversations", "artifacts")
_IS_DELETED = sa.text("deleted_at IS NOT NULL")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("deleted_at", DateTimeUTC(timezone=True)))
        op.create_index(
            f"ix_{table}_deleted",
            table,
            ["user_id", "id"],
            postgresql_where=_IS_DELETED,
            sqlite_where=_IS_DELETED,
        )


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_index(f"ix_{table}_deleted", table)
        op.drop_column(table, "deleted_at")
