"""Kills replicas at random moments while clients chat."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from random import Random
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals

from tests.chaos.client_driver import ClientDriver
from tests.chaos.cluster import Cluster, SlowStatement, Statement
from tests.chaos.history import Decides, History, SentMessage
from tests.chaos.report import Report
from tests.chaos.scripted_model import ScriptedModel, message_text
from tests.chaos.verify_consistency import ConsistencyVerifier

USERS = 3
CLIENTS_PER_USER = 2
MAX_INTERVAL_S = 1.0
"""The longest time between two faults."""
STATEMENT_DELAY_S = 0.01
"""The delay of the statements that a kill should hit."""
SIGNALS = {SIGKILL: 80, SIGTERM: 10, SIGSTOP: 10}
"""The signals, with their weights. A stopped replica continues after its leases have expired."""
ASKS = (0, 0, 1, 2, 4)
"""How many calls of a turn may ask the user."""
DECIDES: dict[Decides, int] = {"approve": 40, "decline": 15, "mixed": 15, "both": 20, "leave": 10}
"""How users decide, with weights."""
BOTH_PROBABILITY = 0.15
"""The probability that a second replica is killed before the first is up again."""


class FaultInjection:
    """Faults in a cluster. The seed determines all faults and messages; only the timing is random."""

    def __init__(self, cluster: Cluster, model: ScriptedModel, seed: int) -> None:
        self._cluster = cluster
        self._model = model
        self._seed = seed
        self._random = self._seeded_random("kills")
        self._numbers = itertools.count()

    async def run(self, kills: int) -> Report:
        """Kill that many replicas while new users chat, then verify the consistency of their data."""
        await self._cluster.slow_down(*(SlowStatement(statement, STATEMENT_DELAY_S) for statement in Statement))
        return await self._run(partial(self._kill, kills))

    async def run_restarts(self, restarts: int) -> Report:
        """Restart all replicas, one after the other, that many times while new users chat, then verify their data."""
        return await self._run(partial(self._restart, restarts))

    async def _run(self, inject: Callable[[], Awaitable[Counter[str]]]) -> Report:
        users = [f"{self._cluster.name}s{self._seed}u{next(self._numbers)}" for _ in range(USERS)]
        histories = {user: History() for user in users}
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number, user in enumerate(users * CLIENTS_PER_USER):
                random = self._seeded_random(f"{user} {number}")
                group.create_task(self._chat(user, histories[user], random, is_over))
            killed = await inject()
            is_over.set()
        await self._cluster.slow_down()
        return await self._verify(Report(killed), histories)

    async def _verify(self, report: Report, histories: dict[str, History]) -> Report:
        verifiers = [
            ConsistencyVerifier(self._cluster, self._model, user, history) for user, history in histories.items()
        ]
        snapshots = await asyncio.gather(*(verifier.final_snapshot() for verifier in verifiers))
        for verifier, snapshot, history in zip(verifiers, snapshots, histories.values(), strict=True):
            report.add(history, verifier.anomalies(snapshot))
        report.add_faults(self._model)
        return report

    async def _kill(self, kills: int) -> Counter[str]:
        killed: Counter[str] = Counter()
        while killed.total() < kills:
            await asyncio.sleep(self._random.uniform(0, MAX_INTERVAL_S))
            signal = self._random.choices(list(SIGNALS), list(SIGNALS.values()))[0]
            for number in self._choose_replicas():
                await self._hit(number, signal)
                killed[signal.name] += 1
            for number, url in enumerate(self._cluster.urls):
                if url is None:
                    await self._cluster.start(number)
        return killed

    async def _restart(self, restarts: int) -> Counter[str]:
        restarted: Counter[str] = Counter()
        for _ in range(restarts):
            for number in range(len(self._cluster.urls)):
                await asyncio.sleep(self._random.uniform(0, MAX_INTERVAL_S))
                await self._cluster.terminate(number, SIGTERM)
                await self._cluster.start(number)
                restarted[SIGTERM.name] += 1
        return restarted

    def _choose_replicas(self) -> list[int]:
        count = 2 if len(self._cluster.urls) > 1 and self._random.random() < BOTH_PROBABILITY else 1
        return self._random.sample(range(len(self._cluster.urls)), count)

    async def _hit(self, number: int, signal: Signals) -> None:
        if signal != SIGSTOP:
            await self._cluster.terminate(number, signal)
            return
        self._cluster.send_signal(number, SIGSTOP)
        await asyncio.sleep(self._cluster.lease_s + self._random.uniform(0, MAX_INTERVAL_S))
        self._cluster.send_signal(number, SIGCONT)

    async def _chat(self, user: str, history: History, random: Random, is_over: asyncio.Event) -> None:
        """Send one message after another, in one conversation after another."""
        conversation_id = None
        async with ClientDriver(self._cluster, user, self._cluster.token(user), history) as client:
            while not is_over.is_set():
                message = self._message(user, conversation_id, random)
                if message.key is not None and random.random() < 0.1:
                    await asyncio.gather(
                        client.send(message), client.send(replace(message, log_lines=[], undecided={}))
                    )
                else:
                    await client.send(message)
                is_continued = message.outcome != "unknown" and random.random() < 0.9
                conversation_id = message.conversation_id if is_continued else None

    def _message(self, user: str, conversation_id: str | None, random: Random) -> SentMessage:
        tag = f"{user}m{next(self._numbers)}"
        text = message_text(tag, random.randrange(3), random.randrange(1, 15), random.choice(ASKS))
        body = {"message": text, "conversation_id": conversation_id}
        key = tag if random.random() < 0.8 else None
        is_streamed = random.random() < 0.5
        cancel = is_streamed and random.random() < 0.1
        decides = random.choices(list(DECIDES), list(DECIDES.values()))[0]
        return SentMessage(user, tag, body, key, is_streamed, cancel_after_first_delta=cancel, decides=decides)

    def _seeded_random(self, name: str) -> Random:
        return Random(f"{self._seed} {name}")  # noqa: S311  # must be repeatable
