"""Two replicas are restarted in turn while clients chat, faster than turns end: each turn goes on in the other one."""

import asyncio
from asyncio import Event
from collections import deque
from functools import partial
from pathlib import Path

from tests.e2e.chat_client import openai_settings
from tests.e2e.service_process import BASE_SETTINGS, issue_token
from tests.e2e.test_rolling_restart import Deployment, RetryingClient, everything, expected_seqs
from tests.fakes.model_script import Step, calls, says
from tests.fakes.model_server import ModelServer, model_server
from tests.support.answer_text import answer_text

REPLICAS = 2
RESTARTS = 4
CLIENTS = 20
STEP_S = 0.4
ANSWER = "First. \n\nSecond. \n\nThat was all."


class SlowSteps(deque[Step]):
    """Answers each request after a while: two steps with a tool call, then the end."""

    def __init__(self, model: ModelServer) -> None:
        super().__init__([says("unused")])
        self._model = model

    def popleft(self) -> Step:
        number = len(self._model.requests[-1].results)
        answered = Event()
        asyncio.get_running_loop().call_later(STEP_S, answered.set)
        if number < 2:
            call = ("add_task", f'{{"title": "{number}"}}')
            return calls(call, saying=(("First. ", "Second. ")[number],)).held(answered)
        return says("That ", "was all.").held(answered)


async def test_rolling_restart_hands_over_every_running_turn(home: Path, postgresql_url: str) -> None:
    async with model_server() as model:
        model.script = SlowSteps(model)
        environment = openai_settings(
            model,
            {**BASE_SETTINGS, "LATCHKEY_DATABASE_URL": postgresql_url},
            LATCHKEY_TURNS_PER_USER="64",
            LATCHKEY_DRAIN_S="0.5",
            LATCHKEY_TURN_LEASE_S="600",
        )
        deployment = Deployment(home, environment, issue_token("ada", home, BASE_SETTINGS))
        try:
            await asyncio.gather(*(deployment.add_replica() for _ in range(REPLICAS)))
            clients = [RetryingClient(deployment) for _ in range(CLIENTS)]
            actions = [RetryingClient.follow_turn, RetryingClient.follow_turn, RetryingClient.run_turn]
            running = [
                asyncio.create_task(client.repeat(partial(actions[number % 3], client)))
                for number, client in enumerate(clients)
            ]
            for _ in range(RESTARTS):
                await deployment.replace()
            deployment.is_over.set()
            await asyncio.gather(*running)
            tasks, conversations = await everything(deployment, "tasks"), await everything(deployment, "conversations")
            turns = [
                turn
                for item in conversations
                for turn in await everything(deployment, f"conversations/{item['id']}/turns")
            ]
        finally:
            await deployment.close()
    events = [event for stream in deployment.streams for event in stream]
    made = [call["result"]["id"] for turn in turns for call in turn["tool_calls"] if not call["is_error"]]

    assert (deployment.refused, deployment.exit_codes) == ([], [0] * RESTARTS)
    assert [turn["status"] for turn in turns if turn["status"] != "completed"] == []
    assert len(turns) == len(deployment.turns) + len(deployment.streams)
    assert [turn["response"] for turn in deployment.turns if turn["response"] != ANSWER] == []
    assert [stream for stream in deployment.streams if answer_text(stream) != ANSWER] == []
    assert [stream for stream in deployment.streams if [event.seq for event in stream] != expected_seqs(stream)] == []
    assert sorted(made) == sorted(task["id"] for task in tasks)
    assert {event.data["reason"] for event in events if event.name == "turn.resumed"} == {"handover"}
