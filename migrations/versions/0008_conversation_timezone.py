"""The time zone that a conversation remembers.

Conversations of earlier releases have none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
compatible_with = "0006"


def upgrade() -> None:
    op.add_column("conversations", sa.Column("timezone", sa.String(64)))


def downgrade() -> None:
    op.drop_column("conversations", "timezone")
