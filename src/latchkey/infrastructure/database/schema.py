"""The tables. `user_id` is the first column of every primary, unique and foreign key; there are no sequences.

Column types and constraint names are those of advanced-alchemy, in the migrations too.
"""

from advanced_alchemy.base import convention
from advanced_alchemy.types import DateTimeUTC
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from latchkey.infrastructure.database.undo_rules import NOT_AN_EFFECT, ROWS, UNDO

metadata = MetaData(naming_convention=convention)

TIME = DateTime(timezone=True).with_variant(DateTimeUTC(timezone=True), "sqlite")
"""asyncpg returns times with a zone. SQLite has no zones: its times are converted to UTC and back."""


def _owner() -> Column[str]:
    return Column("user_id", String(128), nullable=False)


def _time(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, TIME, nullable=nullable)


def _of_conversation(*, nullable: bool = False) -> tuple[Column[object], ForeignKeyConstraint]:
    key = ForeignKeyConstraint(
        ["user_id", "conversation_id"], ["conversations.user_id", "conversations.id"], ondelete="CASCADE"
    )
    return Column("conversation_id", Uuid(), nullable=nullable), key


def _of_turn(*, nullable: bool = False) -> tuple[Column[object], ForeignKeyConstraint]:
    key = ForeignKeyConstraint(["user_id", "turn_id"], ["turns.user_id", "turns.id"], ondelete="CASCADE")
    return Column("turn_id", Uuid(), nullable=nullable), key


def _deletion(table: str) -> tuple[Column[object], Index]:
    """Return the time since which a row is hidden, with all that belongs to it, until it is removed."""
    is_deleted = text("deleted_at IS NOT NULL")
    index = Index(f"ix_{table}_deleted", "user_id", "id", postgresql_where=is_deleted, sqlite_where=is_deleted)
    return _time("deleted_at", nullable=True), index


conversations = Table(
    "conversations",
    metadata,
    _owner(),
    Column("id", Uuid(), nullable=False),
    Column("title", Text()),
    Column("last_seq", Integer(), nullable=False),
    _time("created_at"),
    _time("updated_at"),
    Column("timezone", String(64)),
    Column("assistant", String(64)),
    *_deletion("conversations"),
    Column("client_conversation_id", Text()),
    PrimaryKeyConstraint("user_id", "id"),
    Index(
        "uq_conversations_client_id",
        "user_id",
        "client_conversation_id",
        unique=True,
        postgresql_where=text("client_conversation_id IS NOT NULL"),
        sqlite_where=text("client_conversation_id IS NOT NULL"),
    ),
    Index("ix_conversations_activity", "user_id", "updated_at", "id"),
)

turns = Table(
    "turns",
    metadata,
    _owner(),
    Column("id", Uuid(), nullable=False),
    *_of_conversation(),
    Column("status", String(32), nullable=False),
    Column("agent", String(32), nullable=False),
    Column("error_code", String(64)),
    Column("error_detail", Text()),
    Column("requests", Integer(), nullable=False),
    Column("input_tokens", BigInteger(), nullable=False),
    Column("output_tokens", BigInteger(), nullable=False),
    _time("started_at"),
    _time("finished_at", nullable=True),
    _time("lease_until"),
    Column("last_event", Integer(), nullable=False, server_default="0"),
    # A column with a `key` keeps its first name in the database: a rename would break a rolling upgrade.
    Column("told", Integer(), key="answer_length", nullable=False, server_default="0"),
    Column("calls", Integer(), nullable=False, server_default="0"),
    Column("retry_after", Integer()),
    Column("idempotency_key", Text()),
    Column("fingerprint", String(64)),
    Column("request_id", String(64)),
    Column("model", String(200)),
    Column("assistant", String(64)),
    Column("assistant_digest", String(64)),
    # JSON of pairs of strings.
    Column("metadata", Text()),
    # The turn that has replaced it.
    Column("replaced_by", Uuid()),
    # The client's own id of the turn.
    Column("client_run_id", Text()),
    Column("attempt", Integer(), nullable=False, server_default="1"),
    Column("recoveries", Integer(), nullable=False, server_default="0"),
    # JSON of `RunInput`; NULL while it has only defaults.
    Column("run_input", Text()),
    # Bits of what its tool calls did: 1 for changes that are recorded, 2 for effects that cannot be undone.
    Column("effects", Integer(), nullable=False, server_default="0"),
    _time("undone_at", nullable=True),
    PrimaryKeyConstraint("user_id", "id"),
    Index("ix_turns_of_conversation", "user_id", "conversation_id", "id"),
    # At most one running turn per conversation. Also finds the running turns of a user quickly.
    Index(
        "uq_turns_running",
        "user_id",
        "conversation_id",
        unique=True,
        postgresql_where=text("status = 'running'"),
        sqlite_where=text("status = 'running'"),
    ),
    Index(
        "ix_turns_waiting",
        "user_id",
        "conversation_id",
        postgresql_where=text("status = 'waiting'"),
        sqlite_where=text("status = 'waiting'"),
    ),
    Index(
        "uq_turns_idempotency",
        "user_id",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
        sqlite_where=text("idempotency_key IS NOT NULL"),
    ),
    Index(
        "ix_turns_of_run",
        "user_id",
        "client_run_id",
        postgresql_where=text("client_run_id IS NOT NULL"),
        sqlite_where=text("client_run_id IS NOT NULL"),
    ),
    Index(
        "ix_turns_undone",
        "user_id",
        "id",
        postgresql_where=text("undone_at IS NOT NULL"),
        sqlite_where=text("undone_at IS NOT NULL"),
    ),
    info={UNDO: NOT_AN_EFFECT},
)

turn_events = Table(
    "turn_events",
    metadata,
    _owner(),
    *_of_turn(),
    Column("seq", Integer(), nullable=False),
    Column("name", String(32), nullable=False),
    # JSON as it is sent to clients, without the turn id and the sequence number.
    Column("body", Text(), nullable=False),
    # The tool call whose arguments or result belong into the body, where they are null: a large text is stored once.
    Column("tool_call_id", Uuid()),
    # Bytes of the event as it is sent. NULL in rows of earlier releases.
    Column("size", Integer()),
    PrimaryKeyConstraint("user_id", "turn_id", "seq"),
    info={UNDO: NOT_AN_EFFECT},
)

messages = Table(
    "messages",
    metadata,
    _owner(),
    Column("id", Uuid(), nullable=False),
    *_of_conversation(),
    *_of_turn(),
    Column("seq", Integer(), nullable=False),
    Column("role", String(32), nullable=False),
    Column("content", Text(), nullable=False),
    # The number of tool calls of this answer: a page without any needs no query for them.
    Column("call_count", Integer(), nullable=False),
    _time("created_at"),
    # The client's own id of a user's message.
    Column("client_id", Text()),
    # The turn that has replaced its turn: listings need no join.
    Column("replaced_by", Uuid()),
    # When the effects of its turn were undone: the history needs no join.
    _time("undone_at", nullable=True),
    PrimaryKeyConstraint("user_id", "id"),
    UniqueConstraint("user_id", "conversation_id", "seq", name="uq_messages_seq"),
    Index("ix_messages_of_turn", "user_id", "turn_id"),
)

tasks = Table(
    "tasks",
    metadata,
    _owner(),
    Column("id", Uuid(), nullable=False),
    Column("title", Text(), nullable=False),
    Column("description", Text()),
    _time("due_at", nullable=True),
    Column("status", String(32), nullable=False),
    Column("version", Integer(), nullable=False),
    # No foreign key: a task outlives its conversation, and SQLite cannot null one column of a composite key.
    Column("conversation_id", Uuid()),
    _time("created_at"),
    _time("updated_at"),
    _time("completed_at", nullable=True),
    PrimaryKeyConstraint("user_id", "id"),
    Index("ix_tasks_of_status", "user_id", "status", "id"),
    Index(
        "ix_tasks_of_conversation",
        "user_id",
        "conversation_id",
        postgresql_where=text("conversation_id IS NOT NULL"),
        sqlite_where=text("conversation_id IS NOT NULL"),
    ),
    info={UNDO: ROWS},
)

artifacts = Table(
    "artifacts",
    metadata,
    _owner(),
    Column("id", Uuid(), nullable=False),
    *_of_conversation(nullable=True),
    *_of_turn(nullable=True),
    Column("artifact_type", String(32), nullable=False),
    Column("title", Text(), nullable=False),
    Column("version", Integer(), nullable=False),
    _time("created_at"),
    _time("updated_at"),
    *_deletion("artifacts"),
    PrimaryKeyConstraint("user_id", "id"),
    Index("ix_artifacts_activity", "user_id", "updated_at", "id"),
    Index("ix_artifacts_of_conversation", "user_id", "conversation_id", "updated_at", "id"),
    Index("ix_artifacts_of_turn", "user_id", "turn_id"),
    info={UNDO: ROWS},
)

artifact_versions = Table(
    "artifact_versions",
    metadata,
    _owner(),
    Column("artifact_id", Uuid(), nullable=False),
    Column("version", Integer(), nullable=False),
    Column("title", Text(), nullable=False),
    Column("content", Text(), nullable=False),
    *_of_turn(nullable=True),
    _time("created_at"),
    ForeignKeyConstraint(["user_id", "artifact_id"], ["artifacts.user_id", "artifacts.id"], ondelete="CASCADE"),
    PrimaryKeyConstraint("user_id", "artifact_id", "version"),
    Index("ix_artifact_versions_of_turn", "user_id", "turn_id"),
    info={UNDO: NOT_AN_EFFECT},
)

tool_calls = Table(
    "tool_calls",
    metadata,
    _owner(),
    *_of_turn(),
    Column("id", Uuid(), nullable=False),
    # The id that the caller has chosen: unique within a turn.
    Column("call_id", Text()),
    Column("name", Text(), nullable=False),
    # JSON as it was received, byte for byte. It is never searched.
    Column("arguments", Text(), nullable=False),
    # NULL while the call is announced and has no result.
    Column("result", Text()),
    Column("is_error", Boolean(), nullable=False),
    _time("started_at"),
    Column("duration_ms", Integer(), nullable=False),
    # Bytes of the two texts. NULL in rows of earlier releases.
    Column("arguments_size", Integer()),
    Column("result_size", Integer()),
    # When the call was started outside a transaction. NULL for a call that runs in one.
    _time("executing_since", nullable=True),
    # When a question to the user expires. NULL for a call without one. The other columns are NULL while it is open.
    _time("approval_expires_at", nullable=True),
    Column("decision", String(16)),
    Column("decision_reason", Text()),
    Column("decided_by", String(16)),
    _time("decided_at", nullable=True),
    # JSON of the changes that it made, for undo. NULL in rows of earlier releases and of calls without a result.
    Column("changes", Text()),
    PrimaryKeyConstraint("user_id", "turn_id", "id"),
    UniqueConstraint("user_id", "turn_id", "call_id", name="uq_tool_calls_call"),
    # SQLite would read the texts to get at the columns behind them.
    Index("ix_tool_calls_size", "user_id", "turn_id", "id", "arguments_size", "result_size"),
    Index(
        "ix_tool_calls_open",
        "user_id",
        "id",
        postgresql_where=text("approval_expires_at IS NOT NULL AND decision IS NULL"),
        sqlite_where=text("approval_expires_at IS NOT NULL AND decision IS NULL"),
    ),
    info={UNDO: NOT_AN_EFFECT},
)

# Calls outside a turn, by the id that the caller has chosen. Without foreign keys: a call outlives what it made.
idempotent_calls = Table(
    "idempotent_calls",
    metadata,
    _owner(),
    # The credential: `owner`, or the id of a context token.
    Column("caller", String(64), nullable=False),
    Column("key", Text(), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("response", Text(), nullable=False),
    Column("is_error", Boolean(), nullable=False),
    _time("created_at"),
    PrimaryKeyConstraint("user_id", "caller", "key"),
    Index("ix_idempotent_calls_age", "user_id", "created_at"),
    info={UNDO: NOT_AN_EFFECT},
)

context_tokens = Table(
    "context_tokens",
    metadata,
    _owner(),
    Column("id", Uuid(), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("grants", Text(), nullable=False),
    *_of_conversation(nullable=True),
    *_of_turn(nullable=True),
    _time("created_at"),
    _time("expires_at"),
    _time("revoked_at", nullable=True),
    # Names separated by spaces. NULL sets no limit beyond the grants.
    Column("tools", Text()),
    # Names separated by spaces, of tools that ask the user first.
    Column("approve", Text()),
    PrimaryKeyConstraint("user_id", "id"),
    UniqueConstraint("user_id", "digest", name="uq_context_tokens_digest"),
    Index("ix_context_tokens_of_turn", "user_id", "turn_id"),
    Index("ix_context_tokens_of_conversation", "user_id", "conversation_id"),
)

quota_usage = Table(
    "allowances",
    metadata,
    _owner(),
    Column("paid_until", TIME, key="theoretical_arrival_time", nullable=False),
    Column("stored_bytes", BigInteger(), nullable=False),
    _time("counted_at"),
    PrimaryKeyConstraint("user_id"),
    info={UNDO: NOT_AN_EFFECT},
)

TABLE_NAMES = (*metadata.tables, "notes")
"""All tables of Latchkey's own migrations. Those of the built-in apps are defined in their packages."""
