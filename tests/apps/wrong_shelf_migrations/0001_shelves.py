"""Shelves."""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
compatible_with = "0001"


def upgrade() -> None:
    op.create_table(
        "shelves",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("updated_at", DateTimeUTC(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_shelves"),
    )
    op.secure_entity_table("shelves")  # type: ignore[attr-defined]


def downgrade() -> None:
    op.drop_table("shelves")
