"""The quota usage of each user, and the number of tool calls of each turn."""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
compatible_with = "0005"


def upgrade() -> None:
    op.create_table(
        "allowances",
        sa.Column("user_id", sa.String(128), nullable=False),
        sa.Column("paid_until", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", DateTimeUTC(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_allowances"),
    )
    op.add_column("turns", sa.Column("calls", sa.Integer(), nullable=False, server_default="0"))
    if op.get_bind().dialect.name == "postgresql":
        _secure("allowances")


def downgrade() -> None:
    op.drop_column("turns", "calls")
    op.drop_table("allowances")


def _secure(table: str) -> None:
    """Only the user of the transaction sees and writes a row, as for the first tables."""
    mine = "user_id = current_setting('app.user_id')"
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY {table}_of_user ON {table} USING ({mine}) WITH CHECK ({mine})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO latchkey_rt")
