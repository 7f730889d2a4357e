"""Three users do random operations concurrently, and no response has a byte of another user's data.

About 5,000 steps on each database. The environment variable `ISOLATION_STEPS` sets a larger number.
"""

import asyncio
import json
import os
from collections.abc import Coroutine, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.isolation.conftest import asking_settings
from tests.isolation.endpoints import ENDPOINTS, HTTP_ENDPOINTS
from tests.isolation.leak_detector import LeakDetector
from tests.isolation.random_client import EVENTS, RandomClient, pick
from tests.polling import TIMEOUT_S
from tests.support.service import Service, run_service

STEPS = max(5000, int(os.environ.get("ISOLATION_STEPS", "5000")))
STEPS_PER_RUN = 100
BY_NAME = {endpoint.name: endpoint for endpoint in ENDPOINTS}
CHAT, CANCEL, DECIDE = BY_NAME["chat"], BY_NAME["cancel_turn"], BY_NAME["decide_approval"]
OWN, CONCURRENT, FILES, STREAMED = 0.5, 0.1, 0.4, 0.5
"""Probabilities: own ids, all clients at once, a turn that makes a file, a streamed turn."""

COMPARED_FIELDS = {
    "task": ("tasks", ("title", "description", "due_at", "status", "version", "conversation_id", "updated_at")),
    "artifact": ("artifacts", ("title", "artifact_type", "version", "conversation_id")),
    "conversation": ("conversations", ("title",)),
    "context_token": ("context-tokens", ("grants", "conversation_id")),
}
"""For each noun: the path of its list, and the fields that must equal the model."""


class RandomOperations(RuleBasedStateMachine):
    """The state machine that hypothesis runs. All runs share one leak detector; `steps` counts those of all runs."""

    runner: ClassVar[asyncio.Runner]
    service: ClassVar[Service]
    leak_detector: ClassVar[LeakDetector]
    steps: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.clients = [self._new_client() for _ in range(3)]

    def _new_client(self) -> RandomClient:
        user = self.service.user(f"tenant-{os.urandom(16).hex()}")
        return RandomClient.create(user, self.leak_detector)

    @initialize()
    def create_initial_data(self) -> None:
        self.run_concurrently(*(client.create_initial_data() for client in self.clients))

    @rule(random=st.randoms(use_true_random=True))
    def step(self, random: Random) -> None:
        """One client, or all concurrently, does a random action with its own or foreign ids."""
        action = random.choice(ACTIONS)
        is_concurrent = action is call and random.random() < CONCURRENT
        clients = random.sample(self.clients, len(self.clients) if is_concurrent else 1)
        owners = [client if random.random() < OWN else random.choice(self.clients) for client in clients]
        note(f"{action.__name__}: clients {self._numbers(clients)} with ids of {self._numbers(owners)}")
        pairs = zip(clients, owners, strict=True)
        self.run_concurrently(*(action(client, owner, random) for client, owner in pairs))

    def _numbers(self, clients: list[RandomClient]) -> list[int]:
        return [self.clients.index(client) for client in clients]

    def run_concurrently(self, *actions: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            await asyncio.gather(*actions)

        type(self).steps += len(actions)
        self.runner.run(run())

    def teardown(self) -> None:
        """Every client still has all of its data, as last received."""
        for client in self.clients:
            self.runner.run(check_against_model(client))


async def call(client: RandomClient, owner: RandomClient, random: Random) -> None:
    await client.call(random.choice(ENDPOINTS), owner, random.getrandbits(8))


async def call_foreign_path(client: RandomClient, owner: RandomClient, random: Random) -> None:
    await client.call_foreign_path(random.choice(HTTP_ENDPOINTS), owner, random.getrandbits(8))


async def chat(client: RandomClient, owner: RandomClient, random: Random) -> None:
    """A turn in a new conversation or one of the owner, with a tool call on an entity of the owner."""
    choice = random.getrandbits(8)
    message = client.message_with_tool_call(owner, choice)
    values = {"message": message, "artifact_generation": random.random() < FILES}
    await client.call(CHAT, owner, choice, streamed=random.random() < STREAMED, **values)


async def cancel(client: RandomClient, other: RandomClient, random: Random) -> None:
    """While a turn runs, another client tries to cancel it and is refused; then its own client cancels it."""
    conversation_id = pick(client.model.ids("conversation"), random.getrandbits(8))
    if conversation_id is None:
        return
    body = {"message": client.canary, "conversation_id": conversation_id}
    chatting = asyncio.create_task(client.send(CHAT.request(client.user.user_id, client.user.token, {}, body)))
    turn_id = None
    async with asyncio.timeout(TIMEOUT_S):
        while turn_id is None:
            turns = (await client.get(f"conversations/{conversation_id}/turns", limit=1))["items"]
            turn_id = next((turn["id"] for turn in turns if turn["id"] not in client.model.turns), None)
    foreign, own = [
        await caller.send(CANCEL.request(caller.user.user_id, caller.user.token, {}, {"turn_id": turn_id}))
        for caller in (other, client)
    ]
    answer = await chatting
    client.model.record_turn(turn_id, conversation_id, [], client.canary if answer.is_success else None)
    assert foreign.status_code == (200 if other is client else 404)
    assert (own.json()["status"], answer.status_code) in {("cancelled", 409), ("completed", 200)}


async def decide(client: RandomClient, other: RandomClient, random: Random) -> None:
    """While a turn waits for its user, another client tries to decide and is refused; then its own client decides."""
    message = f"{client.canary}\n/remember {json.dumps({'text': client.canary})}"
    asked = await client.send(CHAT.request(client.user.user_id, client.user.token, {}, {"message": message}))
    answer = asked.json()
    decision = {"decision": random.choice(["approve", "decline"])}
    ids = {"turn_id": answer["turn_id"], "call_id": answer["approvals"][0]["id"]}
    requests = [DECIDE.request(each.user.user_id, each.user.token, {}, ids | decision) for each in (other, client)]
    for request in requests:
        request.headers["accept"] = EVENTS  # the response ends with the turn
    foreign, own = [await each.send(request) for each, request in zip((other, client), requests, strict=True)]
    client.leak_detector.succeeded.add(DECIDE.name)
    client.model.record_turn(ids["turn_id"], answer["conversation_id"], [], client.canary)
    assert (asked.status_code, foreign.status_code) == (202, 200 if other is client else 404)
    assert (own.status_code, b"event: turn.completed" in own.content) == (200, True)


async def check_against_model(client: RandomClient) -> None:
    for noun, (collection, fields) in COMPARED_FIELDS.items():
        items = (await client.get(collection, limit=200))["items"]
        entities = [item for item in items if noun != "context_token" or item["turn_id"] is None]
        assert selected(entities, fields) == selected(client.model.entities[noun].values(), fields), noun


def selected(entities: Iterable[dict[str, Any]], fields: tuple[str, ...]) -> dict[str, list[Any]]:
    """The values of these fields by the id of the entity."""
    return {entity["id"]: [entity[name] for name in fields] for entity in entities}


ACTIONS = [*[call] * 12, call_foreign_path, call_foreign_path, chat, chat, cancel, decide]


@pytest.fixture
def random_operations(database_url: str, tmp_path: Path) -> Iterator[type[RandomOperations]]:
    """The state machine, with a service that runs from the first step to the last."""
    with asyncio.Runner() as runner:
        running = run_service(asking_settings(database_url, tmp_path), validate=False)
        service = runner.run(running.__aenter__())
        shared = {"runner": runner, "service": service, "leak_detector": LeakDetector(), "steps": 0}
        yield type("BoundRandomOperations", (RandomOperations,), shared)
        runner.run(running.__aexit__(None, None, None))


def test_random_operations_leak_nothing(random_operations: type[RandomOperations]) -> None:
    """And every user keeps its own data, whatever the other users do. Every endpoint must succeed at least once."""
    run_state_machine_as_test(
        random_operations,
        settings=settings(
            max_examples=max(1, STEPS // STEPS_PER_RUN),
            stateful_step_count=STEPS_PER_RUN,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert random_operations.steps >= STEPS
    assert random_operations.leak_detector.response_count >= STEPS
    assert BY_NAME.keys() == random_operations.leak_detector.succeeded
