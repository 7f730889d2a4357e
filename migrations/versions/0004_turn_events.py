"""Turn events, idempotency keys of turns, and tool calls without a result.

Turns of earlier releases have no events.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
compatible_with = "0004"


def upgrade() -> None:
    op.create_table(
        "turn_events",
        sa.Column("user_id", sa.String(128), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id", "turn_id"],
            ["turns.user_id", "turns.id"],
            name="fk_turn_events_user_id_turns",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "turn_id", "seq", name="pk_turn_events"),
    )
    for name in ("last_event", "told"):
        op.add_column("turns", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
    op.add_column("turns", sa.Column("retry_after", sa.Integer()))
    for name, column_type in (
        ("idempotency_key", sa.Text()),
        ("fingerprint", sa.String(64)),
        ("request_id", sa.String(64)),
    ):
        op.add_column("turns", sa.Column(name, column_type))
    op.create_index(
        "uq_turns_idempotency",
        "turns",
        ["user_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
        sqlite_where=sa.text("idempotency_key IS NOT NULL"),
    )
    with op.batch_alter_table("tool_calls") as tool_calls:
        tool_calls.alter_column("result", existing_type=sa.Text(), nullable=True)
    if op.get_bind().dialect.name == "postgresql":
        _secure("turn_events")


def downgrade() -> None:
    """A tool call without a result gets JSON null, which is how it was shown."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    if is_postgresql:  # otherwise row-level security would hide the rows from the owner of the table
        op.execute("ALTER TABLE tool_calls NO FORCE ROW LEVEL SECURITY")
    op.execute("UPDATE tool_calls SET result = 'null' WHERE result IS NULL")
    if is_postgresql:
        op.execute("ALTER TABLE tool_calls FORCE ROW LEVEL SECURITY")
    with op.batch_alter_table("tool_calls") as tool_calls:
        tool_calls.alter_column("result", existing_type=sa.Text(), nullable=False)
    op.drop_index("uq_turns_idempotency", "turns")
    for name in ("request_id", "fingerprint", "idempotency_key", "retry_after", "told", "last_event"):
        op.drop_column("turns", name)
    op.drop_table("turn_events")


def _secure(table: str) -> None:
    """Only the user of the transaction sees and writes a row, as for the first tables."""
    mine = "user_id = current_setting('app.user_id')"
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY {table}_of_user ON {table} USING ({mine}) WITH CHECK ({mine})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO latchkey_rt")
