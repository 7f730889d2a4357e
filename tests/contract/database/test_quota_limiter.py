"""Rate limits and storage quota: each process decides by the usage that all processes share."""

import asyncio
from contextlib import ExitStack

import pytest
from msgspec import Raw

from latchkey.application.artifacts import add_artifact, delete_artifact, revise_artifact
from latchkey.application.context_tokens import mint_context_token
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.quota import ESSENTIAL_PER_MINUTE
from latchkey.application.tasks import add_task, complete_task, delete_task, list_tasks
from latchkey.application.tool_calls import ToolCallExecutor
from latchkey.application.turns import subscription
from latchkey.application.turns.event_writer import TurnEventWriter
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.application.turns.read import read_events
from latchkey.application.turns.record import EventBatch, append_events
from latchkey.domain.agent import TextDelta
from latchkey.domain.artifact import ArtifactRevision, NewArtifact
from latchkey.domain.credentials import TASKS_READ, NewContextToken, Owner, TokenSecret
from latchkey.domain.errors import Exhausted, Invalid, Unauthenticated, Unavailable
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.quota import Quota
from latchkey.domain.task import NewTask
from latchkey.domain.tool_call import ToolInvocation, ToolRequest
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database.event_bus import LocalEventBus
from tests.builders import an_agent_run
from tests.contract.database.conftest import Replica
from tests.turns import started_turn

TWO_REQUESTS = Quota(requests_per_minute=2)
EIGHT_REQUESTS = Quota(requests_per_minute=8)
SMALL_STORAGE = Quota(stored_bytes=5_000)
MILK = NewTask("Milk")
LONG = "x" * 6_000


def service(units: UnitsOfWork, quota: Quota) -> Dispatcher:
    return Dispatcher(units, lambda _call: None, quota)


async def refused(dispatcher: Dispatcher, credential: Owner | TokenSecret) -> Exhausted:
    with pytest.raises(Exhausted) as refusal:
        await dispatcher.acquire(credential)
    return refusal.value


async def test_rate_limit_is_one_for_all_processes(replica: Replica, me: Owner, you: Owner) -> None:
    """The refusal names the limit and when to retry; other users are not affected."""
    here, there = service(replica(), TWO_REQUESTS), service(replica(), TWO_REQUESTS)
    await here.acquire(me)
    await there.acquire(me)

    refusals = [await refused(here, me), await refused(there, me)]

    assert all("2 requests per minute" in refusal.detail for refusal in refusals)
    assert all(refusal.retry_after in range(25, 31) for refusal in refusals)
    await here.acquire(you)


async def test_rate_limit_concurrent_requests_admits_exact_number(units: UnitsOfWork, me: Owner) -> None:
    dispatcher = service(units, Quota(requests_per_minute=60))

    outcomes = await asyncio.gather(*(dispatcher.acquire(me) for _ in range(100)), return_exceptions=True)

    assert 60 <= outcomes.count(None) <= 62  # one more is allowed each second
    assert all(isinstance(outcome, Exhausted) for outcome in outcomes if outcome is not None)


async def test_rate_limit_token_requests_count_for_its_user(units: UnitsOfWork, me: Owner) -> None:
    dispatcher = service(units, TWO_REQUESTS)
    token = (await dispatcher.call(me, mint_context_token, NewContextToken([TASKS_READ]))).secret
    for _ in range(2):
        await dispatcher.acquire(token)
        dispatcher.consume(token)

    await refused(dispatcher, token)
    await refused(dispatcher, me)


async def test_rate_limit_flood_under_a_token_leaves_requests_to_its_owner(replica: Replica, me: Owner) -> None:
    """In every process: a leaked token must not keep its owner from revoking it."""
    here, there = service(replica(), EIGHT_REQUESTS), service(replica(), EIGHT_REQUESTS)
    token = (await here.call(me, mint_context_token, NewContextToken([TASKS_READ]))).secret
    for _ in range(6):
        await here.acquire(token)
        here.consume(token)
    refusals = [await refused(here, token), await refused(there, token)]

    await here.acquire(me)
    await there.acquire(me)

    assert all(refusal.retry_after in range(1, 9) for refusal in refusals)
    await refused(there, token)
    await refused(here, me)


async def test_rate_limit_essential_requests_have_an_allowance_of_their_own(units: UnitsOfWork, me: Owner) -> None:
    """It is bounded, and of the owner only."""
    dispatcher = service(units, TWO_REQUESTS)
    token = (await dispatcher.call(me, mint_context_token, NewContextToken([TASKS_READ]))).secret
    await dispatcher.acquire(me, essential=True)
    await dispatcher.acquire(me)
    await refused(dispatcher, me)

    for _ in range(ESSENTIAL_PER_MINUTE):
        await dispatcher.acquire(me, essential=True)

    for credential in (me, token):
        with pytest.raises(Exhausted):
            await dispatcher.acquire(credential, essential=True)


async def test_rate_limit_late_counted_requests_do_not_refuse_early(units: UnitsOfWork, me: Owner) -> None:
    """Three of sixty requests have been used by a token when the user sends theirs."""
    dispatcher = service(units, Quota(requests_per_minute=60))
    token = (await dispatcher.call(me, mint_context_token, NewContextToken([TASKS_READ]))).secret
    await asyncio.gather(*(dispatcher.acquire(token) for _ in range(3)))
    for _ in range(3):
        dispatcher.consume(token)

    await dispatcher.acquire(me)


async def test_rate_limit_forged_token_uses_no_requests_and_learns_nothing(units: UnitsOfWork, me: Owner) -> None:
    """A forged token is rejected by its look-up, whether or not the user has requests left."""
    dispatcher, forged = service(units, TWO_REQUESTS), TokenSecret.mint(me.user_id)
    with pytest.raises(Unauthenticated):
        await dispatcher.acquire(forged)
    await dispatcher.acquire(me)
    await dispatcher.acquire(me)

    with pytest.raises(Unauthenticated):
        await dispatcher.acquire(forged)


async def test_storage_quota_reached_allows_read_and_delete(units: UnitsOfWork, me: Owner, you: Owner) -> None:
    dispatcher = service(units, SMALL_STORAGE)
    task = await dispatcher.call(me, add_task, MILK)
    plan = await dispatcher.call(me, add_artifact, NewArtifact("Plan", LONG))

    for attempt in (
        dispatcher.call(me, add_task, MILK),
        dispatcher.call(me, add_artifact, NewArtifact("Plan", "Short")),
        dispatcher.call(me, revise_artifact, plan.id, ArtifactRevision("Short")),
        started_turn(dispatcher, me),
    ):
        with pytest.raises(Exhausted, match="Storage quota of 5000 bytes reached"):
            await attempt

    assert [task.title for task in (await dispatcher.call(me, list_tasks)).items] == ["Milk"]
    await dispatcher.call(me, complete_task, task.id)
    await dispatcher.call(me, delete_artifact, plan.id)
    await dispatcher.call(you, add_task, MILK)


async def test_storage_quota_is_shared_by_processes(replica: Replica, me: Owner) -> None:
    here, there = service(replica(), SMALL_STORAGE), service(replica(), SMALL_STORAGE)
    await here.call(me, add_artifact, NewArtifact("Plan", LONG))

    for dispatcher in (here, there):
        with pytest.raises(Exhausted):
            await dispatcher.call(me, add_task, MILK)


async def test_storage_quota_reached_does_not_stop_turn_end(units: UnitsOfWork, me: Owner) -> None:
    """Its tools return the quota error, which is recorded, and its answer is stored."""
    dispatcher = service(units, SMALL_STORAGE)
    turn = await started_turn(dispatcher, me)
    await dispatcher.call(me, add_artifact, NewArtifact("Plan", LONG))

    outcome = await ToolCallExecutor(dispatcher).execute(
        turn.secret, ToolInvocation("add_task", b'{"title":"Milk"}'), add_task, MILK
    )
    ended = await dispatcher.call(me, finish_turn, turn.turn.id, TurnOutcome("completed", Usage(), LONG))

    assert (outcome.is_error, outcome.content["code"]) == (True, "exhausted")
    assert [call.name for call in ended.turn.tool_calls] == ["add_task"]
    assert ended.message is not None
    assert ended.message.content == LONG


async def stored_bytes(units: UnitsOfWork, owner: Owner) -> int:
    async with units.open(owner, "read") as uow:
        return await uow.quota_usage.measure_storage()


async def test_storage_quota_is_asked_for_reads_and_refusals_of_a_turn(units: UnitsOfWork, me: Owner) -> None:
    """They are recorded, so they store bytes too. Outside a turn nothing is recorded and nothing refused."""
    dispatcher = service(units, Quota(stored_bytes=200_000))
    executor = ToolCallExecutor(dispatcher)
    for _ in range(10):
        await dispatcher.call(me, add_task, NewTask("Milk", "x" * 9_000))
    outside = (await dispatcher.call(me, mint_context_token, NewContextToken([TASKS_READ]))).secret
    turn = await started_turn(dispatcher, me)
    listing, large = ToolInvocation("list_tasks", b"{}"), ToolInvocation("add_task", b'{"name":"%s"}' % (b"x" * 50_000))

    reads = [await executor.execute(turn.secret, listing, list_tasks) for _ in range(20)]
    refusals = [
        await executor.record_failure(turn.secret, large, add_task, Invalid.at("title", "is missing"))
        for _ in range(20)
    ]

    assert [outcome.code for outcome in (reads[0], reads[-1])] == ["ok", "exhausted"]
    assert {outcome.code for outcome in refusals} == {"invalid"}
    assert await stored_bytes(units, me) < 300_000
    assert (await executor.execute(outside, listing, list_tasks)).code == "ok"


async def test_storage_quota_reached_does_not_refuse_a_deletion_in_a_turn(units: UnitsOfWork, me: Owner) -> None:
    dispatcher = service(units, SMALL_STORAGE)
    task = await dispatcher.call(me, add_task, MILK)
    turn = await started_turn(dispatcher, me)
    await dispatcher.call(me, add_artifact, NewArtifact("Plan", LONG))

    outcome = await ToolCallExecutor(dispatcher).execute(
        turn.secret, ToolInvocation("delete_task", b"{}"), delete_task, task.id
    )

    assert outcome.code == "ok"


async def test_storage_quota_reached_keeps_text_for_the_turn_end(units: UnitsOfWork, me: Owner) -> None:
    """The text is not appended while the turn runs; the end of the turn is never refused and has all of it."""
    dispatcher = service(units, SMALL_STORAGE)
    turn = await started_turn(dispatcher, me)
    await dispatcher.call(me, add_artifact, NewArtifact("Plan", LONG))
    with pytest.raises(Exhausted):
        await dispatcher.call(me, append_events, turn.turn.id, EventBatch(0, "Hello", Usage()))

    lost: list[bool] = []
    writer = TurnEventWriter(dispatcher, me, an_agent_run(turn), lambda: lost.append(True))
    writer.append_text(TextDelta("Hello"))
    await writer.record_tool_call(ToolRequest("1", "add_task", Raw(b"{}")))
    await writer.close()
    await dispatcher.call(me, finish_turn, turn.turn.id, TurnOutcome("completed", Usage(), writer.text))

    assert lost == []
    events = (await dispatcher.call(me, read_events, turn.turn.id, 0)).events
    assert [event.name for event in events] == ["turn.started", "message.delta", "turn.completed"]


async def test_tool_call_limit_of_turn_is_shared_by_processes(replica: Replica, me: Owner) -> None:
    """In any process, failed calls included; a call over the limit has no effect and is not recorded."""
    dispatchers = [service(replica(), Quota()) for _ in range(2)]
    executors = [ToolCallExecutor(dispatcher, max_calls=3) for dispatcher in dispatchers]
    turn = await started_turn(dispatchers[0], me)
    milk = ToolInvocation("add_task", b'{"title":"Milk"}')

    outcomes = [await executors[number % 2].execute(turn.secret, milk, add_task, MILK) for number in range(3)]
    late = await executors[1].execute(turn.secret, milk, add_task, MILK)
    refusal = await executors[0].record_failure(turn.secret, milk, add_task, Exhausted("No."))

    assert [outcome.is_error for outcome in outcomes] == [False, False, False]
    assert late.content == refusal.content
    assert (late.is_error, late.content["code"]) == (True, "exhausted")
    assert "Limit of 3 tool calls" in late.content["detail"]
    assert len((await dispatchers[0].call(me, list_tasks)).items) == 3
    ended = await dispatchers[0].call(me, finish_turn, turn.turn.id, TurnOutcome("completed", Usage(), "Done."))
    assert len(ended.turn.tool_calls) == 3


async def test_tool_call_limit_duplicate_call_returns_first_result(replica: Replica, me: Owner) -> None:
    dispatcher = service(replica(), Quota())
    executor, turn = ToolCallExecutor(dispatcher, max_calls=2), await started_turn(dispatcher, me)
    calls = [ToolInvocation("add_task", b'{"title":"Milk"}', f"call-{number}") for number in range(3)]

    first, last, late = [await executor.execute(turn.secret, call, add_task, MILK) for call in calls]
    repeated = [await executor.execute(turn.secret, call, add_task, MILK) for call in calls]

    assert [outcome.is_error for outcome in (first, last, late)] == [False, False, True]
    assert [outcome.json for outcome in repeated] == [outcome.json for outcome in (first, last, late)]
    assert len((await dispatcher.call(me, list_tasks)).items) == 2


async def test_subscription_limit_of_process_is_fair(
    units: UnitsOfWork, me: Owner, you: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user has as many as are free, so another one always gets some."""
    monkeypatch.setattr(subscription, "MAX_SUBSCRIPTIONS", 5)
    subscriptions = subscription.TurnSubscriptions(service(units, Quota()), LocalEventBus())

    with ExitStack() as stack:
        counts: list[tuple[Owner, int]] = []
        for owner in (me, you):
            with pytest.raises(Unavailable, match="Too many event streams") as failure:  # noqa: PT012
                for count in range(10):
                    counts.append((owner, count))
                    stack.enter_context(subscriptions.reserve(owner))
            assert failure.value.retry_after
    with subscriptions.reserve(me):
        pass

    assert counts == [*((me, count) for count in range(4)), *((you, count) for count in range(2))]


async def test_subscription_limit_per_user(
    units: UnitsOfWork, me: Owner, you: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next subscription is refused until another is closed; other users are not affected."""
    monkeypatch.setattr(subscription, "MAX_SUBSCRIPTIONS_PER_USER", 2)
    dispatcher = service(units, Quota())
    subscriptions, turn = (
        subscription.TurnSubscriptions(dispatcher, LocalEventBus()),
        await started_turn(dispatcher, me),
    )
    streams = [subscriptions.follow(me, turn.turn.id, 0) for _ in range(2)]

    with pytest.raises(Exhausted, match="Limit of 2 open event streams"):
        subscriptions.reserve(me)
    for stream in streams:
        assert await anext(stream)
    with pytest.raises(Exhausted, match="Limit of 2 open event streams"):
        subscriptions.follow(me, turn.turn.id, 0)
    with subscriptions.reserve(you):
        pass
    await streams[0].aclose()
    with subscriptions.reserve(me):
        pass
    await streams[1].aclose()
    assert subscriptions._open == {}


async def test_subscription_that_is_never_read_is_released(units: UnitsOfWork, me: Owner) -> None:
    """Its client left before the first event, or its request failed."""
    dispatcher = service(units, Quota())
    subscriptions = subscription.TurnSubscriptions(dispatcher, LocalEventBus())
    turn = await started_turn(dispatcher, me)
    stream = subscriptions.follow(me, turn.turn.id, 0)
    reserved = subscriptions.reserve(me)
    assert subscriptions._open[me.user_id] == 2

    del stream
    with pytest.raises(ZeroDivisionError), reserved:
        _ = 1 / 0

    assert subscriptions._open == {}
