"""The feed on PostgreSQL: LISTEN and NOTIFY on one connection of its own carry the news to every replica."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import structlog

from latchkey.domain.credentials import UserId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import TurnEvent
from latchkey.infrastructure.database.events.local import Key, LocalEventBus
from latchkey.infrastructure.database.urls import session_arguments

_CHANNEL = "latchkey_turns"
_NOTIFY = "SELECT pg_notify($1, said) FROM unnest($2::text[]) AS said"
_GATHER_S = 0.02
_CHECK_S = 10.0
_TRIAL_S = 3.0
_AGAIN_S = 2.0
_LAST_WORDS_S = 1.0
_MOST_UNSAID = 10_000
"""Hints may be lost: who has missed one looks by themselves after a while."""
_DEAF_S = 1.0
"""How often the log is looked at instead, where notifications do not come: through a transaction pooler."""

_log = structlog.get_logger("latchkey.feed")


class PostgreSQLEventBus(LocalEventBus):
    """What other replicas commit is heard as a hint to look into the log; what this one does, they are told.

    NOTIFY is not part of the transactions that it tells of: those that notify commit one after the other.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._is_listening = False
        self._unsaid: set[Key] = set()
        self._has_something_to_say = asyncio.Event()
        self._has_said_all = asyncio.Event()
        self._has_said_all.set()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Listens meanwhile, anew whenever the connection is lost. The last words of this process are said too."""
        listening = asyncio.create_task(self._listen_forever())
        try:
            yield
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._has_said_all.wait()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def publish(self, user_id: UserId, events: Iterable[TurnEvent]) -> None:
        told = list(events)
        super().publish(user_id, told)
        if len(self._unsaid) > _MOST_UNSAID:
            self._unsaid.clear()
        self._unsaid |= {(user_id, event.turn_id) for event in told}
        self._has_something_to_say.set()
        self._has_said_all.clear()

    def _timeout_s(self, wanted: float) -> float:
        return wanted if self._is_listening else min(wanted, _DEAF_S)

    async def _listen_forever(self) -> None:
        while True:
            try:
                async with _session(self._url) as connection:
                    await self._converse(connection)
            except Exception as error:  # noqa: BLE001  # whatever it is: without this, nobody hears anything
                _log.warning("feed_lost", error=type(error).__name__)
            self._is_listening = False
            self.wake_all()
            await asyncio.sleep(_AGAIN_S)

    async def _converse(self, connection: "asyncpg.Connection[Any]") -> None:
        await connection.add_listener(_CHANNEL, self._hear)
        self._is_listening = await self._does_hear(connection)
        if not self._is_listening:
            _log.warning("feed_deaf", detail="Notifications do not come through this pooler: the log is polled.")
        self.wake_all()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_S):
                    await self._has_something_to_say.wait()
            await self._say(connection)
            await asyncio.sleep(_GATHER_S)

    async def _say(self, connection: "asyncpg.Connection[Any]") -> None:
        """Also if there is nothing: then it shows whether the connection is alive."""
        self._has_something_to_say.clear()
        keys, self._unsaid = self._unsaid, set()
        said = [f"{turn_id} {user_id}" for user_id, turn_id in keys]
        try:
            await connection.execute(_NOTIFY, _CHANNEL, said)
        except BaseException:
            # Perhaps nobody has heard it: on the next connection it is said again.
            self._unsaid |= keys
            self._has_something_to_say.set()
            raise
        if not self._unsaid:
            self._has_said_all.set()

    def _hear(self, connection: Any, pid: int, _channel: str, said: object) -> None:
        turn_id, _, user_id = str(said).partition(" ")
        if pid != connection.get_server_pid():
            self._notify((UserId(user_id), TurnId(UUID(turn_id))), [])

    async def _does_hear(self, connection: "asyncpg.Connection[Any]") -> bool:
        """Whether what another connection says comes through to this one while it is idle."""
        channel, heard = f"{_CHANNEL}_{uuid4().hex}", asyncio.Event()

        def hear(*_: object) -> None:
            heard.set()

        await connection.add_listener(channel, hear)
        async with _session(self._url) as other:
            await other.execute("SELECT pg_notify($1, '')", channel)
            try:
                async with asyncio.timeout(_TRIAL_S):
                    await heard.wait()
            except TimeoutError:
                return False
        await connection.remove_listener(channel, hear)
        return True


@asynccontextmanager
async def _session(url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(**{"timeout": _TRIAL_S, "command_timeout": _TRIAL_S, **session_arguments(url)})
    try:
        yield connection
    finally:
        # Not `close`, which waits for a server that may be gone.
        connection.terminate()
