"""The sizes of tool calls and events, so that a page is bounded without reading them, and references to tool calls."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
compatible_with = "0006"  # earlier releases cannot read events that refer to tool calls

_INDEX = ["user_id", "turn_id", "id", "arguments_size", "result_size"]


def upgrade() -> None:
    op.add_column("tool_calls", sa.Column("arguments_size", sa.Integer()))
    op.add_column("tool_calls", sa.Column("result_size", sa.Integer()))
    op.add_column("turn_events", sa.Column("tool_call_id", sa.Uuid()))
    op.add_column("turn_events", sa.Column("size", sa.Integer()))
    op.create_index("ix_tool_calls_size", "tool_calls", _INDEX)


def downgrade() -> None:
    op.drop_index("ix_tool_calls_size", "tool_calls")
    op.drop_column("turn_events", "size")
    op.drop_column("turn_events", "tool_call_id")
    op.drop_column("tool_calls", "result_size")
    op.drop_column("tool_calls", "arguments_size")
