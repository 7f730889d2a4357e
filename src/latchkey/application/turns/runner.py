"""Starts turns and runs them in the background: a client that disconnects neither stops nor loses a turn."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from msgspec import Struct, json
from msgspec.structs import replace

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.approvals import Approvals, find_decision_event
from latchkey.application.turns.executor import HANDED_OVER, TurnExecutor, TurnLimits
from latchkey.application.turns.expire import list_lost_turns, with_expiry
from latchkey.application.turns.finish import TurnResult, get_turn_result, title_of
from latchkey.application.turns.prompts import UNTRUSTED_CONTENT, context_block
from latchkey.application.turns.resume import resume_turn
from latchkey.application.turns.start import StartedTurn, TurnProfiles, find_duplicate_turn, start_turn
from latchkey.application.turns.subscription import LEASE_CHECK_S
from latchkey.application.turns.titles import TitleWriter
from latchkey.domain.agent import AgentRun
from latchkey.domain.approval import DecidedApproval, NewDecision
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.errors import Draining, Exhausted, Invalid, NotFound, TurnInProgress, Unavailable
from latchkey.domain.message import MAX_CONTEXT_BYTES, NewMessage
from latchkey.domain.ports import EventBus
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import ClientRequest, Turn, TurnId
from latchkey.domain.values import find_time_zone

T = TypeVar("T")

_UTC = ZoneInfo("UTC")
_CLOSE_TIMEOUT_S = 3
"""How long `aclose` waits for interrupted turns to store their end."""


class TurnHandle(Struct, frozen=True):
    """The turn that answers a client's message.

    `task` runs it. There is none for a message that repeats an idempotency key. If the turn of that key has ended,
    `original_request_id` is the id of the request that started it.
    """

    turn_id: TurnId
    task: asyncio.Task[TurnResult | None] | None = None
    original_request_id: str | None = None


class TurnRunner:
    """Starts turns, runs them in this process, and ends them when the process stops.

    `profiles` can be replaced while turns run: it is read when a turn starts.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        event_bus: EventBus,
        profiles: TurnProfiles,
        limits: TurnLimits,
        approvals: Approvals | None = None,
    ) -> None:
        """Without `approvals`, no decision of a user can be stored."""
        self._approvals = approvals
        self._dispatcher = dispatcher
        self._event_bus = event_bus
        self.profiles = profiles
        self._limits = limits
        self._executors: dict[asyncio.Task[TurnResult | None], TurnExecutor] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._titles = TitleWriter(dispatcher)
        self.is_draining = False
        self._is_closed = False
        dispatcher.recover = self.recover

    async def start(
        self,
        owner: Owner,
        message: NewMessage,
        request: ClientRequest = ClientRequest(),  # noqa: B008 - frozen
    ) -> TurnHandle:
        """Store the message and start a turn for it; return the earlier turn for a repeated idempotency key.

        Raises what `start_turn` does, and `Draining` and `Invalid` before anything is stored.
        """
        self.check_open()
        request = replace(request, claims=owner.claims, timezone=owner.timezone)
        if message.timezone and find_time_zone(message.timezone) is None:
            raise Invalid.at("$.timezone", "Expected a time zone of the IANA database, such as `Europe/Berlin`")
        if message.context:
            _check_context(message.context)
        return await asyncio.shield(self._keep(self._start(owner, message, request)))

    async def start_or_join(self, owner: Owner, message: NewMessage, request: ClientRequest) -> TurnHandle:
        """Start a turn, or return the running turn of the same idempotency key and body.

        Raises what `start` raises.
        """
        try:
            return await self.start(owner, message, request)
        except TurnInProgress as failure:
            turn_id = failure.members.get("turn_id")
            if not failure.members.get("same_request") or not isinstance(turn_id, UUID):
                raise
            return TurnHandle(TurnId(turn_id))

    async def wait(self, owner: Owner, handle: TurnHandle) -> TurnResult:
        """Wait until the turn has ended, in whatever process, and return its result.

        Cancelling the wait does not stop the turn. Raises `Draining` if this process stops earlier than the turn ends,
        and `Unavailable` if the database does not answer: for a lease while the turn runs, and for another after it.
        """
        result = None
        with suppress(Unavailable):  # the turn is continued when the database answers
            result = await asyncio.shield(handle.task) if handle.task else None
        return result or await self._wait_elsewhere(owner, handle.turn_id)

    async def _wait_elsewhere(self, owner: Owner, turn_id: TurnId) -> TurnResult:
        """Wait until the turn has ended in another process, or in this one with another attempt."""
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + self._limits.acceptance.lease.total_seconds()
        with self._event_bus.subscribe(owner, turn_id) as subscription:
            while not self._is_closed:
                try:
                    result = await with_expiry(self._dispatcher, owner, get_turn_result, turn_id)
                except Draining:
                    break
                except Unavailable:
                    if clock() > give_up_at:
                        raise
                else:
                    if result is not None:
                        return result
                    give_up_at = clock() + self._limits.acceptance.lease.total_seconds()
                await subscription.next_events(LEASE_CHECK_S)
        raise Draining(HANDED_OVER, turn_id=turn_id)

    async def decide(
        self, owner: Owner, turn_id: TurnId, call_id: ToolCallId, decision: NewDecision
    ) -> DecidedApproval:
        """Store the user's decision on a call, with its effect. The turn goes on in the background.

        Repeating a decision answers the same. Raises `NotFound`; `Conflict` for the opposite decision, for a question
        that has expired, and if the turn has ended; and `Draining`. Cancelling it does not stop the call.
        """
        self.check_open()
        return await asyncio.shield(self._keep(self._decide(owner, turn_id, call_id, decision)))

    async def find_decision_event(self, owner: Owner, turn_id: TurnId, call_id: ToolCallId) -> int:
        """Return the number of the event of the decision on this call. Raises `NotFound`."""
        return await self._dispatcher.call(owner, find_decision_event, turn_id, call_id)

    async def _decide(
        self, owner: Owner, turn_id: TurnId, call_id: ToolCallId, decision: NewDecision
    ) -> DecidedApproval:
        if self._approvals is None:
            raise NotFound.of("approval")
        stored = await self._approvals.decide(owner, turn_id, call_id, decision, self.profiles)
        _ = self._keep(self._resume_after(owner, turn_id, stored.task))
        return stored.approval

    async def _resume_after(self, owner: Owner, turn_id: TurnId, call: asyncio.Task[None] | None) -> None:
        """Continue a turn whose last question is decided, after its call outside a transaction has ended."""
        if call is not None:
            await call
        await self.resume(owner, turn_id)

    def _keep(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in a task, for which `drain` waits."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not report it: the dispatcher has logged it

    def check_open(self) -> None:
        """Raises `Draining` if this process starts no more turns."""
        if self.is_draining:
            raise Draining("This process is stopping and starts no turns: try again.")

    async def drain(self) -> None:
        """Start no more turns, and wait until all running turns have ended, and their conversations have titles."""
        self.is_draining = True
        while tasks := [*self._tasks, *self._executors, *self._titles.tasks]:
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """Start no more turns, and interrupt all that are running or starting."""
        self.is_draining = self._is_closed = True
        for executor in self._executors.values():
            executor.interrupt()
        self._titles.interrupt()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self.drain()
        except TimeoutError:
            late = [*self._tasks, *self._executors, *self._titles.tasks]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _start(self, owner: Owner, message: NewMessage, request: ClientRequest) -> TurnHandle:
        try:
            started = await with_expiry(
                self._dispatcher, owner, start_turn, message, self.profiles, self._limits.acceptance, request
            )
        except Exhausted:
            # A repeated message is answered even if the user's quota allows no new one.
            key = request.idempotency
            duplicate = await self._dispatcher.call(owner, find_duplicate_turn, key) if key else None
            if duplicate is None:
                raise
            started = duplicate
        if isinstance(started, Turn):
            return TurnHandle(started.id, original_request_id=started.request.id)
        return TurnHandle(started.turn.id, self._run(owner, started))

    async def recover(self, owner: Owner, turn_id: TurnId) -> None:
        """Continue a lost turn, and the user's other turns whose process is gone.

        Those that had their last attempt are stored as interrupted. A turn rests that was deleted meanwhile, and one
        beside which a process of an earlier release has started another. Raises `Draining` if this process is stopping.
        """
        for lost_id in {turn_id: None} | dict.fromkeys(await self._dispatcher.call(owner, list_lost_turns)):
            self.check_open()
            with suppress(NotFound, TurnInProgress):
                await self.resume(owner, lost_id)

    async def resume(self, owner: Owner, turn_id: TurnId) -> TurnHandle | None:
        """Continue a turn whose process is gone. Returns None if it has ended, or another process runs it.

        Raises `NotFound`.
        """
        if self.is_draining:
            return None
        started = await self._dispatcher.call(owner, resume_turn, turn_id, self.profiles, self._limits.acceptance)
        return None if started is None else TurnHandle(turn_id, self._run(owner, started))

    def _run(self, owner: Owner, started: StartedTurn) -> asyncio.Task[TurnResult | None]:
        """Run an attempt of a turn in a task of its own."""
        profile = started.profile
        executor = TurnExecutor(self._dispatcher, self._event_bus, owner, self._limits, profile.slots)
        if self._is_closed:
            executor.interrupt()
        agent, agent_run = profile.require_agent(), self._agent_run(started, owner)
        title = title_of(started.message) if profile.titles == "message" else None
        task = asyncio.create_task(self._run_until_wait(owner, executor.run(agent, agent_run, title)))
        self._executors[task] = executor
        task.add_done_callback(self._on_done)
        if profile.titles == "model":
            task.add_done_callback(partial(self._titles.start, owner, profile, agent_run))
        return task

    async def _run_until_wait(self, owner: Owner, run: Coroutine[Any, Any, TurnResult | None]) -> TurnResult | None:
        """Run an attempt. If its questions were decided before it began to wait, the turn goes on at once."""
        result = await run
        if result is None or result.turn.status != "waiting" or result.approvals:
            return result
        await self.resume(owner, result.turn.id)
        return None

    def _on_done(self, task: asyncio.Task[TurnResult | None]) -> None:
        del self._executors[task]
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not report it: the dispatcher has logged it

    def _agent_run(self, started: StartedTurn, owner: Owner) -> AgentRun:
        profile, options, model = started.profile, started.profile.options, started.turn.run_input.model
        # Steps without text are one in `steps`, and a server may report no requests of its own.
        past_steps = max(len(started.steps), started.turn.usage.requests)
        return AgentRun(
            turn_id=started.turn.id,
            instructions=_instructions(started, owner.user_id),
            history=started.history,
            message=started.message,
            secret=started.secret,
            scope=started.scope,
            max_steps=(profile.max_steps or self._limits.max_steps) - past_steps,
            options=replace(options, model=model) if model else options,
            steps=started.steps,
            usage=started.turn.usage,
            attempt=started.turn.attempt,
        )


def _check_context(context: dict[str, Any]) -> None:
    """Raises `Invalid`."""
    try:
        size = len(json.encode(context))
    except RecursionError as error:
        raise Invalid.at("$.context", "Expected fewer levels of nesting") from error
    if size > MAX_CONTEXT_BYTES:
        raise Invalid.at("$.context", f"Expected at most {MAX_CONTEXT_BYTES} bytes of JSON")


def _instructions(started: StartedTurn, user_id: UserId) -> str:
    """Return the system prompt of the turn, with the context of the message."""
    profile, now, run_input = started.profile, started.turn.started_at, started.turn.run_input
    zone = _time_zone(run_input.timezone)
    prompt, context = profile.system_prompt, run_input.context
    if template := profile.template:
        prompt = template.fill(Owner(user_id, claims=run_input.claims), now.astimezone(zone).date(), context)
        context = {name: value for name, value in context.items() if name not in template.context_names}
    return build_instructions(prompt, now, zone, context_block(context) if context else "")


def _time_zone(*names: str | None) -> ZoneInfo:
    """Return the first of these time zones that this machine knows, else UTC."""
    return next((zone for name in names if name and (zone := find_time_zone(name))), _UTC)


def build_instructions(system_prompt: str, now: datetime, zone: ZoneInfo, context: str = "") -> str:
    """Add the rule on untrusted content, the context block and the user's time, for words like "tomorrow".

    What changes from turn to turn comes last, the time at the very end: model servers cache the equal beginnings of
    requests.
    """
    local = now.astimezone(zone)
    offset = local.isoformat()[-6:]
    return (
        f"{system_prompt}\n\n{UNTRUSTED_CONTENT}\n\n{context}"
        f"It is {local:%A, %Y-%m-%d %H:%M} in {zone.key} (UTC{offset}). Times that the user gives are times there; "
        "name times to the user in the same way. Tools return times in UTC. Send them times with the offset that "
        f"applies there on that day, such as {local:%Y-%m-%dT%H:00:00}{offset}."
    )
