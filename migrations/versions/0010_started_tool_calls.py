"""When a tool call was started outside a transaction.

Calls in a transaction, and those of earlier releases, have no such time.
"""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
compatible_with = "0006"


def upgrade() -> None:
    op.add_column("tool_calls", sa.Column("executing_since", DateTimeUTC(timezone=True)))


def downgrade() -> None:
    op.drop_column("tool_calls", "executing_since")
