"""The event stream of an AG-UI run: a client that follows a turn has the messages of the thread, whatever happens."""

import asyncio
import json
from collections.abc import AsyncGenerator
from copy import deepcopy
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from latchkey.application.turns.log import ConversationLog
from latchkey.domain.tool_call import ToolCallId
from latchkey.domain.turn import TurnId
from latchkey.domain.turn_event import (
    ApprovalDecidedEvent,
    MessageDeltaEvent,
    MessageWithdrawnEvent,
    ToolCallCompletedEvent,
    ToolCallStartedEvent,
    TurnEvent,
    TurnResumedEvent,
    TurnStartedEvent,
    numbered,
)
from latchkey.interfaces.http.frontends.ag_ui.history import MessageReducer, answer_messages, thread_messages
from latchkey.interfaces.http.frontends.ag_ui.run import Run
from latchkey.interfaces.http.frontends.ag_ui.stream import RunStream
from tests.support.event_logs import TURN, continued_logs, event_logs, log_of

RUN = Run("t1", "r1", knows_cancelled=True)
Frames = list[tuple[tuple[int, int], dict[str, Any]]]


class Client(MessageReducer):
    """The messages of a page that follows a turn: its user's message, and what the runs bring."""

    def __init__(self) -> None:
        super().__init__()
        self.replace(thread_messages(thread_up_to([], 0)))

    def receive(self, frames: Frames) -> None:
        for _, event in deepcopy(frames):
            if event["type"] == "MESSAGES_SNAPSHOT":
                self.replace(event["messages"])
            self.apply(event)

    def replace(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages
        self._assistant = {message["id"]: message for message in messages if message["role"] == "assistant"}
        self._owner = {call["id"]: message for message in messages for call in message.get("toolCalls", [])}


def thread_up_to(log: list[TurnEvent], seq: int) -> ConversationLog:
    return ConversationLog(TURN.conversation_id, [log_of([event for event in log if event.seq <= seq])])


def frames_of(batches: list[list[TurnEvent]], run: Run = RUN) -> Frames:
    """The ids and events of a stream whose events arrive in these batches."""
    log = [event for batch in batches for event in batch]

    async def follow() -> AsyncGenerator[list[TurnEvent], None]:
        for batch in batches:
            yield batch

    async def read_log(_: TurnId, seq: int) -> ConversationLog:
        return thread_up_to(log, seq)

    async def collect() -> bytes:
        stream = RunStream(follow(), run, read_log)
        return b"".join([stream.encode(event) async for batch in stream.batches() for event in batch]) + stream.end()

    pairs = (frame.split("\n") for frame in asyncio.run(collect()).decode().split("\n\n")[:-1])
    frames = [(id.removeprefix("id: ").split("."), json.loads(data.removeprefix("data: "))) for id, data in pairs]
    return [((int(seq), int(index)), event) for (seq, index), event in frames]


def messages_of(log: list[TurnEvent]) -> Any:
    """The thread as a page that is loaded at its end has it."""
    messages = thread_messages(thread_up_to([], 0)) + answer_messages(log)
    return json.loads(msgspec.json.encode(messages))


@st.composite
def batches_of(draw: st.DrawFn) -> list[list[TurnEvent]]:
    """A log in batches, as a client receives it that follows the turn."""
    log = draw(st.one_of(continued_logs(TURN), continued_logs(TURN), event_logs(TURN)))
    if draw(st.booleans()):
        return [[event] for event in log]
    cuts = sorted(draw(st.sets(st.integers(1, len(log)), max_size=6)) | {0, len(log)})
    return [log[start:end] for start, end in pairwise(cuts)]


@settings(deadline=None)
@given(batches_of())
def test_client_that_follows_a_turn_has_the_messages_of_the_thread(batches: list[list[TurnEvent]]) -> None:
    client = Client()
    client.receive(frames_of(batches))

    assert client.messages == messages_of([event for batch in batches for event in batch])


@settings(deadline=None)
@given(batches_of(), st.data())
def test_resume_after_any_event_brings_the_same_messages(batches: list[list[TurnEvent]], data: st.DataObject) -> None:
    log = [event for batch in batches for event in batch]
    received = frames_of(batches)[: data.draw(st.integers(1, len(log)))]
    client = Client()
    client.receive(received)
    client.receive(frames_of([log], replace(RUN, after=received[-1][0])))

    assert client.messages == messages_of(log)


@settings(deadline=None)
@given(continued_logs(TURN))
def test_runs_of_a_turn_that_waits_bring_the_same_messages_as_one_run(log: list[TurnEvent]) -> None:
    client, begins_after = Client(), 0
    for place in [*(place for place, event in enumerate(log) if event.is_waiting), len(log) - 1]:
        if log[place].seq == begins_after:
            continue
        frames = frames_of([log[: place + 1]], replace(RUN, begins_after=begins_after))
        client.receive(frames)
        begins_after = log[place].seq
        ends = [event["type"] in {"RUN_FINISHED", "RUN_ERROR"} for _, event in frames]

        assert frames[0][1]["type"] == "RUN_STARTED"
        assert frames[0][1]["metadata"]["turnId"] == str(TURN.id)
        assert ends == [False] * (len(ends) - 1) + [True]
    assert client.messages == messages_of(log)


@settings(deadline=None)
@given(continued_logs(TURN))
def test_run_ends_with_the_open_questions_where_the_turn_waits(log: list[TurnEvent]) -> None:
    asked: dict[ToolCallId, Any] = {}
    for place, event in enumerate(log):
        match event.decode():
            case ToolCallStartedEvent(id, name, arguments):
                asked[id] = {"kind": "approval", "toolName": name, "input": msgspec.json.decode(arguments)}
            case ToolCallCompletedEvent(id=id) | ApprovalDecidedEvent(id=id):
                asked.pop(id, None)
        last = frames_of([log[: place + 1]])[-1][1]
        if event.is_waiting:
            interrupts = last["outcome"]["interrupts"]
            open_questions = [(interrupt["id"], interrupt["metadata"]) for interrupt in interrupts]
            expected = [(str(id), call) for id, call in asked.items() if call["toolName"] == "delete_task"]

            assert (last["type"], last["outcome"]["type"]) == ("RUN_FINISHED", "interrupt")
            assert open_questions == expected
        else:
            assert "interrupts" not in last.get("outcome", {})


def test_client_that_has_received_withdrawn_text_gets_a_snapshot_and_another_gets_none() -> None:
    started = TurnStartedEvent(TURN.conversation_id, TURN.agent)
    resumed = TurnResumedEvent(2, "recovery")
    withdrawn = [MessageDeltaEvent("Half "), MessageDeltaEvent("of it.")]
    log = numbered(TURN.id, 0, started, *withdrawn, MessageWithdrawnEvent(0), resumed, MessageDeltaEvent("Whole."))
    live = frames_of([log[:3], log[3:]])
    types = [event["type"] for _, event in live]
    reload = [event for _, event in frames_of([log])]

    assert types[1:5] == ["TEXT_MESSAGE_START", *["TEXT_MESSAGE_CONTENT"] * 2, "TEXT_MESSAGE_END"]
    assert types[5:] == ["MESSAGES_SNAPSHOT", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]
    assert live[5][1]["messages"] == messages_of([])
    assert live[6][1]["messageId"] == str(TURN.id)
    assert [event["type"] for event in reload] == ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]
    assert reload[-1]["delta"] == "Whole."


def test_resume_between_the_end_of_a_withdrawn_text_and_its_snapshot_brings_the_snapshot() -> None:
    started = TurnStartedEvent(TURN.conversation_id, TURN.agent)
    log = numbered(
        TURN.id, 0, started, MessageDeltaEvent("Half"), MessageWithdrawnEvent(0), MessageDeltaEvent("Whole.")
    )
    live = frames_of([log[:2], log[2:]])
    snapshot = [event["type"] for _, event in live].index("MESSAGES_SNAPSHOT")
    last, end = live[snapshot - 1]

    assert end["type"] == "TEXT_MESSAGE_END"
    assert frames_of([log], replace(RUN, after=last)) == live[snapshot:]
