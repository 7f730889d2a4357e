"""Notes of users."""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
compatible_with = "0006"


def upgrade() -> None:
    op.create_table(
        "notes",
        sa.Column("user_id", sa.String(128), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("text", sa.String(2000), nullable=False),
        sa.Column("folded", sa.String(6000), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("updated_at", DateTimeUTC(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_notes"),
    )
    if op.get_bind().dialect.name == "postgresql":
        _secure("notes")


def downgrade() -> None:
    op.drop_table("notes")


def _secure(table: str) -> None:
    """Only the user of the transaction sees and writes a row, as for the first tables."""
    mine = "user_id = current_setting('app.user_id')"
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY {table}_of_user ON {table} USING ({mine}) WITH CHECK ({mine})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO latchkey_rt")
