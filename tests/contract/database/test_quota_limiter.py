"""Rate limits and storage quota: each process decides by the usage that all processes share."""

import asyncio

import pytest

from latchkey.application.artifacts import add_artifact, delete_artifact, revise_artifact
from latchkey.application.context_tokens import mint_context_token
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task, complete_task, list_tasks
from latchkey.application.tool_calls import ToolCallExecutor, ToolInvocation
from latchkey.application.turns import subscription as watching
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.domain.artifact import ArtifactRevision, NewArtifact
from latchkey.domain.credentials import Grant, NewContextToken, Owner, TokenSecret
from latchkey.domain.errors import Exhausted, Unauthenticated
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.quota import Quota
from latchkey.domain.task import NewTask
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database.events.local import LocalEventBus
from tests.contract.database.conftest import Replica
from tests.turns import started_turn

FEW = Quota(requests_per_minute=2)
LITTLE = Quota(stored_bytes=5_000)
MILK = NewTask("Milk")
LONG = "x" * 6_000


def service(units: UnitsOfWork, quota: Quota) -> Dispatcher:
    return Dispatcher(units, lambda _call: None, quota)


async def refused(app: Dispatcher, credential: Owner | TokenSecret) -> Exhausted:
    with pytest.raises(Exhausted) as refusal:
        await app.acquire(credential)
    return refusal.value


async def test_rate_limit_is_one_for_all_processes(replica: Replica, me: Owner, you: Owner) -> None:
    """The refusal says how many there are, and when to come again; others do not notice."""
    here, there = service(replica(), FEW), service(replica(), FEW)
    await here.acquire(me)
    await there.acquire(me)

    refusals = [await refused(here, me), await refused(there, me)]

    assert all("2 requests per minute" in refusal.detail for refusal in refusals)
    assert all(refusal.retry_after in range(25, 31) for refusal in refusals)
    await here.acquire(you)


async def test_rate_limit_concurrent_requests_admits_exact_number(units: UnitsOfWork, me: Owner) -> None:
    app = service(units, Quota(requests_per_minute=60))

    outcomes = await asyncio.gather(*(app.acquire(me) for _ in range(100)), return_exceptions=True)

    assert 60 <= outcomes.count(None) <= 62  # a new one grows each second
    assert all(isinstance(outcome, Exhausted) for outcome in outcomes if outcome is not None)


async def test_rate_limit_token_requests_count_for_its_user(units: UnitsOfWork, me: Owner) -> None:
    app = service(units, FEW)
    token = (await app.call(me, mint_context_token, NewContextToken([Grant.TASKS_READ]))).secret
    for _ in range(2):
        await app.acquire(token)
        app.consume(token)

    await refused(app, token)
    await refused(app, me)


async def test_rate_limit_late_counted_requests_do_not_refuse_early(units: UnitsOfWork, me: Owner) -> None:
    """Of sixty, three at once under a token have been used when the person comes."""
    app = service(units, Quota(requests_per_minute=60))
    token = (await app.call(me, mint_context_token, NewContextToken([Grant.TASKS_READ]))).secret
    await asyncio.gather(*(app.acquire(token) for _ in range(3)))
    for _ in range(3):
        app.consume(token)

    await app.acquire(me)


async def test_rate_limit_forged_token_uses_no_requests_and_learns_nothing(units: UnitsOfWork, me: Owner) -> None:
    """As long as somebody has requests left, a made-up token gets as far as its look-up; then it is looked up here."""
    app, forged = service(units, FEW), TokenSecret.mint(me.user_id)
    with pytest.raises(Unauthenticated):
        await app.acquire(forged)
    await app.acquire(me)
    await app.acquire(me)

    with pytest.raises(Unauthenticated):
        await app.acquire(forged)


async def test_storage_quota_reached_allows_read_and_delete(units: UnitsOfWork, me: Owner, you: Owner) -> None:
    app = service(units, LITTLE)
    task = await app.call(me, add_task, MILK)
    plan = await app.call(me, add_artifact, NewArtifact("Plan", LONG))

    for attempt in (
        app.call(me, add_task, MILK),
        app.call(me, add_artifact, NewArtifact("Plan", "Short")),
        app.call(me, revise_artifact, plan.id, ArtifactRevision("Short")),
        started_turn(app, me),
    ):
        with pytest.raises(Exhausted, match="Storage quota of 5000 bytes reached"):
            await attempt

    assert [task.title for task in (await app.call(me, list_tasks)).items] == ["Milk"]
    await app.call(me, complete_task, task.id)
    await app.call(me, delete_artifact, plan.id)
    await app.call(you, add_task, MILK)


async def test_storage_quota_is_shared_by_processes(replica: Replica, me: Owner) -> None:
    here, there = service(replica(), LITTLE), service(replica(), LITTLE)
    await here.call(me, add_artifact, NewArtifact("Plan", LONG))

    for app in (here, there):
        with pytest.raises(Exhausted):
            await app.call(me, add_task, MILK)


async def test_storage_quota_reached_does_not_stop_turn_end(units: UnitsOfWork, me: Owner) -> None:
    """Its tools answer that there is no room, which is recorded, and what it says last is kept."""
    app = service(units, LITTLE)
    turn = await started_turn(app, me)
    await app.call(me, add_artifact, NewArtifact("Plan", LONG))

    outcome = await ToolCallExecutor(app).execute(
        turn.secret, ToolInvocation("add_task", b'{"title":"Milk"}'), add_task, MILK
    )
    ended = await app.call(me, finish_turn, turn.turn.id, TurnOutcome("completed", Usage(), LONG))

    assert (outcome.is_error, outcome.content["code"]) == (True, "exhausted")
    assert [call.name for call in ended.turn.tool_calls] == ["add_task"]
    assert ended.message is not None
    assert ended.message.content == LONG


async def test_tool_call_limit_of_turn_is_shared_by_processes(replica: Replica, me: Owner) -> None:
    """Wherever they are called, and whether they work or not; what is too much has no effect and leaves no row."""
    apps = [service(replica(), Quota()) for _ in range(2)]
    ledgers = [ToolCallExecutor(app, max_calls=3) for app in apps]
    turn = await started_turn(apps[0], me)
    milk = ToolInvocation("add_task", b'{"title":"Milk"}')

    outcomes = [await ledgers[number % 2].execute(turn.secret, milk, add_task, MILK) for number in range(3)]
    late = await ledgers[1].execute(turn.secret, milk, add_task, MILK)
    refusal = await ledgers[0].record_failure(turn.secret, milk, add_task, Exhausted("No."))

    assert [outcome.is_error for outcome in outcomes] == [False, False, False]
    assert late.content == refusal.content
    assert (late.is_error, late.content["code"]) == (True, "exhausted")
    assert "called 3 tools" in late.content["detail"]
    assert len((await apps[0].call(me, list_tasks)).items) == 3
    ended = await apps[0].call(me, finish_turn, turn.turn.id, TurnOutcome("completed", Usage(), "Done."))
    assert len(ended.turn.tool_calls) == 3


async def test_tool_call_limit_duplicate_call_returns_first_result(replica: Replica, me: Owner) -> None:
    app = service(replica(), Quota())
    ledger, turn = ToolCallExecutor(app, max_calls=2), await started_turn(app, me)
    calls = [ToolInvocation("add_task", b'{"title":"Milk"}', f"call-{number}") for number in range(3)]

    first, last, late = [await ledger.execute(turn.secret, call, add_task, MILK) for call in calls]
    repeated = [await ledger.execute(turn.secret, call, add_task, MILK) for call in calls]

    assert [outcome.is_error for outcome in (first, last, late)] == [False, False, True]
    assert [outcome.json for outcome in repeated] == [outcome.json for outcome in (first, last, late)]
    assert len((await app.call(me, list_tasks)).items) == 2


async def test_subscription_limit_per_user(
    units: UnitsOfWork, me: Owner, you: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one is told so, and let in once another has left; nobody else notices."""
    monkeypatch.setattr(watching, "MAX_SUBSCRIPTIONS_PER_USER", 2)
    app = service(units, Quota())
    subscriptions, turn = watching.TurnSubscriptions(app, LocalEventBus()), await started_turn(app, me)
    streams = [subscriptions.follow(me, turn.turn.id, 0) for _ in range(2)]
    for stream in streams:
        assert await anext(stream)

    with pytest.raises(Exhausted, match="Limit of 2 open event streams"):
        subscriptions.check_limit(me)
    subscriptions.check_limit(you)
    await streams[0].aclose()
    subscriptions.check_limit(me)
    await streams[1].aclose()
