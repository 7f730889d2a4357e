"""How the changes by a statement of a tool call are recorded."""

from typing import Literal

from sqlalchemy import Delete, Insert, Table, Update

from latchkey.infrastructure.database.sql.tenant_guard import always_inserts
from latchkey.infrastructure.database.undo_rules import NOT_AN_EFFECT, ROWS, UNDO

Recording = Literal["insert", "rows", "never"]
"""How a change is recorded: from the inserted values, from rows that are read, or as one that cannot be undone."""


def recording_of(statement: Insert | Update | Delete) -> Recording | None:
    """Return how the changes by a statement are recorded; None if they are no effects of a tool."""
    rule = statement.table.info.get(UNDO) if isinstance(statement.table, Table) else None
    if rule == NOT_AN_EFFECT:
        return None
    if rule != ROWS:
        return "never"
    return "insert" if isinstance(statement, Insert) and always_inserts(statement) else "rows"
