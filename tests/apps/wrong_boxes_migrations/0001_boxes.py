"""Boxes."""

from uuid import UUID

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
        "boxes",
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.String(length=100), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("updated_at", DateTimeUTC(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_boxes"),
    )
    op.secure_entity_table("boxes")  # type: ignore[attr-defined]

    woods = op.create_table(
        "woods",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=50), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_woods"),
    )
    op.bulk_insert(woods, [{"id": UUID("018f0000-0000-7000-8000-000000000001"), "name": "Oak"}])
    op.grant_reference_table("woods")  # type: ignore[attr-defined]


def downgrade() -> None:
    op.drop_table("woods")
    op.drop_table("boxes")
