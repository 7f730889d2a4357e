"""Tool calls in SQL."""

from functools import cache
from itertools import takewhile
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import asdict, replace
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    Subquery,
    and_,
    bindparam,
    case,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql

from latchkey.domain.errors import DuplicateToolCall
from latchkey.domain.tool_call import (
    NO_RESULT,
    OmittedField,
    StartedCall,
    StoredCall,
    ToolCall,
    ToolCallId,
)
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_repositories import LISTING, ONE_TURN, CallBounds, CallPage, Order
from latchkey.domain.undo import Change
from latchkey.infrastructure.database.schema import tool_calls, turns
from latchkey.infrastructure.database.sql.driver import Row
from latchkey.infrastructure.database.sql.session import (
    Session,
    insert_for_user,
    octet_length,
    owned_by_user,
)
from latchkey.infrastructure.database.sql.tenant_guard import USER

_INSERT = insert_for_user(tool_calls)
# PostgreSQL's construct compiles for SQLite too: ON CONFLICT DO NOTHING is the same in both.
_INSERT_IF_ABSENT = postgresql.insert(tool_calls).values(user_id=bindparam(USER)).on_conflict_do_nothing()
OF_TURN = (owned_by_user(tool_calls), tool_calls.c.turn_id == bindparam("turn"))
IS_ANNOUNCED = (
    *OF_TURN,
    tool_calls.c.call_id == bindparam("known_as"),
    tool_calls.c.result.is_(None),
    tool_calls.c.executing_since.is_(None),
    tool_calls.c.approval_expires_at.is_(None),
)
_SET_RESULT = update(tool_calls).where(*IS_ANNOUNCED).returning(tool_calls.c.id)
# Statements of their own: a statement is prepared with the columns of its first use.
_INSERT_STARTED_IF_ABSENT = postgresql.insert(tool_calls).values(user_id=bindparam(USER)).on_conflict_do_nothing()
_START_ANNOUNCED = update(tool_calls).where(*IS_ANNOUNCED).returning(tool_calls.c.id)
HAS_ID = (*OF_TURN, tool_calls.c.id == bindparam("key"))
_COMPLETE = (
    update(tool_calls)
    .where(*HAS_ID, tool_calls.c.result.is_(None), tool_calls.c.executing_since.is_not(None))
    .values(changes=func.coalesce(tool_calls.c.changes, bindparam("new_changes")))
)
_SET_CHANGES = update(tool_calls).where(*HAS_ID)
_ADD_EFFECTS = (
    update(turns)
    .where(owned_by_user(turns), turns.c.id == bindparam("turn"))
    .values(effects=turns.c.effects.bitwise_or(bindparam("new_effects")))
)
_CLOSE = update(tool_calls).where(*HAS_ID, tool_calls.c.result.is_(None))
CALL_COLUMNS = [tool_calls.c[field] for field in ToolCall.__struct_fields__ if field != "omitted"]
_IS_STARTED = and_(tool_calls.c.executing_since.is_not(None), tool_calls.c.result.is_(None))
IS_OPEN = and_(tool_calls.c.approval_expires_at.is_not(None), tool_calls.c.decision.is_(None))
_STARTED = select(tool_calls.c.id).where(*OF_TURN, _IS_STARTED)
_BY_CALL_ID = select(*CALL_COLUMNS, _IS_STARTED.label("is_started"), IS_OPEN.label("is_asked")).where(
    *OF_TURN, tool_calls.c.call_id == bindparam("call_id")
)


_EXTERNAL = Change("updated", "", reason="external")


class SqlToolCalls:
    """Tool calls, oldest first within a turn."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, call: ToolCall, turn_id: TurnId, call_id: str | None = None) -> None:
        values = await self._result_values(call)
        await self._session.defer(_INSERT, turn_id=turn_id, id=call.id, call_id=call_id, **values)

    async def add_if_absent(self, call: ToolCall, turn_id: TurnId, call_id: str) -> bool:
        without_result = {**call_values(call), "result": None, "changes": None}
        values = await self._result_values(call) if call.has_result else without_result
        return bool(
            await self._session.execute(_INSERT_IF_ABSENT, turn_id=turn_id, id=call.id, call_id=call_id, **values)
        )

    async def set_result(self, turn_id: TurnId, call_id: str, call: ToolCall) -> ToolCallId:
        values = await self._result_values(call)
        row = await self._session.fetch_row(_SET_RESULT, turn=turn_id, known_as=call_id, **values)
        if row is None:
            raise DuplicateToolCall("The turn has no tool call with this id that waits for a result.")
        id: ToolCallId = row[0]
        return id

    async def start(
        self, call: ToolCall, turn_id: TurnId, call_id: str | None, *, is_read: bool = False
    ) -> StartedCall | None:
        if not is_read:
            self._session.add_change(_EXTERNAL)
        values = {
            **call_values(call),
            "executing_since": call.started_at,
            "changes": await self._session.recorded_changes(),
        }
        added = await self._session.execute(
            _INSERT_STARTED_IF_ABSENT, turn_id=turn_id, id=call.id, call_id=call_id, **values
        )
        if added:
            return StartedCall(call.id, was_announced=False)
        row = await self._session.fetch_row(_START_ANNOUNCED, turn=turn_id, known_as=call_id, **values)
        return None if row is None else StartedCall(row[0], was_announced=True)

    async def complete(self, turn_id: TurnId, call: ToolCall) -> bool:
        result = bytes(call.result).decode()
        values: dict[str, Any] = {"result": result, "result_size": len(bytes(call.result))}
        values |= {"duration_ms": call.duration_ms, "new_changes": await self._session.recorded_changes()}
        if self._session.effects:
            # The user has approved the call, which has run in this unit of work.
            await self._session.defer(_ADD_EFFECTS, turn=turn_id, new_effects=self._session.effects)
        return bool(await self._session.execute(_COMPLETE, turn=turn_id, key=call.id, is_error=call.is_error, **values))

    async def set_external(self, turn_id: TurnId, id: ToolCallId) -> None:
        self._session.add_change(_EXTERNAL)
        await self._session.defer(_SET_CHANGES, turn=turn_id, key=id, changes=await self._session.recorded_changes())
        await self._session.defer(_ADD_EFFECTS, turn=turn_id, new_effects=self._session.effects)

    async def close(self, turn_id: TurnId, call: ToolCall) -> None:
        result = bytes(call.result).decode()
        await self._session.execute(
            _CLOSE, turn=turn_id, key=call.id, is_error=True, result=result, result_size=len(bytes(call.result))
        )

    async def find(self, turn_id: TurnId, call_id: str) -> StoredCall | None:
        row = await self._session.fetch_row(_BY_CALL_ID, turn=turn_id, call_id=call_id)
        return None if row is None else StoredCall(tool_call_from_row(row[:-2]), bool(row[-2]), bool(row[-1]))

    async def list_started(self, turn_id: TurnId) -> list[ToolCallId]:
        return [row[0] for row in await self._session.fetch(_STARTED, turn=turn_id)]

    async def list_of_turn(self, id: TurnId) -> list[ToolCall]:
        calls = [bounded_tool_call(row) for row in await self._session.fetch(SMALL_CALLS_OF_TURN, turn=id)]
        return await self.with_large(id, calls)

    async def with_large(self, id: TurnId, calls: list[ToolCall]) -> list[ToolCall]:
        """Return the calls of the turn, of which `calls` has only the small fields. Reads nothing if all are small."""
        if not any(call.omitted for call in calls):
            return calls
        rows = await self._session.fetch(_CALLS_OF_TURN, turn=id, **_BOUNDS_OF_TURN)
        return [bounded_tool_call(row) for row in rows]

    async def _result_values(self, call: ToolCall) -> dict[str, Any]:
        """Return the values of a call with its result, and with what this unit of work has recorded of its changes."""
        result, changes = bytes(call.result).decode(), await self._session.recorded_changes()
        return {**call_values(call), "result": result, "changes": changes}

    async def list_by_turn(self, ids: list[TurnId], bounds: CallBounds, order: Order) -> CallPage:
        calls: dict[TurnId, list[ToolCall]] = {}
        if not ids:
            return CallPage(calls, order)
        params = turn_ids_as_parameters(ids)
        rows = await self._session.fetch(_small_calls_of_turns(len(params), order), **params)
        for *row, turn_id in rows:
            calls.setdefault(turn_id, []).append(bounded_tool_call(row))
        if len(rows) < _MAX_SMALL_CALLS and not any(call.omitted for of_turn in calls.values() for call in of_turn):
            return CallPage(calls, order)
        calls.clear()
        rows = await self._session.fetch(_calls_of_turns(len(params), order), **params, **asdict(bounds))
        for *row, turn_id, _ in rows:
            calls.setdefault(turn_id, []).append(bounded_tool_call(row))
        is_cut = bool(rows) and rows[-1][-1] >= bounds.page_bytes
        return CallPage(calls, order, next(reversed(calls)) if is_cut else None)

    async def list_for_page(
        self, ids: list[TurnId], rows: list[Row], turn_column: int, order: Order
    ) -> tuple[dict[TurnId, list[ToolCall]], list[Row]]:
        """Return the calls of these turns for a page, and the rows up to the turn whose calls fill the page."""
        page = await self.list_by_turn(ids, LISTING, order)
        if page.last is None:
            return page.calls, rows
        kept = list(takewhile(lambda row: page.includes(row[turn_column]), rows))
        if rows and not kept:
            # Of clocks that differ, a later turn may have a lower id.
            kept, page = rows[:1], await self.list_by_turn([rows[0][turn_column]], LISTING, order)
        return page.calls, kept


_BOUNDS_OF_TURN = {"turn_bytes": ONE_TURN.turn_bytes, "field_bytes": ONE_TURN.field_bytes}

_ALWAYS_BYTES = 2 * 1024
"""A field of this size is never omitted. The result of a tool that saves an artifact is smaller."""


def _sizes() -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Return the sizes of the arguments and of the result; a row of an earlier release is measured."""
    columns = tool_calls.c
    arguments = func.coalesce(columns.arguments_size, octet_length(columns.arguments))
    result = func.coalesce(columns.result_size, octet_length(columns.result), 0)
    return arguments, result


def _within_bounds(sized: Subquery) -> tuple[ColumnElement[Any], ...]:
    """Return the columns for `bounded_tool_call`: a field that exceeds the bounds is NULL and is not read."""

    def bounded(name: str) -> ColumnElement[Any]:
        size = sized.c[f"{name}_bytes"]
        is_whole = or_(
            size <= _ALWAYS_BYTES,
            and_(size <= bindparam("field_bytes"), sized.c.in_turn <= bindparam("turn_bytes")),
        )
        return case((is_whole, tool_calls.c[name])).label(name)

    replaced = {"arguments": bounded("arguments"), "result": bounded("result")}
    columns = [replaced.get(column.name, column) for column in CALL_COLUMNS]
    return *columns, sized.c.arguments_bytes, sized.c.result_bytes


def _measured(*conditions: ColumnElement[bool]) -> Subquery:
    """Return the sizes of the calls, from an index alone.

    This is a subquery of its own because SQLite reads all columns that a query with window functions refers to.
    """
    arguments, result = _sizes()
    columns = [arguments.label("arguments_bytes"), result.label("result_bytes")]
    return (
        select(tool_calls.c.turn_id, tool_calls.c.id, *columns).where(owned_by_user(tool_calls), *conditions).subquery()
    )


def _sized(measured: Subquery, *sums: ColumnElement[Any]) -> Subquery:
    columns = measured.c
    return select(
        columns.turn_id.label("of_turn"),
        columns.id.label("of_id"),
        columns.arguments_bytes,
        columns.result_bytes,
        *sums,
    ).subquery()


def _read_size(measured: Subquery) -> ColumnElement[int]:
    """Return how many bytes are read of a call at most."""
    sizes = [measured.c.arguments_bytes, measured.c.result_bytes]
    arguments, result = (case((size <= bindparam("field_bytes"), size), else_=_ALWAYS_BYTES) for size in sizes)
    return arguments + result


def _read_bounded(sized: Subquery, *more: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
    is_same = and_(tool_calls.c.turn_id == sized.c.of_turn, tool_calls.c.id == sized.c.of_id)
    return (
        select(*_within_bounds(sized), *more)
        .select_from(sized.join(tool_calls, is_same))
        .where(owned_by_user(tool_calls))
    )


def _calls_of_turn() -> Select[*tuple[Any, ...]]:
    is_of_turn = tool_calls.c.turn_id == bindparam("turn")
    calls = _measured(is_of_turn)
    sized = _sized(calls, func.sum(_read_size(calls)).over(order_by=calls.c.id).label("in_turn"))
    return _read_bounded(sized).where(is_of_turn).order_by(tool_calls.c.id)


_CALLS_OF_TURN = _calls_of_turn()


SMALL_BYTES = 8 * 1024
"""A page whose texts are all of this size needs no sums of sizes."""
_MAX_SMALL_CALLS = 128
"""Few small calls, as almost always, are read without sums of sizes: 128 calls with two fields of 8 KiB are 2 MiB."""


def _small_calls(*conditions: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Return the query of calls for `bounded_tool_call`, in which larger fields are NULL."""
    arguments, result = _sizes()
    replaced = {
        "arguments": case((arguments <= SMALL_BYTES, tool_calls.c.arguments)).label("arguments"),
        "result": case((result <= SMALL_BYTES, tool_calls.c.result)).label("result"),
    }
    columns = [replaced.get(column.name, column) for column in CALL_COLUMNS]
    return select(*columns, arguments.label("arguments_bytes"), result.label("result_bytes")).where(
        owned_by_user(tool_calls), *conditions
    )


SMALL_CALLS_OF_TURN = _small_calls(tool_calls.c.turn_id == bindparam("turn")).order_by(tool_calls.c.id)
"""A turn has a bounded number of calls."""


@cache
def _small_calls_of_turns(count: int, order: Order) -> Select[*tuple[Any, ...]]:
    turn_id = tool_calls.c.turn_id
    by_turn = turn_id if order == "asc" else turn_id.desc()
    return (
        _small_calls(turn_id.in_(turn_parameters(count)))
        .add_columns(turn_id)
        .order_by(by_turn, tool_calls.c.id)
        .limit(literal(_MAX_SMALL_CALLS, literal_execute=True))
    )


@cache
def _calls_of_turns(count: int, order: Order) -> Select[*tuple[Any, ...]]:
    turn_id = tool_calls.c.turn_id
    calls = _measured(turn_id.in_(turn_parameters(count)))
    size = _read_size(calls)
    sized = _sized(
        calls,
        func.sum(size).over(partition_by=calls.c.turn_id, order_by=calls.c.id).label("in_turn"),
        func.sum(size).over(partition_by=calls.c.turn_id).label("of_whole_turn"),
        # Calls of one turn are peers: this is the sum up to the end of the turn.
        func.sum(size)
        .over(order_by=calls.c.turn_id if order == "asc" else calls.c.turn_id.desc())
        .label("through_turn"),
    )
    is_in_page = sized.c.through_turn - sized.c.of_whole_turn < bindparam("page_bytes")
    by_turn = turn_id if order == "asc" else turn_id.desc()
    return _read_bounded(sized, turn_id, sized.c.through_turn).where(is_in_page).order_by(by_turn, tool_calls.c.id)


def turn_parameters(count: int) -> list[BindParameter[Any]]:
    """Return the parameters for the ids of this many turns."""
    return [bindparam(f"turn{index}", type_=tool_calls.c.turn_id.type) for index in range(count)]


def turn_ids_as_parameters(ids: list[TurnId]) -> dict[str, Any]:
    """Return the values of `turn_parameters`: the last id is repeated up to a power of two.

    So there are few different statements to prepare.
    """
    padded = ids + ids[-1:] * ((1 << (len(ids) - 1).bit_length()) - len(ids))
    return {f"turn{index}": id for index, id in enumerate(padded)}


def call_values(call: ToolCall) -> dict[str, Any]:
    return {
        "name": call.name,
        "arguments": bytes(call.arguments).decode(),
        "arguments_size": len(bytes(call.arguments)),
        "result_size": len(bytes(call.result)) if call.has_result else None,
        "is_error": call.is_error,
        "started_at": call.started_at,
        "duration_ms": call.duration_ms,
    }


def tool_call_from_row(row: Row) -> ToolCall:
    id, name, arguments, result, is_error, started_at, duration_ms = row
    return ToolCall(
        id=id,
        name=name,
        arguments=Raw(arguments.encode()),
        result=NO_RESULT if result is None else Raw(result.encode()),
        is_error=is_error,
        started_at=started_at,
        duration_ms=duration_ms,
    )


def bounded_tool_call(row: Row) -> ToolCall:
    """Return the call of a row of `SMALL_CALLS_OF_TURN`, with a note in place of what was not read."""
    *columns, arguments_size, result_size = row
    _, _, arguments, result, *_ = columns
    omitted: list[OmittedField] = []
    if arguments is None:
        omitted.append("arguments")
        columns[2] = _note(arguments_size)
    if result is None and result_size:
        omitted.append("result")
        columns[3] = _note(result_size)
    call = tool_call_from_row(columns)
    return replace(call, omitted=omitted) if omitted else call


def _note(size: int) -> str:
    detail = (
        "Too large for this response: GET turns/{turn_id} has more of it, GET turns/{turn_id}/events has the whole."
    )
    return msgspec.json.encode({"omitted_bytes": size, "detail": detail}).decode()
