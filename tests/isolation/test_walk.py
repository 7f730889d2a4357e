"""Three people do whatever can be done, at random, and nobody is ever told a byte of anybody else.

About 1,500 steps on each database; the environment variable `ISOLATION_STEPS` asks for more of them.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterable, Iterator
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.isolation.doors import DOORS, OPERATIONS
from tests.isolation.walker import Walker, chosen
from tests.isolation.watchman import Watchman
from tests.polling import TIMEOUT_S
from tests.support.service import Service, run_service, settings_for

STEPS = max(1500, int(os.environ.get("ISOLATION_STEPS", "1500")))
STEPS_A_WALK = 100
NAMED = {door.name: door for door in DOORS}
CHAT, CANCEL = NAMED["chat"], NAMED["cancel_turn"]
OWN, AT_ONCE, FILES, STREAMED = 0.5, 0.1, 0.4, 0.5
"""How often it is so."""

LISTED = {
    "task": ("tasks", ("title", "description", "due_at", "status", "version", "conversation_id", "updated_at")),
    "artifact": ("artifacts", ("title", "artifact_type", "version", "conversation_id")),
    "conversation": ("conversations", ("title",)),
    "context_token": ("context-tokens", ("grants", "conversation_id")),
}


class Walk(RuleBasedStateMachine):
    """`steps` are those of all walks, on which one watchman looks."""

    runner: ClassVar[asyncio.Runner]
    service: ClassVar[Service]
    watchman: ClassVar[Watchman]
    steps: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.people = [self._somebody() for _ in range(3)]

    def _somebody(self) -> Walker:
        person = self.service.user(f"walker-{os.urandom(16).hex()}")
        return Walker.setting_out(person, self.watchman)

    @initialize()
    def set_result(self) -> None:
        self.do(*(who.set_result() for who in self.people))

    @rule(luck=st.randoms(use_true_random=True))
    def step(self, luck: Random) -> None:
        """Somebody, with what is theirs or another's, does one of all things there are; or all do something at once."""
        act = luck.choice(ACTS)
        who = luck.sample(self.people, len(self.people) if act is ask and luck.random() < AT_ONCE else 1)
        owners = [one if luck.random() < OWN else luck.choice(self.people) for one in who]
        note(f"{act.__name__}: {self._numbers(who)} with what is of {self._numbers(owners)}")
        self.do(*(act(one, whose, luck) for one, whose in zip(who, owners, strict=True)))

    def _numbers(self, people: list[Walker]) -> list[int]:
        return [self.people.index(one) for one in people]

    def do(self, *acts: Coroutine[Any, Any, None]) -> None:
        async def together() -> None:
            await asyncio.gather(*acts)

        type(self).steps += len(acts)
        self.runner.run(together())

    def teardown(self) -> None:
        """Everybody has all that is theirs, as they were last told."""
        for who in self.people:
            self.runner.run(check_belongings(who))


async def ask(who: Walker, whose: Walker, luck: Random) -> None:
    await who.ask(luck.choice(DOORS), whose, luck.getrandbits(8))


async def knock(who: Walker, whose: Walker, luck: Random) -> None:
    await who.knock(luck.choice(OPERATIONS), whose, luck.getrandbits(8))


async def talk(who: Walker, whose: Walker, luck: Random) -> None:
    """In somebody's conversation or a new one, of somebody's things."""
    nth = luck.getrandbits(8)
    said = {"message": who.says(whose, nth), "artifact_generation": luck.random() < FILES}
    await who.ask(CHAT, whose, nth, streamed=luck.random() < STREAMED, **said)


async def cut_short(who: Walker, somebody: Walker, luck: Random) -> None:
    """A turn is cancelled while it runs, by the one whose it is, and before that by somebody."""
    where = chosen(who.kept.ids("conversation"), luck.getrandbits(8))
    if where is None:
        return
    body = {"message": who.canary, "conversation_id": where}
    talking = asyncio.create_task(who.send(CHAT.request(who.person.user_id, who.person.token, {}, body)))
    turn = None
    async with asyncio.timeout(TIMEOUT_S):
        while turn is None:
            newest = (await who.get(f"conversations/{where}/turns", limit=1))["items"]
            turn = next((one["id"] for one in newest if one["id"] not in who.kept.turns), None)
    tried, cancelled = [
        await one.send(CANCEL.request(one.person.user_id, one.person.token, {}, {"turn_id": turn}))
        for one in (somebody, who)
    ]
    answered = await talking
    who.kept.note_turn(turn, where, [])
    assert tried.status_code == (200 if somebody is who else 404)
    assert (cancelled.json()["status"], answered.status_code) in {("cancelled", 409), ("completed", 200)}


async def check_belongings(who: Walker) -> None:
    for noun, (collection, told) in LISTED.items():
        listed = (await who.get(collection, limit=200))["items"]
        found = [one for one in listed if noun != "context_token" or one["turn_id"] is None]
        assert picture(found, told) == picture(who.kept.things[noun].values(), told), noun


def picture(things: Iterable[dict[str, Any]], told: tuple[str, ...]) -> dict[str, list[Any]]:
    return {one["id"]: [one[name] for name in told] for one in things}


ACTS = [*[ask] * 12, knock, knock, talk, talk, cut_short]


@pytest.fixture
def walk(database_url: str) -> Iterator[type[Walk]]:
    """In a service of its own, which goes on from one step to the next."""
    with asyncio.Runner() as runner:
        running = run_service(settings_for(database_url), validate=False)
        service = runner.run(running.__aenter__())
        shared = {"runner": runner, "service": service, "watchman": Watchman(), "steps": 0}
        yield type("Walking", (Walk,), shared)
        runner.run(running.__aexit__(None, None, None))


def test_nobody_is_told_anything_of_anybody_else(walk: type[Walk]) -> None:
    """And whatever the others do, everybody keeps what is theirs."""
    run_state_machine_as_test(
        walk,
        settings=settings(
            max_examples=max(1, STEPS // STEPS_A_WALK),
            stateful_step_count=STEPS_A_WALK,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert walk.steps >= STEPS
    assert walk.watchman.answers >= STEPS
    assert NAMED.keys() == walk.watchman.opened
