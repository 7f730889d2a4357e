"""Random kills: people talk, and meanwhile one replica after another is killed, at any moment."""

import asyncio
import itertools
from collections import Counter
from dataclasses import replace
from random import Random
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals

from tests.chaos.clockwork import Clockwork, asking
from tests.chaos.cluster import Cluster, Slow, Statement
from tests.chaos.figures import Figures
from tests.chaos.inquest import Inquest
from tests.chaos.record import Record, Sent
from tests.chaos.talker import Talker

USERS = 3
TALKERS_PER_USER = 2
CALM_S = 1.0
"""At most so long nothing is broken."""
LINGERING_S = 0.01
"""So long each statement takes that a kill is most interesting in."""
WEAPONS = {SIGKILL: 80, SIGTERM: 10, SIGSTOP: 10}
"""By weight. What is stopped goes on when its leases have passed."""
BOTH = 0.15
"""How often the other replica is killed before the first is up again."""


class Storm:
    """A storm over a cluster. The seed says what is broken when, and what is said; chance, where that hits."""

    def __init__(self, cluster: Cluster, model: Clockwork, seed: int) -> None:
        self._cluster = cluster
        self._model = model
        self._seed = seed
        self._random = self._chance("kills")
        self._numbers = itertools.count()

    async def rage(self, kills: int) -> Figures:
        """So many kills among new users, and then the inquest."""
        users = [f"{self._cluster.name}{next(self._numbers)}" for _ in range(USERS)]
        records = {user: Record() for user in users}
        await self._cluster.slow_down(*(Slow(one, LINGERING_S) for one in Statement))
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for nth, user in enumerate(users * TALKERS_PER_USER):
                chance = self._chance(f"{user} {nth}")
                group.create_task(self._talk(user, records[user], chance, over))
            killed = await self._kill(kills)
            over.set()
        await self._cluster.slow_down()
        figures = Figures(killed)
        inquests = [Inquest(self._cluster, self._model, user, record) for user, record in records.items()]
        pictures = await asyncio.gather(*(inquest.picture() for inquest in inquests))
        for inquest, picture, record in zip(inquests, pictures, records.values(), strict=True):
            figures.add(record, inquest.anomalies(picture))
        figures.add_faults(self._model)
        return figures

    async def _kill(self, kills: int) -> Counter[str]:
        killed: Counter[str] = Counter()
        while killed.total() < kills:
            await asyncio.sleep(self._random.uniform(0, CALM_S))
            weapon = self._random.choices(list(WEAPONS), list(WEAPONS.values()))[0]
            for nth in self._victims():
                await self._hit(nth, weapon)
                killed[weapon.name] += 1
            for nth, url in enumerate(self._cluster.urls):
                if url is None:
                    await self._cluster.start(nth)
        return killed

    def _victims(self) -> list[int]:
        count = 2 if len(self._cluster.urls) > 1 and self._random.random() < BOTH else 1
        return self._random.sample(range(len(self._cluster.urls)), count)

    async def _hit(self, nth: int, weapon: Signals) -> None:
        if weapon != SIGSTOP:
            await self._cluster.end(nth, weapon)
            return
        self._cluster.send(nth, SIGSTOP)
        await asyncio.sleep(self._cluster.lease_s + self._random.uniform(0, CALM_S))
        self._cluster.send(nth, SIGCONT)

    async def _talk(self, user: str, record: Record, chance: Random, over: asyncio.Event) -> None:
        """One conversation after another, a message after the other."""
        conversation_id = None
        async with Talker(self._cluster, user, self._cluster.token(user), record) as talker:
            while not over.is_set():
                sent = self._message(user, conversation_id, chance)
                if sent.key is not None and chance.random() < 0.1:
                    await asyncio.gather(talker.say(sent), talker.say(replace(sent, story=[])))
                else:
                    await talker.say(sent)
                is_known = sent.outcome != "unknown" and chance.random() < 0.9
                conversation_id = sent.conversation_id if is_known else None

    def _message(self, user: str, conversation_id: str | None, chance: Random) -> Sent:
        tag = f"{user}m{next(self._numbers)}"
        text = asking(tag, chance.randrange(3), chance.randrange(1, 15))
        body = {"message": text, "conversation_id": conversation_id}
        key = tag if chance.random() < 0.8 else None
        is_streamed = chance.random() < 0.5
        return Sent(user, tag, body, key, is_streamed, is_to_be_cancelled=is_streamed and chance.random() < 0.1)

    def _chance(self, whose: str) -> Random:
        return Random(f"{self._seed} {whose}")  # noqa: S311  # chance that can be had again
