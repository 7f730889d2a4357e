"""Tool calls outside a transaction: recorded as started, run once with nothing held, and recorded with their result."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from latchkey.application import external_calls
from latchkey.application.access import requires
from latchkey.application.context_tokens import revoke_context_token
from latchkey.application.tasks import add_task, list_tasks
from latchkey.application.tool_calls import NO_OUTCOME
from latchkey.application.turns.finish import PublishedTurn, cancel_turn
from latchkey.application.turns.read import get_turn, read_events
from latchkey.application.turns.record import EventBatch, append_events
from latchkey.application.turns.start import StartedTurn
from latchkey.domain.credentials import TASKS_WRITE, Credential, Owner
from latchkey.domain.errors import Invalid, NotFound
from latchkey.domain.ports import ToolBug, UnitOfWork, UseCaseCall
from latchkey.domain.quota import Quota
from latchkey.domain.task import NewTask, Task
from latchkey.domain.tool_call import ToolCall, ToolInvocation, ToolOutcome, ToolRequest
from latchkey.domain.turn import Usage
from tests.contract.database.external_tools import OrderTool, Replica, run_replicas
from tests.polling import TIMEOUT_S, wait_until
from tests.turns import started_turn

ARGUMENTS = b'{"sku":"bell"}'


@pytest.fixture
async def replicas(shared_database_url: str) -> AsyncIterator[list[Replica]]:
    async with run_replicas(shared_database_url) as replicas:
        yield replicas


@pytest.fixture
def tool() -> OrderTool:
    return OrderTool()


@pytest.fixture
async def turn(replicas: list[Replica], me: Owner) -> StartedTurn:
    return await started_turn(replicas[0].dispatcher, me)


async def published(replica: Replica, me: Owner, turn: StartedTurn) -> PublishedTurn:
    return await replica.dispatcher.call(me, get_turn, turn.turn.id)


async def only_call(replica: Replica, me: Owner, turn: StartedTurn) -> ToolCall:
    (call,) = (await published(replica, me, turn)).tool_calls
    return call


async def event_names(replica: Replica, me: Owner, turn: StartedTurn) -> list[str]:
    page = await replica.dispatcher.call(me, read_events, turn.turn.id, 0)
    return [event.name for event in page.events]


async def announce(replica: Replica, me: Owner, turn: StartedTurn, text: str = "") -> None:
    request = ToolRequest("call-1", "order", msgspec.Raw(ARGUMENTS))
    await replica.dispatcher.call(me, append_events, turn.turn.id, EventBatch(0, text, Usage(), request))


async def start(replica: Replica, credential: Credential, tool: OrderTool) -> asyncio.Task[ToolOutcome]:
    """Start the call and return once its tool runs."""
    calling = asyncio.create_task(replica.call(credential, tool.order))
    await tool.started.wait()
    return calling


async def test_running_tool_holds_no_unit_of_work(
    replicas: list[Replica], tool: OrderTool, me: Owner, you: Owner, turn: StartedTurn
) -> None:
    """Other users write meanwhile, in the same process and in another one; on SQLite there is one writer."""
    calling = await start(replicas[0], turn.secret, tool)
    held = replicas[0].units.open_now
    for replica in replicas:
        await replica.dispatcher.call(you, add_task, NewTask("Milk"))
    tool.release.set()

    assert held == 0
    assert (await calling).json == b'{"sku":"bell","count":1}'
    assert len((await replicas[0].dispatcher.call(you, list_tasks)).items) == 2


async def test_call_in_turn_is_recorded_as_started_and_then_with_result(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn
) -> None:
    calling = await start(replicas[0], turn.secret, tool)
    before = await only_call(replicas[1], me, turn)
    names = await event_names(replicas[1], me, turn)
    tool.release.set()
    outcome = await calling
    after = await only_call(replicas[1], me, turn)

    assert (before.name, bytes(before.arguments), before.has_result) == ("order", ARGUMENTS, False)
    assert names == ["turn.started", "tool_call.started"]
    assert (after.id, bytes(after.result), after.is_error) == (before.id, b'{"sku":"bell","count":1}', False)
    assert bytes(after.result) == outcome.json
    assert await event_names(replicas[1], me, turn) == ["turn.started", "tool_call.started", "tool_call.completed"]
    assert tool.contexts[0].call_id == str(after.id)
    assert tool.contexts[0].user_id == me.user_id
    assert tool.contexts[0].scope.turn_id == turn.turn.id


@pytest.mark.parametrize("text", ["", "Let me see. "], ids=["alone", "with text"])
async def test_announced_call_starts_once_with_one_event(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn, text: str
) -> None:
    tool.release.set()
    await announce(replicas[0], me, turn, text)
    announced = await only_call(replicas[0], me, turn)
    outcomes = [await replica.call(turn.secret, tool.order) for replica in replicas]

    assert (await only_call(replicas[0], me, turn)).id == announced.id
    assert [outcome.json for outcome in outcomes] == [b'{"sku":"bell","count":1}'] * 2
    assert tool.runs == 1
    assert (await event_names(replicas[0], me, turn))[-2:] == ["tool_call.started", "tool_call.completed"]
    assert (await event_names(replicas[0], me, turn)).count("tool_call.started") == 1


async def test_announcement_after_start_adds_no_event(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn
) -> None:
    """The agent's process announces a call that takes longer than a moment, while it runs."""
    calling = await start(replicas[0], turn.secret, tool)
    await announce(replicas[0], me, turn)
    tool.release.set()
    await calling

    assert await event_names(replicas[0], me, turn) == ["turn.started", "tool_call.started", "tool_call.completed"]


@pytest.mark.parametrize("is_announced", [False, True], ids=["new", "announced"])
async def test_concurrent_duplicate_calls_run_tool_once(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn, *, is_announced: bool
) -> None:
    """On two replicas. The duplicates of a running call are told that it has no result yet; later they get it."""
    if is_announced:
        await announce(replicas[0], me, turn)
    calls = [asyncio.create_task(replicas[n % 2].call(turn.secret, tool.order)) for n in range(6)]
    await tool.started.wait()
    waiting = [call for call in calls if call not in (await asyncio.wait(calls, timeout=0))[0]]
    while len(waiting) > 1:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        waiting = [call for call in waiting if not call.done()]
    tool.release.set()
    outcomes = await asyncio.gather(*calls)
    later = await replicas[1].call(turn.secret, tool.order)

    assert tool.runs == 1
    assert sorted(outcome.is_error for outcome in outcomes) == [False] + [True] * 5
    assert {outcome.json for outcome in outcomes if outcome.is_error} == {NO_OUTCOME.json}
    assert later.json == b'{"sku":"bell","count":1}'
    assert await event_names(replicas[0], me, turn) == ["turn.started", "tool_call.started", "tool_call.completed"]


@pytest.mark.parametrize("with_token", [False, True], ids=["owner", "context token"])
async def test_duplicate_call_outside_turn_runs_tool_once(
    replicas: list[Replica], tool: OrderTool, me: Owner, *, with_token: bool
) -> None:
    credential: Credential = (await replicas[0].token(me)).secret if with_token else me
    calling = await start(replicas[0], credential, tool)
    meanwhile = await replicas[1].call(credential, tool.order)
    tool.release.set()
    first = await calling
    later = await replicas[1].call(credential, tool.order)
    other = await replicas[1].call(credential, tool.order, "horn")

    assert tool.runs == 1
    assert meanwhile == NO_OUTCOME
    assert first.json == later.json == b'{"sku":"bell","count":1}'
    assert (other.is_error, other.code) == (True, "conflict")
    assert "Another call" in other.content["detail"]


async def test_concurrent_duplicate_calls_outside_turn_run_tool_once(
    replicas: list[Replica], tool: OrderTool, me: Owner
) -> None:
    tool.release.set()
    outcomes = await asyncio.gather(*(replicas[n % 2].call(me, tool.order) for n in range(6)))

    assert tool.runs == 1
    assert {outcome.json for outcome in outcomes} <= {b'{"sku":"bell","count":1}', NO_OUTCOME.json}


async def test_ids_for_other_services_are_unique_and_stable(replicas: list[Replica], me: Owner, you: Owner) -> None:
    """Two users, and two credentials of one user, may choose the same id for their calls."""
    tool = OrderTool()
    tool.release.set()
    credentials: list[Credential] = [me, you, (await replicas[0].token(me)).secret]
    for credential in credentials:
        await replicas[0].call(credential, tool.order)
    for _ in range(2):
        await replicas[0].call(me, tool.order, call_id=None)

    assert len({context.call_id for context in tool.contexts}) == 5


async def test_repeated_read_runs_again_with_same_id_for_other_services(
    replicas: list[Replica], tool: OrderTool, me: Owner
) -> None:
    """A read outside a turn changes nothing, so its result is not recorded."""
    tool.release.set()
    for replica in replicas:
        await replica.call(me, tool.stock)

    assert [context.call_id for context in tool.contexts] == [tool.contexts[0].call_id] * 2


@pytest.mark.parametrize("in_turn", [True, False], ids=["turn", "owner"])
async def test_interrupted_call_has_no_result_and_never_runs_again(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn, *, in_turn: bool
) -> None:
    """As after the death of the process that ran it."""
    credential: Credential = turn.secret if in_turn else me
    calling = await start(replicas[0], credential, tool)
    calling.cancel()
    await asyncio.wait([calling])
    tool.release.set()
    repeated = [await replica.call(credential, tool.order) for replica in replicas]

    assert tool.was_cancelled
    assert tool.runs == 1
    assert repeated == [NO_OUTCOME, NO_OUTCOME]
    assert NO_OUTCOME.content["detail"].startswith("no result recorded")
    if in_turn:
        assert not (await only_call(replicas[0], me, turn)).has_result


@pytest.fixture
def _checks_tokens_often_on_sqlite(shared_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event bus of SQLite serves one process, so another one sees the end of a turn when it checks the token."""
    if shared_database_url.startswith("sqlite"):
        monkeypatch.setattr(external_calls, "_CHECK_INTERVAL_S", 0.1)


@pytest.mark.usefixtures("_checks_tokens_often_on_sqlite")
@pytest.mark.parametrize("on", [0, 1], ids=["here", "on another replica"])
async def test_cancelled_turn_stops_tool_and_stores_no_result(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn, on: int
) -> None:
    calling = await start(replicas[0], turn.secret, tool)
    await replicas[on].dispatcher.call(me, cancel_turn, turn.turn.id)
    async with asyncio.timeout(TIMEOUT_S):
        outcome = await calling

    assert tool.was_cancelled
    assert (outcome.is_error, outcome.code) == (True, "conflict")
    assert "not stored" in outcome.content["detail"]
    assert not (await only_call(replicas[0], me, turn)).has_result
    assert (await event_names(replicas[0], me, turn))[-1] == "turn.cancelled"


async def test_result_of_ended_turn_is_not_stored(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn
) -> None:
    """Also if the tool ignores the end of its turn."""

    async def return_after_cancellation(sku: str) -> object:
        await replicas[1].dispatcher.call(me, cancel_turn, turn.turn.id)
        return {"sku": sku}

    tool.respond = return_after_cancellation
    tool.release.set()
    outcome = await replicas[0].call(turn.secret, tool.order)

    assert (outcome.is_error, outcome.code) == (True, "conflict")
    assert not (await only_call(replicas[0], me, turn)).has_result
    assert (await event_names(replicas[0], me, turn))[-1] == "turn.cancelled"


async def test_result_for_revoked_token_is_not_stored(replicas: list[Replica], tool: OrderTool, me: Owner) -> None:
    minted = await replicas[0].token(me)
    calling = await start(replicas[0], minted.secret, tool)
    await replicas[1].dispatcher.call(me, revoke_context_token, minted.token.id)
    tool.release.set()
    outcome = await calling

    assert (outcome.is_error, outcome.code) == (True, "conflict")
    assert "not stored" in outcome.content["detail"]


async def test_read_of_revoked_token_returns_no_result(replicas: list[Replica], tool: OrderTool, me: Owner) -> None:
    """A call without an id is not recorded, but the token is checked again."""
    minted = await replicas[0].token(me)
    calling = asyncio.create_task(replicas[0].call(minted.secret, tool.stock, call_id=None))
    await tool.started.wait()
    await replicas[1].dispatcher.call(me, revoke_context_token, minted.token.id)
    tool.release.set()

    assert (await calling).code == "conflict"


async def test_timeout_stops_tool_and_is_recorded(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn
) -> None:
    outcome = await replicas[0].call(turn.secret, tool.order, timeout_s=0.05)

    assert tool.was_cancelled
    assert (outcome.is_error, outcome.code) == (True, "deadline")
    assert "0.05 seconds" in outcome.content["detail"]
    assert bytes((await only_call(replicas[0], me, turn)).result) == outcome.json
    assert (await replicas[1].call(turn.secret, tool.order)).json == outcome.json
    assert tool.runs == 1


async def test_failure_of_tool_is_recorded_tool_error(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn
) -> None:
    async def fail(_: str) -> object:
        raise NotFound.of("bell")

    tool.respond = fail
    tool.release.set()
    outcomes = [await replica.call(turn.secret, tool.order) for replica in replicas]

    assert [outcome.content for outcome in outcomes] == [{"code": "not-found", "detail": "There is no such bell."}] * 2
    assert tool.runs == 1
    assert (await only_call(replicas[0], me, turn)).is_error


async def test_unknown_exception_is_logged_and_recorded_as_internal(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn
) -> None:
    async def fail(_: str) -> object:
        raise ZeroDivisionError("the words of a stranger")

    tool.respond = fail
    tool.release.set()
    outcome = await replicas[0].call(turn.secret, tool.order)
    (bug,) = [entry for entry in replicas[0].logged if isinstance(entry, ToolBug)]
    calls = [entry for entry in replicas[0].logged if isinstance(entry, UseCaseCall) and entry.use_case == "order"]

    assert outcome.content == {"code": "internal", "detail": "Internal error of the tool: see the service's log."}
    assert (bug.tool, bug.call_id, bug.user_id) == ("order", tool.contexts[0].call_id, me.user_id)
    assert isinstance(bug.exception, ZeroDivisionError)
    assert [(call.outcome, call.user_id) for call in calls] == [("internal", me.user_id)]
    assert bytes((await only_call(replicas[0], me, turn)).result) == outcome.json


async def test_calls_beyond_limit_of_turn_do_not_start(
    replicas: list[Replica], tool: OrderTool, turn: StartedTurn
) -> None:
    tool.release.set()
    replicas[0].transactional.max_calls = 1
    outcomes = [await replicas[0].call(turn.secret, tool.order, call_id=id) for id in ("1", "2", "1")]

    assert [outcome.code for outcome in outcomes] == ["ok", "exhausted", "ok"]
    assert tool.runs == 1


async def test_running_calls_of_user_are_limited(
    replicas: list[Replica], tool: OrderTool, me: Owner, you: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused call may be repeated under its id. Other users have their own limit."""
    monkeypatch.setattr(external_calls, "MAX_RUNNING_PER_USER", 1)
    calling = await start(replicas[0], me, tool)
    refused = await replicas[0].call(me, tool.order, call_id="call-2")
    others = asyncio.create_task(replicas[0].call(you, tool.order))
    tool.release.set()

    assert (refused.is_error, refused.code) == (True, "exhausted")
    assert not (await calling).is_error
    assert not (await others).is_error
    assert not (await replicas[0].call(me, tool.order, call_id="call-2")).is_error


async def test_call_beyond_storage_quota_does_not_start(shared_database_url: str, tool: OrderTool, me: Owner) -> None:
    tool.release.set()
    async with run_replicas(shared_database_url, 1) as (replica,):
        small = Replica(replica.process, quota=Quota(stored_bytes=1))
        turn = await started_turn(replica.dispatcher, me)
        await small.dispatcher.acquire(me)
        outcome = await small.call(turn.secret, tool.order)

    assert outcome.code == "exhausted"
    assert tool.runs == 0


async def test_transactional_call_with_id_of_running_call_has_no_effect(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn
) -> None:
    runs: list[str] = []

    @requires(TASKS_WRITE)
    async def add_once(uow: UnitOfWork) -> Task:
        runs.append("add_once")
        return await add_task(uow, NewTask("Milk"))

    calling = await start(replicas[0], turn.secret, tool)
    invocation = ToolInvocation("add_once", b"{}", "call-1")
    added = await replicas[1].transactional.execute(turn.secret, invocation, add_once)
    invalid = await replicas[1].transactional.record_failure(
        turn.secret, ToolInvocation("order", b'{"sku":5}', "call-1"), tool.order, Invalid.at("$.sku", "Expected text")
    )
    tool.release.set()
    outcome = await calling

    assert [(other.is_error, other.code) for other in (added, invalid)] == [(True, "conflict")] * 2
    assert (await replicas[0].dispatcher.call(me, list_tasks)).items == []
    assert runs == []
    assert bytes((await only_call(replicas[0], me, turn)).result) == outcome.json == b'{"sku":"bell","count":1}'


async def test_result_is_stored_after_its_caller_is_cancelled(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn
) -> None:
    """The tool has had its effect: a caller that leaves while the result is stored does not lose it."""
    calling = await start(replicas[0], turn.secret, tool)
    replicas[0].units.may_open.clear()
    tool.release.set()
    await replicas[0].units.is_blocked.wait()
    calling.cancel()
    await asyncio.wait([calling])
    replicas[0].units.may_open.set()

    async def has_result() -> bool:
        return (await only_call(replicas[1], me, turn)).has_result

    await wait_until(has_result)
    assert tool.runs == 1


async def test_result_is_stored_after_database_outage(
    replicas: list[Replica], tool: OrderTool, me: Owner, turn: StartedTurn
) -> None:
    calling = await start(replicas[0], turn.secret, tool)
    replicas[0].units.failures = 2
    tool.release.set()
    outcome = await calling

    assert not outcome.is_error
    assert bytes((await only_call(replicas[0], me, turn)).result) == outcome.json
