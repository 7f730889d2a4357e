"""The event bus of turns: within one process, and on PostgreSQL between all replicas by LISTEN and NOTIFY."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import structlog

from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent
from latchkey.infrastructure.database.urls import session_arguments

Key = tuple[UserId, TurnId]

MAX_BUFFERED_BYTES = 64 * 1024
"""A subscriber that falls further behind is only woken, and reads the events from the database."""


class LocalSubscription:
    """One subscriber of one turn, and the events that it has not read yet."""

    def __init__(self, limit_timeout: Callable[[float], float]) -> None:
        self._limit_timeout = limit_timeout
        self._events: list[TurnEvent] = []
        self._bytes = 0
        self._woken = asyncio.Event()

    def deliver(self, events: list[TurnEvent]) -> None:
        """Buffer committed events and wake the subscriber. An empty list says that some may have been committed."""
        self._bytes += sum(len(event.body) for event in events)
        if events and self._bytes <= MAX_BUFFERED_BYTES:
            self._events += events
        else:
            self._events.clear()
            self._bytes = MAX_BUFFERED_BYTES
        self._woken.set()

    async def next_events(self, timeout_s: float) -> list[TurnEvent]:
        try:
            async with asyncio.timeout(self._limit_timeout(timeout_s)):
                await self._woken.wait()
        except TimeoutError:
            return []
        self._woken.clear()
        events, self._events, self._bytes = self._events, [], 0
        return events


class LocalEventBus:
    """Serves one process. SQLite needs no other, because it is used by one process."""

    def __init__(self) -> None:
        self._subscriptions: dict[Key, set[LocalSubscription]] = {}

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Connect to the event buses of other processes, if there can be any, until the context is left."""
        yield

    @contextmanager
    def subscribe(self, owner: Owner, turn_id: TurnId) -> Iterator[LocalSubscription]:
        key, subscription = (owner.user_id, turn_id), LocalSubscription(self._limit_timeout)
        self._subscriptions.setdefault(key, set()).add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[key].discard(subscription)
            if not self._subscriptions[key]:
                del self._subscriptions[key]

    def wake(self, owner: Owner, turn_id: TurnId) -> None:
        self._deliver((owner.user_id, turn_id), [])

    def wake_all(self) -> None:
        for key in list(self._subscriptions):
            self._deliver(key, [])

    def publish(self, user_id: UserId, events: Iterable[TurnEvent]) -> None:
        """Deliver events that were committed in this order."""
        by_turn: dict[TurnId, list[TurnEvent]] = {}
        for event in events:
            by_turn.setdefault(event.turn_id, []).append(event)
        for turn_id, of_turn in by_turn.items():
            self._deliver((user_id, turn_id), of_turn)

    def _deliver(self, key: Key, events: list[TurnEvent]) -> None:
        for subscription in self._subscriptions.get(key, ()):
            subscription.deliver(events)

    def _limit_timeout(self, timeout_s: float) -> float:
        return timeout_s


_CHANNEL = "latchkey_turns"
_NOTIFY = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"
_BATCH_S = 0.02
"""Notifications of this time are sent together."""
_KEEPALIVE_S = 10.0
_CONNECT_TIMEOUT_S = 3.0
_RECONNECT_S = 2.0
_FLUSH_TIMEOUT_S = 1.0
_MAX_PENDING = 10_000
"""More pending notifications are dropped. A subscriber that gets none reads the database after its timeout."""
_POLL_S = 1.0
"""How often subscribers read the database while notifications do not arrive, as behind a transaction pooler."""

_log = structlog.get_logger("latchkey.turn_event_bus")


class PostgreSQLEventBus(LocalEventBus):
    """Delivers events of this process directly. A notification of another process says which turn to read again.

    NOTIFY is not part of the transactions that commit events, because transactions with NOTIFY commit one by one.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._is_listening = False
        self._pending: set[Key] = set()
        self._has_pending = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._all_sent.set()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Listen, and reconnect whenever the connection is lost. Pending notifications are sent before the end."""
        listening = asyncio.create_task(self._listen_forever())
        try:
            yield
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                    await self._all_sent.wait()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def publish(self, user_id: UserId, events: Iterable[TurnEvent]) -> None:
        committed = list(events)
        super().publish(user_id, committed)
        self._notify({(user_id, event.turn_id) for event in committed})

    def wake(self, owner: Owner, turn_id: TurnId) -> None:
        super().wake(owner, turn_id)
        self._notify({(owner.user_id, turn_id)})

    def _notify(self, keys: set[Key]) -> None:
        """Notify other processes soon."""
        if len(self._pending) > _MAX_PENDING:
            self._pending.clear()
        self._pending |= keys
        self._has_pending.set()
        self._all_sent.clear()

    def _limit_timeout(self, timeout_s: float) -> float:
        return timeout_s if self._is_listening else min(timeout_s, _POLL_S)

    async def _listen_forever(self) -> None:
        while True:
            try:
                async with _connect(self._url) as connection:
                    await self._listen(connection)
            except Exception as error:  # noqa: BLE001  # after any error, listening must go on
                _log.warning("turn_event_bus_lost", error=type(error).__name__)
            self._is_listening = False
            self.wake_all()
            await asyncio.sleep(_RECONNECT_S)

    async def _listen(self, connection: "asyncpg.Connection[Any]") -> None:
        await connection.add_listener(_CHANNEL, self._on_notification)
        self._is_listening = await self._receives_notifications(connection)
        if not self._is_listening:
            _log.warning(
                "turn_event_bus_polling",
                detail="Notifications do not pass this connection pooler: the database is polled.",
            )
        self.wake_all()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_KEEPALIVE_S):
                    await self._has_pending.wait()
            await self._send_pending(connection)
            await asyncio.sleep(_BATCH_S)

    async def _send_pending(self, connection: "asyncpg.Connection[Any]") -> None:
        """Send the pending notifications. Without any, the statement still detects a lost connection."""
        self._has_pending.clear()
        keys, self._pending = self._pending, set()
        payloads = [f"{turn_id} {user_id}" for user_id, turn_id in keys]
        try:
            await connection.execute(_NOTIFY, _CHANNEL, payloads)
        except BaseException:
            # They may not have arrived: the next connection sends them again.
            self._pending |= keys
            self._has_pending.set()
            raise
        if not self._pending:
            self._all_sent.set()

    def _on_notification(self, connection: Any, pid: int, _channel: str, payload: object) -> None:
        turn_id, _, user_id = str(payload).partition(" ")
        if pid != connection.get_server_pid():
            self._deliver((UserId(user_id), TurnId(UUID(turn_id))), [])

    async def _receives_notifications(self, connection: "asyncpg.Connection[Any]") -> bool:
        """Return whether a notification from another connection reaches this one while it is idle."""
        channel, received = f"{_CHANNEL}_{uuid4().hex}", asyncio.Event()

        def on_notification(*_: object) -> None:
            received.set()

        await connection.add_listener(channel, on_notification)
        async with _connect(self._url) as other:
            await other.execute("SELECT pg_notify($1, '')", channel)
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    await received.wait()
            except TimeoutError:
                return False
        await connection.remove_listener(channel, on_notification)
        return True


@asynccontextmanager
async def _connect(url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    timeouts = {"timeout": _CONNECT_TIMEOUT_S, "command_timeout": _CONNECT_TIMEOUT_S}
    connection = await asyncpg.connect(**{**timeouts, **session_arguments(url)})
    try:
        yield connection
    finally:
        # `close` would wait for a server that may be gone.
        connection.terminate()
