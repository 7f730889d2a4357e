"""The first tables; on PostgreSQL also the runtime role and the row-level security policies."""

import sqlalchemy as sa
from advanced_alchemy.types import DateTimeUTC
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
compatible_with = "0001"

TABLES = ("conversations", "turns", "messages", "tasks", "tool_calls", "context_tokens")


def upgrade() -> None:
    _create_conversations()
    _create_turns()
    _create_messages()
    _create_tasks()
    _create_tool_calls()
    _create_context_tokens()
    if op.get_bind().dialect.name == "postgresql":
        _create_role()
        for table in TABLES:
            _secure(table)


def downgrade() -> None:
    """Drop the tables. The role is kept: it belongs to the server, and other databases may use it."""
    for table in reversed(TABLES):
        op.drop_table(table)


def _owner() -> sa.Column[str]:
    return sa.Column("user_id", sa.String(128), nullable=False)


def _id(name: str = "id", *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Uuid(), nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, DateTimeUTC(timezone=True), nullable=nullable)


def _belongs_to(table: str, column: str, parents: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["user_id", column],
        [f"{parents}.user_id", f"{parents}.id"],
        name=f"fk_{table}_user_id_{parents}",
        ondelete="CASCADE",
    )


def _partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    op.create_index(name, table, columns, unique=unique, postgresql_where=sa.text(where), sqlite_where=sa.text(where))


def _create_conversations() -> None:
    op.create_table(
        "conversations",
        _owner(),
        _id(),
        sa.Column("title", sa.Text()),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        _time("created_at"),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_conversations"),
    )
    op.create_index("ix_conversations_activity", "conversations", ["user_id", "updated_at", "id"])


def _create_turns() -> None:
    op.create_table(
        "turns",
        _owner(),
        _id(),
        _id("conversation_id"),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("agent", sa.String(32), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_detail", sa.Text()),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        _time("started_at"),
        _time("finished_at", nullable=True),
        _time("lease_until"),
        _belongs_to("turns", "conversation_id", "conversations"),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_turns"),
    )
    op.create_index("ix_turns_of_conversation", "turns", ["user_id", "conversation_id", "id"])
    _partial_index("uq_turns_running", "turns", ["user_id", "conversation_id"], "status = 'running'", unique=True)


def _create_messages() -> None:
    op.create_table(
        "messages",
        _owner(),
        _id(),
        _id("conversation_id"),
        _id("turn_id"),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("call_count", sa.Integer(), nullable=False),
        _time("created_at"),
        _belongs_to("messages", "conversation_id", "conversations"),
        _belongs_to("messages", "turn_id", "turns"),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_messages"),
        sa.UniqueConstraint("user_id", "conversation_id", "seq", name="uq_messages_seq"),
    )
    op.create_index("ix_messages_of_turn", "messages", ["user_id", "turn_id"])


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        _owner(),
        _id(),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text()),
        _time("due_at", nullable=True),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        _id("conversation_id", nullable=True),
        _time("created_at"),
        _time("updated_at"),
        _time("completed_at", nullable=True),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_tasks"),
    )
    op.create_index("ix_tasks_of_status", "tasks", ["user_id", "status", "id"])
    _partial_index("ix_tasks_of_conversation", "tasks", ["user_id", "conversation_id"], "conversation_id IS NOT NULL")


def _create_tool_calls() -> None:
    op.create_table(
        "tool_calls",
        _owner(),
        _id("turn_id"),
        _id(),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("is_error", sa.Boolean(), nullable=False),
        _time("started_at"),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        _belongs_to("tool_calls", "turn_id", "turns"),
        sa.PrimaryKeyConstraint("user_id", "turn_id", "id", name="pk_tool_calls"),
    )


def _create_context_tokens() -> None:
    op.create_table(
        "context_tokens",
        _owner(),
        _id(),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("grants", sa.Text(), nullable=False),
        _id("conversation_id", nullable=True),
        _id("turn_id", nullable=True),
        _time("created_at"),
        _time("expires_at"),
        _time("revoked_at", nullable=True),
        _belongs_to("context_tokens", "conversation_id", "conversations"),
        _belongs_to("context_tokens", "turn_id", "turns"),
        sa.PrimaryKeyConstraint("user_id", "id", name="pk_context_tokens"),
        sa.UniqueConstraint("user_id", "digest", name="uq_context_tokens_digest"),
    )
    op.create_index("ix_context_tokens_of_turn", "context_tokens", ["user_id", "turn_id"])
    op.create_index("ix_context_tokens_of_conversation", "context_tokens", ["user_id", "conversation_id"])


def _create_role() -> None:
    """Create a role that owns nothing and cannot log in. The login that migrates and serves can switch to it.

    It belongs to the server: the migration of another database may have created it, or be creating it now.
    """
    op.execute(
        "DO $$ BEGIN"
        " IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'latchkey_rt')"
        "  THEN CREATE ROLE latchkey_rt NOLOGIN;"
        " END IF;"
        " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )
    op.execute(
        "DO $$ BEGIN"
        " IF current_setting('server_version_num')::int < 160000 THEN"
        "  IF NOT pg_has_role(current_user, 'latchkey_rt', 'MEMBER') THEN GRANT latchkey_rt TO CURRENT_USER; END IF;"
        " ELSIF NOT pg_has_role(current_user, 'latchkey_rt', 'SET') THEN"
        "  EXECUTE 'GRANT latchkey_rt TO CURRENT_USER WITH INHERIT FALSE, SET TRUE';"
        " END IF;"
        " EXCEPTION WHEN insufficient_privilege THEN RAISE EXCEPTION"
        "  'The role latchkey_rt was created by another role: let that role or a superuser run GRANT latchkey_rt TO %',"
        "  current_user USING ERRCODE = 'insufficient_privilege'; END $$"
    )
    op.execute("DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO latchkey_rt', current_schema()); END $$")


def _secure(table: str) -> None:
    """Only the user of the transaction sees and writes a row. Without a user, every statement fails."""
    mine = "user_id = current_setting('app.user_id')"
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY {table}_of_user ON {table} USING ({mine}) WITH CHECK ({mine})")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO latchkey_rt")
