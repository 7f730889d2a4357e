"""Turns that wait and go on: attempts, and questions to the user about tool calls.

Earlier releases go on beside this one. They store a turn whose process is gone as interrupted.
"""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
compatible_with = "0006"

_IS_WAITING = sa.text("status = 'waiting'")
_IS_OPEN = sa.text("approval_expires_at IS NOT NULL AND decision IS NULL")


def upgrade() -> None:
    op.add_column("turns", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("turns", sa.Column("recoveries", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("turns", sa.Column("run_input", sa.Text()))
    op.add_column("tool_calls", sa.Column("approval_expires_at", DateTimeUTC(timezone=True)))
    op.add_column("tool_calls", sa.Column("decision", sa.String(16)))
    op.add_column("tool_calls", sa.Column("decision_reason", sa.Text()))
    op.add_column("tool_calls", sa.Column("decided_by", sa.String(16)))
    op.add_column("tool_calls", sa.Column("decided_at", DateTimeUTC(timezone=True)))
    op.add_column("context_tokens", sa.Column("approve", sa.Text()))
    op.create_index(
        "ix_turns_waiting",
        "turns",
        ["user_id", "conversation_id"],
        postgresql_where=_IS_WAITING,
        sqlite_where=_IS_WAITING,
    )
    op.create_index(
        "ix_tool_calls_open", "tool_calls", ["user_id", "id"], postgresql_where=_IS_OPEN, sqlite_where=_IS_OPEN
    )


def downgrade() -> None:
    """A turn that waits for its user is stored as interrupted, because earlier releases do not know the status."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    if is_postgresql:  # otherwise row-level security would hide the rows from the owner of the table
        op.execute("ALTER TABLE turns NO FORCE ROW LEVEL SECURITY")
    op.execute("UPDATE turns SET status = 'interrupted', finished_at = started_at WHERE status = 'waiting'")
    if is_postgresql:
        op.execute("ALTER TABLE turns FORCE ROW LEVEL SECURITY")
    op.drop_index("ix_tool_calls_open", "tool_calls")
    op.drop_index("ix_turns_waiting", "turns")
    op.drop_column("context_tokens", "approve")
    for name in ("decided_at", "decided_by", "decision_reason", "decision", "approval_expires_at"):
        op.drop_column("tool_calls", name)
    for name in ("run_input", "recoveries", "attempt"):
        op.drop_column("turns", name)
