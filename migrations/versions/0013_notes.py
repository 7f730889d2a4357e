"""Notes of users."""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

from latchkey.infrastructure.database.table_checks import secure_entity_table_sql

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
        for statement in secure_entity_table_sql("notes"):
            op.execute(statement)


def downgrade() -> None:
    op.drop_table("notes")
