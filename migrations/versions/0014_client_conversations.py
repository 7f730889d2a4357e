"""Names of conversations and ids of messages that clients choose, and turns that are replaced by others.

Earlier releases go on beside this one, and show replaced messages.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
compatible_with = "0006"

_ADDED = (
    ("conversations", "client_conversation_id", sa.Text()),
    ("turns", "replaced_by", sa.Uuid()),
    ("messages", "client_id", sa.Text()),
    ("messages", "replaced_by", sa.Uuid()),
)
_INDEX = "uq_conversations_client_id"
_HAS_NAME = sa.text("client_conversation_id IS NOT NULL")


def upgrade() -> None:
    for table, column, type_ in _ADDED:
        op.add_column(table, sa.Column(column, type_))
    op.create_index(
        _INDEX,
        "conversations",
        ["user_id", "client_conversation_id"],
        unique=True,
        postgresql_where=_HAS_NAME,
        sqlite_where=_HAS_NAME,
    )


def downgrade() -> None:
    op.drop_index(_INDEX, "conversations")
    for table, column, _ in reversed(_ADDED):
        op.drop_column(table, column)
