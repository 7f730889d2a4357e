"""Calls outside a turn, which clients may repeat by their id."""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
compatible_with = "0006"


def upgrade() -> None:
    op.create_table(
        "idempotent_calls",
        sa.Column("user_id", sa.String(128), nullable=False),
        sa.Column("caller", sa.String(64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("response", sa.Text(), nullable=False),
        sa.Column("is_error", sa.Boolean(), nullable=False),
        sa.Column("created_at", DateTimeUTC(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "caller", "key", name="pk_idempotent_calls"),
    )
    op.create_index("ix_idempotent_calls_age", "idempotent_calls", ["user_id", "created_at"])
    if op.get_bind().dialect.name == "postgresql":
        _secure("idempotent_calls")


def downgrade() -> None:
    op.drop_table("idempotent_calls")


def _secure(table: str) -> None:
    """Only the user of the transaction sees and writes a row, as for the first tables."""
    mine = "user_id = current_setting('app.user_id')"
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY {table}_of_user ON {table} USING ({mine}) WITH CHECK ({mine})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO latchkey_rt")
