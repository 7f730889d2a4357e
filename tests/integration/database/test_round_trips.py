"""How often each use case goes to the database. Once more is a tenth of a request: it must not come by accident."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import make_url

from latchkey.application.application import Application
from latchkey.application.artifacts import add_artifact, get_artifact, list_artifacts, list_versions, revise_artifact
from latchkey.application.ledger import Invocation, Ledger
from latchkey.application.messages import list_messages
from latchkey.application.tasks import add_task, complete_task, list_tasks
from latchkey.application.tokens import mint_context_token
from latchkey.application.turns import Accepted, Ending, accept_turn, finish_turn, renew_turn
from latchkey.domain.artifact import ArtifactRevision, NewArtifact
from latchkey.domain.conversation import ConversationId
from latchkey.domain.message import NewMessage
from latchkey.domain.page import Window
from latchkey.domain.scope import Grant, NewContextToken, Owner, UserId
from latchkey.domain.task import NewTask
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database.engine import create_engine
from latchkey.infrastructure.database.unit import SqlUnitsOfWork
from tests.builders import TASK_GRANTS, TERMS
from tests.integration.database.wire import Wire, wire_to

ME = Owner(UserId("me"))
DONE = Ending("completed", Usage(), "Done.")
MILK = NewTask("Buy milk")


class Counted:
    """A service on one connection, whose exchanges with the database are counted."""

    def __init__(self, app: Application, wire: Wire) -> None:
        self.app = app
        self.ledger = Ledger(app)
        self._wire = wire

    async def round_trips(self, work: Callable[[], Awaitable[object]]) -> int:
        """Of the second time: the first one also prepares the statements."""
        await work()
        before = self._wire.round_trips
        await work()
        return self._wire.round_trips - before

    async def says(self, where: ConversationId | None = None) -> Accepted:
        return await self.app.call(ME, accept_turn, NewMessage("Hello", where), "rehearsal", TASK_GRANTS, TERMS)


@pytest.fixture
async def service(postgresql_url: str) -> AsyncIterator[Counted]:
    url = make_url(postgresql_url)
    async with wire_to(url.port or 5432) as wire:
        engine = create_engine(url.set(port=wire.port).render_as_string(hide_password=False))
        yield Counted(Application(SqlUnitsOfWork(engine), lambda _call: None), wire)
        await engine.dispose()


async def test_a_unit_opens_and_ends_with_one_round_trip_each(service: Counted) -> None:
    """Beginning, role, user and, for a serial unit, its turn in the queue are one message."""
    app = service.app
    task = await app.call(ME, add_task, MILK)

    assert await service.round_trips(lambda: app.call(ME, add_task, MILK)) == 3
    assert await service.round_trips(lambda: app.call(ME, list_tasks)) == 3
    assert await service.round_trips(lambda: app.call(ME, complete_task, task.id)) == 3


async def test_a_content_comes_and_goes_with_what_it_belongs_to(service: Counted) -> None:
    """Reading an artifact is one query, as reading a task is; a new one and its first version are two rows."""
    app = service.app
    new, revision = NewArtifact("Plan", "# Plan"), ArtifactRevision("Other")
    made = await app.call(ME, add_artifact, new)

    assert await service.round_trips(lambda: app.call(ME, get_artifact, made.id)) == 3
    assert await service.round_trips(lambda: app.call(ME, list_artifacts)) == 3
    assert await service.round_trips(lambda: app.call(ME, list_versions, made.id, Window())) == 4
    assert await service.round_trips(lambda: app.call(ME, add_artifact, new)) == 4
    assert await service.round_trips(lambda: app.call(ME, revise_artifact, made.id, revision)) == 5


async def test_a_repeated_call_costs_a_second_unit(service: Counted) -> None:
    """The first has found out that it repeats and is rolled back; the second reads what was answered."""
    accepted = await service.says()
    call = Invocation("add_task", b"{}", "call-1")
    await service.ledger.perform(accepted.secret, call, add_task, MILK)

    assert await service.round_trips(lambda: service.ledger.perform(accepted.secret, call, add_task, MILK)) == 9


async def test_a_token_costs_one_more(service: Counted) -> None:
    app = service.app
    secret = (await app.call(ME, mint_context_token, NewContextToken([Grant.TASKS_READ, Grant.TASKS_WRITE]))).secret

    assert await service.round_trips(lambda: app.call(secret, add_task, MILK)) == 4
    assert await service.round_trips(lambda: app.call(secret, list_tasks)) == 4


@pytest.mark.parametrize(("history", "accepting"), [(False, 7), (True, 9)], ids=["new", "with a history"])
async def test_a_whole_turn_with_a_tool_call(service: Counted, *, history: bool, accepting: int) -> None:
    """Accepted, renewed once, one tool call with its row in the ledger, finished."""
    app = service.app
    accepted = await service.says()

    async def accept() -> None:
        nonlocal accepted
        await app.call(ME, finish_turn, accepted.turn.id, Ending("cancelled", Usage()))
        accepted = await service.says(accepted.turn.conversation_id if history else None)

    async def call() -> None:
        await service.ledger.perform(accepted.secret, Invocation("add_task", b"{}"), add_task, MILK)

    async def renew() -> None:
        await app.call(ME, renew_turn, accepted.turn.id, TERMS.lease)

    async def finish() -> None:
        nonlocal accepted
        await app.call(ME, finish_turn, accepted.turn.id, DONE)
        accepted = await service.says(accepted.turn.conversation_id if history else None)

    for _ in range(4):
        await accept()
    cancelling = 6
    assert await service.round_trips(accept) == cancelling + accepting
    assert await service.round_trips(call) == 5
    assert await service.round_trips(renew) == 5
    assert await service.round_trips(finish) == 8 + accepting


async def test_a_page_of_messages_looks_into_the_ledger_only_for_tool_calls(service: Counted) -> None:
    app = service.app
    accepted = await service.says()
    listing = lambda: app.call(ME, list_messages, accepted.turn.conversation_id, Window())  # noqa: E731

    assert await service.round_trips(listing) == 3
    await service.ledger.perform(accepted.secret, Invocation("add_task", b"{}"), add_task, MILK)
    await app.call(ME, finish_turn, accepted.turn.id, DONE)
    assert await service.round_trips(listing) == 4
