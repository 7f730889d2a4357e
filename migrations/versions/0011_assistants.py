"""The assistant of conversations and turns, the tools of a token, and the metadata of a turn.

Rows of earlier releases have none of them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
compatible_with = "0006"

_ADDED = (
    ("conversations", "assistant", sa.String(64)),
    ("turns", "assistant", sa.String(64)),
    ("turns", "assistant_digest", sa.String(64)),
    ("turns", "metadata", sa.Text()),
    ("context_tokens", "tools", sa.Text()),
)


def upgrade() -> None:
    for table, column, type_ in _ADDED:
        op.add_column(table, sa.Column(column, type_))


def downgrade() -> None:
    for table, column, _ in reversed(_ADDED):
        op.drop_column(table, column)
