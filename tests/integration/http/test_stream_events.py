"""Event streams over a real socket: event types, their data and their timing."""

import asyncio
from asyncio import Event, Semaphore

import pytest

from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.support.answer_text import answer_text
from tests.support.event_stream import event_names, raw_bytes, read_turn, stream_chat
from tests.support.service import ApiUser, Service

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("without_polling")]

MILK = calls(("add_task", '{"title": "Buy milk"}'))
PLAN = '{"title": "Plan", "content_markdown": "# Plan"}'

UNICODE = [
    "naïve café, e\u0301 and \u1e9b\u0323",
    "\u05e9\u05dc\u05d5\u05dd and \u0633\u0644\u0627\u0645, \u202eright to left",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001d518 \U0010ffff",
    "\n\ndata: not an event\n\nid: 7\r\n: no comment\r",
    'quotes " and \\ and \\n and \\u0041 and </script>',
    "\u2028\u2029\u0085\ufeff\ufffe\x01\x1f\x7f\t",
]
"""Texts that a stream, JSON or a database could corrupt."""


@pytest.fixture
def ada(replicas: tuple[Service, Service]) -> ApiUser:
    return replicas[0].user()


async def test_stream_contains_all_events_of_the_turn_in_order(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK, says("It is on the list.")]
    async with stream_chat(ada, "Buy milk") as source:
        events = await source.rest()
    turn_id = events[0].data["turn_id"]
    turn = (await ada.get(f"turns/{turn_id}")).json()
    conversation_id, (call,) = turn["conversation_id"], turn["tool_calls"]
    answer = (await ada.list_items(f"conversations/{conversation_id}/messages"))[1]

    assert {event.data["turn_id"] for event in events} == {turn_id}
    assert [(event.seq, event.name, event.payload) for event in events] == [
        (1, "turn.started", {"conversation_id": conversation_id, "agent": "openai"}),
        (2, "tool_call.started", {"id": call["id"], "name": "add_task", "arguments": {"title": "Buy milk"}}),
        (3, "tool_call.completed", {name: call[name] for name in ("id", "name", "result", "is_error", "duration_ms")}),
        (4, "message.delta", {"text": "It is on the list."}),
        (5, "turn.completed", {"response": answer["content"], "message_id": answer["id"], "usage": turn["usage"]}),
    ]
    assert answer["content"] == "It is on the list."


async def test_stream_tool_call_error_contains_its_reason(ada: ApiUser, model: ModelServer) -> None:
    model.script += [calls(("add_task", '{"title": ""}')), says("That does not work.")]
    async with stream_chat(ada, "Buy nothing") as source:
        _, started, completed, *_ = await source.rest()

    assert started.payload == {"id": started.data["id"], "name": "add_task", "arguments": {"title": ""}}
    assert (completed.name, completed.data["id"]) == ("tool_call.completed", started.data["id"])
    assert (completed.data["is_error"], completed.data["result"]["code"]) == (True, "invalid")


async def test_stream_artifact_event_follows_the_tool_call_that_saved_it(ada: ApiUser, model: ModelServer) -> None:
    model.script += [calls(("save_artifact", PLAN)), says("Here it is.")]
    async with stream_chat(ada, "Write a plan", artifact_generation=True) as source:
        events = await source.rest()
    (artifact,) = await ada.list_items("artifacts")

    assert event_names(events) == [
        "turn.started",
        "tool_call.started",
        "tool_call.completed",
        "artifact.created",
        "message.delta",
        "turn.completed",
    ]
    assert events[3].payload == {name: artifact[name] for name in ("id", "artifact_type", "title", "version")}


async def test_stream_delivers_text_while_the_model_continues(ada: ApiUser, model: ModelServer) -> None:
    release = Event()
    model.script += [says("Hel").held(release)]
    async with stream_chat(ada, "Hello") as source:
        started, delta = await source.take(2)
        still_speaks = not release.is_set()
        running = (await ada.get(f"turns/{started.data['turn_id']}")).json()
        release.set()
        (completed,) = await source.rest()

    assert still_speaks
    assert (delta.name, delta.payload) == ("message.delta", {"text": "Hel"})
    assert running["status"] == "running"
    assert (completed.name, completed.data["response"]) == ("turn.completed", "Hel")


async def test_stream_tool_call_event_follows_all_earlier_text(ada: ApiUser, model: ModelServer) -> None:
    model.script += [calls(("list_tasks", "{}"), saying=("I ", "am ", "looking.")), says("Nothing ", "there.")]
    async with stream_chat(ada, "What is there?") as source:
        before = await source.until("tool_call.started")
        after = await source.rest()

    assert answer_text(before) == "I am looking."
    assert event_names(after)[0] == "tool_call.completed"
    assert answer_text(before + after) == after[-1].data["response"] == "I am looking.\n\nNothing there."


async def test_stream_combines_concurrent_deltas_into_few_events(ada: ApiUser, model: ModelServer) -> None:
    """Each event costs a transaction."""
    pieces = [f"{nth} {UNICODE[nth % len(UNICODE)]}" for nth in range(200)]
    model.script += [says(*pieces)]
    async with stream_chat(ada, "Tell me everything") as source:
        events = await source.rest()
    (conversation,) = await ada.list_items("conversations")
    answer = (await ada.list_items(f"conversations/{conversation['id']}/messages"))[1]

    assert answer_text(events) == events[-1].data["response"] == answer["content"] == "".join(pieces)
    assert len(events) < 40


async def test_stream_writes_at_most_five_delta_events_per_second(ada: ApiUser, model: ModelServer) -> None:
    """Independent of the pace of the model: here a delta follows each response to another request."""
    pace, clock = Semaphore(0), asyncio.get_running_loop().time
    model.script += [says(*["word "] * 100).paced(pace)]
    began = clock()
    async with stream_chat(ada, "Tell me everything") as source:
        for _ in range(120):
            pace.release()
            await ada.get("tasks")
        events = await source.rest()
    seconds = clock() - began

    assert answer_text(events) == "word " * 100
    assert event_names(events).count("message.delta") <= 2 + 5 * seconds


@pytest.mark.parametrize("accept", ["text/event-stream", "Text/Event-Stream; q=1", "text/event-stream, */*;q=0.1"])
async def test_stream_is_sent_if_the_client_accepts_events(ada: ApiUser, model: ModelServer, accept: str) -> None:
    model.script += [says("Hello.")]
    async with stream_chat(ada, "Hello", headers={"accept": accept}) as source:
        assert event_names(await source.rest())[-1] == "turn.completed"


@pytest.mark.parametrize("accept", ["application/json", "*/*", ""])
async def test_stream_is_not_sent_if_the_client_does_not_accept_events(
    ada: ApiUser, model: ModelServer, accept: str
) -> None:
    model.script += [says("Hello.")]
    answer = await ada.post("chat", json={"message": "Hello"}, headers={"accept": accept})

    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["response"] == "Hello."


async def test_stream_of_a_turn_that_was_answered_as_json(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK, says("It is on the list.")]
    answer = await ada.chat("Buy milk")
    events = await read_turn(ada, answer["turn_id"])

    assert answer_text(events) == answer["response"]
    assert events[-1].payload == {
        "response": answer["response"],
        "message_id": answer["message"]["id"],
        "usage": answer["usage"],
    }


async def test_disconnect_from_the_stream_does_not_stop_the_turn(ada: ApiUser, model: ModelServer) -> None:
    release = Event()
    model.script += [MILK.held(release), says("It is on the list.")]
    async with stream_chat(ada, "Buy milk") as source:
        first = await source.next()
    release.set()
    events = await read_turn(ada, first.data["turn_id"])

    assert raw_bytes(events).startswith(first.raw)
    assert event_names(events)[-1] == "turn.completed"
    assert [task["title"] for task in await ada.list_items("tasks")] == ["Buy milk"]
