"""Artifacts and their versions, and the ids by which duplicate tool calls are recognised.

`artifact_type` is plain text: a new type needs no migration, and an older release can read a row of a newer one.
The first type is `brd`.
"""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
compatible_with = "0002"


def upgrade() -> None:
    _create_artifacts()
    _create_versions()
    with op.batch_alter_table("tool_calls") as tool_calls:
        tool_calls.add_column(sa.Column("call_id", sa.Text()))
        tool_calls.create_unique_constraint("uq_tool_calls_call", ["user_id", "turn_id", "call_id"])
    if op.get_bind().dialect.name == "postgresql":
        for table in ("artifacts", "artifact_versions"):
            _secure(table)


def downgrade() -> None:
    with op.batch_alter_table("tool_calls") as tool_calls:
        tool_calls.drop_constraint("uq_tool_calls_call", type_="unique")
        tool_calls.drop_column("call_id")
    op.drop_table("artifact_versions")
    op.drop_table("artifacts")


def _belongs_to(table: str, column: str, parents: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["user_id", column],
        [f"{parents}.user_id", f"{parents}.id"],
        name=f"fk_{table}_user_id_{parents}",
        ondelete="CASCADE",
    )


def _create_artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("user_id", sa.String(128), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("conversation_id", sa.Uuid()),
        sa.Column("turn_id", sa.Uuid()),
        sa.Column("artifact_type", sa.String(32), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", DateTimeUTC(timezone=True), nullable=False),
        sa.Column("updated_at", DateTimeUTC(timezone=True), nullable=False),
        _belongs_to("artifacts", "conversation_id", "conversations"),
        _belongs_to("artifacts", "turn_id", "turns"),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_artifacts"),
    )
    op.create_index("ix_artifacts_activity", "artifacts", ["user_id", "updated_at", "id"])
    op.create_index("ix_artifacts_of_conversation", "artifacts", ["user_id", "conversation_id", "updated_at", "id"])
    op.create_index("ix_artifacts_of_turn", "artifacts", ["user_id", "turn_id"])


def _create_versions() -> None:
    op.create_table(
        "artifact_versions",
        sa.Column("user_id", sa.String(128), nullable=False),
        sa.Column("artifact_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("turn_id", sa.Uuid()),
        sa.Column("created_at", DateTimeUTC(timezone=True), nullable=False),
        _belongs_to("artifact_versions", "artifact_id", "artifacts"),
        _belongs_to("artifact_versions", "turn_id", "turns"),
        sa.PrimaryKeyConstraint("user_id", "artifact_id", "version", name="pk_artifact_versions"),
    )
    op.create_index("ix_artifact_versions_of_turn", "artifact_versions", ["user_id", "turn_id"])


def _secure(table: str) -> None:
    """Only the user of the transaction sees and writes a row, as for the first tables."""
    mine = "user_id = current_setting('app.user_id')"
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY {table}_of_user ON {table} USING ({mine}) WITH CHECK ({mine})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO latchkey_rt")
