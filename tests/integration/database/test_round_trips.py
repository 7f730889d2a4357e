"""Round trips to PostgreSQL per use case. One more costs a tenth of a request."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from msgspec import Raw
from sqlalchemy import make_url

from latchkey.application import tool_calls
from latchkey.application.artifacts import add_artifact, get_artifact, list_artifacts, list_versions, revise_artifact
from latchkey.application.context_tokens import mint_context_token
from latchkey.application.conversations import list_messages
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, complete_task, list_tasks
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.application.turns.record import EventBatch, append_events, renew_turn
from latchkey.application.turns.start import StartedTurn
from latchkey.domain.artifact import ArtifactRevision, NewArtifact
from latchkey.domain.conversation import ConversationId
from latchkey.domain.credentials import TASKS_READ, TASKS_WRITE, NewContextToken, Owner, UserId
from latchkey.domain.page import Window
from latchkey.domain.task import NewTask
from latchkey.domain.tool_call import ToolInvocation, ToolRequest
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import LIMITS
from tests.integration.database.tcp_proxy import TcpProxy, proxy_to
from tests.turns import started_turn

ME = Owner(UserId("me"))
CANCELLED = TurnOutcome("cancelled", Usage())
DONE = TurnOutcome("completed", Usage(), "Done.")
MILK = NewTask("Buy milk")
OPEN, WRITES, COMMIT = 1, 1, 1


class Counted:
    """A dispatcher behind a proxy that counts round trips."""

    def __init__(self, app: Dispatcher, proxy: TcpProxy) -> None:
        self.app = app
        self.ledger = ToolCallExecutor(app)
        self._proxy = proxy

    async def round_trips(self, uow: Callable[[], Awaitable[object]]) -> int:
        """Return the round trips of the second run: the first one also prepares the statements."""
        await uow()
        before = self._proxy.round_trips
        await uow()
        return self._proxy.round_trips - before

    async def says(self, where: ConversationId | None = None) -> StartedTurn:
        return await started_turn(self.app, ME, conversation_id=where)


@pytest.fixture
async def service(postgresql_url: str) -> AsyncIterator[Counted]:
    url = make_url(postgresql_url)
    async with proxy_to(url.port or 5432) as proxy:
        engine = create_engine(url.set(port=proxy.port).render_as_string(hide_password=False))
        yield Counted(Dispatcher(SqlUnitsOfWork(engine), lambda _call: None), proxy)
        await engine.dispose()


async def test_begin_and_commit_take_one_round_trip_each(service: Counted) -> None:
    """BEGIN, role, user and the lock of an exclusive unit of work are one message."""
    app = service.app
    task = await app.call(ME, add_task, MILK)

    assert await service.round_trips(lambda: app.call(ME, add_task, MILK)) == 3
    assert await service.round_trips(lambda: app.call(ME, list_tasks)) == 3
    assert await service.round_trips(lambda: app.call(ME, complete_task, task.id)) == 3


async def test_artifact_round_trips(service: Counted) -> None:
    """Reading an artifact is one query. A new artifact is two rows: itself and its first version."""
    app = service.app
    new, revision = NewArtifact("Plan", "# Plan"), ArtifactRevision("Other")
    made = await app.call(ME, add_artifact, new)

    assert await service.round_trips(lambda: app.call(ME, get_artifact, made.id)) == 3
    assert await service.round_trips(lambda: app.call(ME, list_artifacts)) == 3
    assert await service.round_trips(lambda: app.call(ME, list_versions, made.id, Window())) == 4
    assert await service.round_trips(lambda: app.call(ME, add_artifact, new)) == 4
    assert await service.round_trips(lambda: app.call(ME, revise_artifact, made.id, revision)) == 5


async def test_duplicate_tool_call_round_trips(service: Counted) -> None:
    """The first unit of work finds the duplicate and is rolled back; the second reads the result."""
    accepted = await service.says()
    call = ToolInvocation("add_task", b"{}", "call-1")
    await service.ledger.execute(accepted.secret, call, add_task, MILK)

    assert await service.round_trips(lambda: service.ledger.execute(accepted.secret, call, add_task, MILK)) == 8


async def test_context_token_takes_one_more_round_trip(service: Counted) -> None:
    app = service.app
    secret = (await app.call(ME, mint_context_token, NewContextToken([TASKS_READ, TASKS_WRITE]))).secret

    assert await service.round_trips(lambda: app.call(secret, add_task, MILK)) == 4
    assert await service.round_trips(lambda: app.call(secret, list_tasks)) == 4


@pytest.mark.parametrize("history", [False, True], ids=["new", "with a history"])
async def test_turn_start_and_finish_round_trips(service: Counted, *, history: bool) -> None:
    """The start stores message, token and first event; the finish stores answer and last events."""
    app = service.app
    accepted = await service.says()
    running_turns, history_with_calls, number = 1, 2, 1
    where = history_with_calls + number if history else 0
    accepting = OPEN + running_turns + where + WRITES + COMMIT

    async def again(ending: TurnOutcome) -> None:
        nonlocal accepted
        await app.call(ME, finish_turn, accepted.turn.id, ending)
        accepted = await service.says(accepted.turn.conversation_id if history else None)

    for _ in range(4):
        await again(CANCELLED)
    turn_with_calls_and_number = 1
    ending = OPEN + turn_with_calls_and_number + WRITES + COMMIT
    assert await service.round_trips(lambda: again(CANCELLED)) == ending + accepting
    assert await service.round_trips(lambda: again(DONE)) == ending + accepting


async def test_running_turn_round_trips(service: Counted) -> None:
    """A lease renewal, a text delta, and a text delta with an announced tool call and its row."""
    app = service.app
    turn = (await service.says()).turn
    written, count = 0, 0
    lock, numbers, row = 1, 1, 1

    async def append_text(request: ToolRequest | None = None) -> None:
        nonlocal written
        await app.call(ME, append_events, turn.id, EventBatch(written, "text", Usage(), request))
        written += len("text")

    async def announce() -> None:
        nonlocal count
        count += 1
        await append_text(ToolRequest(f"call-{count}", "add_task", Raw(b"{}")))

    renewing = await service.round_trips(lambda: app.call(ME, renew_turn, turn.id, LIMITS.lease))
    assert renewing == OPEN + lock + WRITES + COMMIT
    assert await service.round_trips(append_text) == OPEN + numbers + WRITES + COMMIT
    assert await service.round_trips(announce) == OPEN + row + numbers + WRITES + COMMIT


async def test_tool_call_of_turn_costs_no_round_trip_more_than_its_effect(
    service: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Effect, record and events are one message. A call that was announced costs a look-up and an update more."""
    monkeypatch.setattr(tool_calls, "_SLOW_S", 60)  # a machine under load would take the path of slow calls
    accepted = await service.says()
    token, found, row = 1, 1, 1

    def calls(*ids: str | None) -> Callable[[], Awaitable[object]]:
        left = list(ids)
        return lambda: service.ledger.execute(
            accepted.secret, ToolInvocation("add_task", b"{}", left.pop()), add_task, MILK
        )

    call = OPEN + token + WRITES + COMMIT
    assert await service.round_trips(calls(None, None)) == call
    assert await service.round_trips(calls("new-1", "new-2")) == call
    for call_id in ("announced-1", "announced-2"):
        batch = EventBatch(0, "", Usage(), ToolRequest(call_id, "add_task", Raw(b"{}")))
        await service.app.call(ME, append_events, accepted.turn.id, batch)
    assert await service.round_trips(calls("announced-1", "announced-2")) == call + found + row + WRITES


async def test_message_page_queries_tool_calls_only_if_there_are_some(service: Counted) -> None:
    app = service.app
    accepted = await service.says()
    listing = lambda: app.call(ME, list_messages, accepted.turn.conversation_id, Window())  # noqa: E731

    assert await service.round_trips(listing) == 3
    await service.ledger.execute(accepted.secret, ToolInvocation("add_task", b"{}"), add_task, MILK)
    await app.call(ME, finish_turn, accepted.turn.id, DONE)
    assert await service.round_trips(listing) == 4
