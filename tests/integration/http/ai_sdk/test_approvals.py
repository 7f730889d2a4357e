"""Approvals with `useChat` (Vercel AI SDK): the page is asked, and posts its decisions as a part of its messages."""

import json
from typing import Any
from uuid import uuid4

import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.ai_sdk.chat import (
    API,
    answer,
    body,
    calls_of,
    chunks,
    decide,
    history,
    message,
    post_decisions,
    responded,
    say,
    text_of,
    types,
)
from tests.integration.http.task_calls import ASKING, BOTH, MILK, decide_over_rest, titles
from tests.polling import wait_until
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASSISTANTS = ASKING


@pytest.fixture
def ada(assistants_service: Service) -> ApiUser:
    return assistants_service.user()


@pytest.fixture
def bob(assistants_service: Service) -> ApiUser:
    return assistants_service.user()


async def test_stream_of_a_waiting_turn_ends_with_the_question(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK]
    stream = await say(ada, "c1", "Buy milk", "m1")
    call = next(chunk for chunk in stream if chunk["type"] == "tool-input-available")
    shown = await answer(ada)
    (approval,) = await ada.list_items("approvals")

    assert types(stream)[-4:] == ["tool-input-available", "tool-approval-request", "finish-step", "finish"]
    assert stream[-3] == {
        "type": "tool-approval-request",
        "approvalId": call["toolCallId"],
        "toolCallId": call["toolCallId"],
    }
    assert stream[-1]["messageMetadata"] == {"status": "waiting"}
    assert (approval["id"], approval["turn_id"]) == (call["toolCallId"], stream[0]["messageId"])
    assert calls_of(shown) == [
        {
            "type": "tool-add_task",
            "toolCallId": call["toolCallId"],
            "state": "approval-requested",
            "input": {"title": "Buy milk"},
            "approval": {"id": call["toolCallId"]},
            "providerExecuted": True,
        }
    ]
    assert shown["metadata"]["status"] == "waiting"
    assert await titles(ada) == []


async def test_approved_call_is_made_once_and_its_message_continues(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK, says("It is ", "on the list.")]
    await say(ada, "c1", "Buy milk", "m1")
    decided = responded(await answer(ada), "approve")
    stream = chunks(await post_decisions(ada, decided))
    repeated = chunks(await post_decisions(ada, decided))
    (task,) = await ada.list_items("tasks")
    shown = await answer(ada)

    assert types(stream)[:4] == ["start", "tool-output-available", "finish-step", "start-step"]
    assert (stream[0]["messageId"], stream[0]["messageMetadata"]) == (shown["id"], {"status": "running"})
    assert (stream[1]["output"], text_of(stream)) == (task, "It is on the list.")
    assert stream[-1]["messageMetadata"]["status"] == "completed"
    assert repeated == stream
    assert [part["type"] for part in shown["parts"]] == ["step-start", "text", "tool-add_task", "step-start", "text"]
    (call,) = calls_of(shown)
    assert (call["state"], call["output"]) == ("output-available", task)
    assert call["approval"] == {"id": call["toolCallId"], "approved": True}
    assert len((await history(ada, "c1"))["messages"]) == 2


async def test_declined_call_is_not_made_and_the_model_is_told_why(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK, says("Then not.")]
    await say(ada, "c1", "Buy milk", "m1")
    stream = await decide(ada, "decline", reason="We have some.")
    (call,) = calls_of(await answer(ada))

    assert types(stream)[:2] == ["start", "tool-output-denied"]
    assert text_of(stream) == "Then not."
    assert await titles(ada) == []
    assert call["state"] == "output-denied"
    assert call["approval"] == {"id": call["toolCallId"], "approved": False, "reason": "We have some."}
    assert "We have some." in str(model.requests[-1].conversation)


async def test_calls_of_one_step_are_decided_one_by_one(ada: ApiUser, model: ModelServer) -> None:
    model.script += [BOTH, says("Done.")]
    await say(ada, "c1", "Buy milk and tea", "m1")
    assert [call["state"] for call in calls_of(await answer(ada))] == [
        "approval-requested",
        "output-available",
        "approval-requested",
    ]
    first = await decide(ada, "approve", None)
    assert types(first) == ["start", "tool-output-available", "finish-step", "finish"]
    assert first[-1]["messageMetadata"] == {"status": "waiting"}
    assert await titles(ada) == ["Buy milk"]
    second = await decide(ada, "decline")

    assert types(second)[:4] == ["start", "tool-output-denied", "finish-step", "start-step"]
    assert text_of(second) == "Done."
    assert await titles(ada) == ["Buy milk"]


async def test_calls_of_one_step_are_decided_together(ada: ApiUser, model: ModelServer) -> None:
    model.script += [BOTH, says("Done.")]
    await say(ada, "c1", "Buy milk and tea", "m1")
    stream = await decide(ada, "approve", "approve")

    assert types(stream).count("tool-output-available") == 2
    assert text_of(stream) == "Done."
    assert sorted(await titles(ada)) == ["Buy milk", "Buy tea"]


async def test_arguments_that_a_page_has_changed_are_ignored(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK, says("Done.")]
    await say(ada, "c1", "Buy milk", "m1")
    decided = responded(await answer(ada), "approve")
    for part in calls_of(decided):
        part["input"] = {"title": "Buy a castle"}
    chunks(await post_decisions(ada, decided))

    assert await titles(ada) == ["Buy milk"]


async def test_reload_while_waiting_shows_the_question_and_resumes_nothing(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK]
    stream = await say(ada, "c1", "Buy milk", "m1")
    shown = await history(ada, "c1")
    turn_id = stream[0]["messageId"]

    assert (shown["activeStreamId"], shown["messages"][-1]["metadata"]["status"]) == (None, "waiting")
    assert (await ada.get(f"{API}/c1/stream")).status_code == 204
    assert chunks(await ada.get(f"{API}/turn/{turn_id}/stream")) == stream
    assert await say(ada, "c1", "Buy milk", "m1") == stream


@pytest.mark.parametrize("decision", ["approve", "decline"])
async def test_decision_made_elsewhere_is_shown_in_place_of_the_page_s_own(
    ada: ApiUser, model: ModelServer, decision: str
) -> None:
    """The user has decided over REST, and the page shows the question still."""
    model.script += [MILK, says("Well.")]
    await say(ada, "c1", "Buy milk", "m1")
    shown = await answer(ada)
    (call,) = calls_of(shown)
    await decide_over_rest(ada, shown["id"], call["toolCallId"], decision)
    stream = chunks(await post_decisions(ada, responded(shown, "decline" if decision == "approve" else "approve")))

    result = "tool-output-available" if decision == "approve" else "tool-output-denied"
    assert result in types(stream)
    assert text_of(stream) == "Well."
    assert await titles(ada) == (["Buy milk"] if decision == "approve" else [])


async def test_page_that_resumes_after_a_decision_elsewhere_gets_the_whole_turn(
    ada: ApiUser, model: ModelServer
) -> None:
    model.script += [MILK, says("Done.")]
    await say(ada, "c1", "Buy milk", "m1")
    shown = await answer(ada)
    (call,) = calls_of(shown)
    await decide_over_rest(ada, shown["id"], call["toolCallId"], "approve")
    stream = chunks(await ada.get(f"{API}/turn/{shown['id']}/stream"))

    assert text_of(stream) == "I write it down.Done."
    assert types(stream).count("finish") == 1


async def test_further_message_declines_the_question(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK, says("Coffee.")]
    await say(ada, "c1", "Buy milk", "m1")
    asked = await answer(ada)
    stream = await say(ada, "c1", "Coffee instead", "m2")
    _, earlier, *_ = (await history(ada, "c1"))["messages"]
    late = chunks(await post_decisions(ada, responded(asked, "approve")))

    assert text_of(stream) == "Coffee."
    assert ([call["state"] for call in calls_of(earlier)], earlier["metadata"]["status"]) == (
        ["output-denied"],
        "cancelled",
    )
    assert types(late) == ["start", "tool-output-denied", "finish-step", "start-step", "abort", "finish"]
    assert await titles(ada) == []
    assert await ada.list_items("approvals") == []


async def test_stop_while_waiting_declines_the_question(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK]
    await say(ada, "c1", "Buy milk", "m1")
    assert (await ada.post(f"{API}/c1/stop")).json() == {"success": True}
    shown = await answer(ada)

    assert ([call["state"] for call in calls_of(shown)], shown["metadata"]["status"]) == (
        ["output-denied"],
        "cancelled",
    )
    assert await ada.list_items("approvals") == []


@pytest.mark.parametrize(
    ("text", "members"),
    [("Buy milk", {"trigger": "regenerate-message"}), ("Buy oat milk", {"messageId": "m1"})],
    ids=["regenerate", "edit"],
)
async def test_replaced_message_declines_the_question(
    ada: ApiUser, model: ModelServer, text: str, members: dict[str, Any]
) -> None:
    model.script += [MILK, says("Again.")]
    await say(ada, "c1", "Buy milk", "m1")
    stream = await say(ada, "c1", text, "m1", **members)
    messages = (await history(ada, "c1"))["messages"]

    assert text_of(stream) == "Again."
    assert [part["text"] for shown in messages for part in shown["parts"] if part["type"] == "text"] == [text, "Again."]
    assert await ada.list_items("approvals") == []


async def test_unknown_question_is_404(ada: ApiUser, bob: ApiUser, model: ModelServer) -> None:
    model.script += [MILK]
    await say(ada, "c1", "Buy milk", "m1")
    shown = await answer(ada)
    decided = responded(shown, "approve")
    unknown = json.loads(json.dumps(decided).replace(calls_of(shown)[0]["toolCallId"], str(uuid4())))
    foreign = await post_decisions(bob, decided)
    other = await post_decisions(ada, unknown)

    assert [(response.status_code, response.json()["code"]) for response in (foreign, other)] == [
        (404, "not-found")
    ] * 2
    assert len(await ada.list_items("approvals")) == 1


async def test_page_with_ai_5_has_no_approvals_and_decides_over_rest(ada: ApiUser, model: ModelServer) -> None:
    """Its protocol does not know the chunks of approvals, and would refuse the stream."""
    model.script += [MILK, says("Then not.")]
    version = {"latchkey-ai-sdk": "5"}
    response = await ada.post(API, json=body("c1", message("Buy milk", "m1")), headers=version)
    stream = chunks(response)
    messages = (await ada.get(f"{API}/c1", headers=version)).json()["messages"]
    (call,) = calls_of(messages[-1])

    assert types(stream)[-3:] == ["tool-input-available", "finish-step", "finish"]
    assert (messages[-1]["metadata"]["status"], call["state"], "approval" in call) == (
        "waiting",
        "input-available",
        False,
    )
    await decide_over_rest(ada, messages[-1]["id"], call["toolCallId"], "decline")
    whole = chunks(await ada.get(f"{API}/turn/{messages[-1]['id']}/stream", headers=version))
    error = next(chunk for chunk in whole if chunk["type"] == "tool-output-error")
    assert error["errorText"] == "Nothing was done: the user declined this call."
    assert text_of(whole) == "I write it down.Then not."


async def test_turn_that_fails_after_a_decision_ends_the_stream_with_its_error(
    ada: ApiUser, model: ModelServer
) -> None:
    model.script += [MILK]
    await say(ada, "c1", "Buy milk", "m1")
    stream = await decide(ada, "approve")

    assert types(stream)[-3:] == ["message-metadata", "error", "finish"]
    assert stream[-3]["messageMetadata"]["status"] == "failed"
    assert await titles(ada) == ["Buy milk"]


async def test_decided_turn_whose_page_has_gone_goes_on(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK, says("Done.")]
    await say(ada, "c1", "Buy milk", "m1")
    shown = await answer(ada)
    async with ada.stream("POST", API, json=body("c1", responded(shown, "approve"), messageId=shown["id"])):
        pass

    async def has_ended() -> bool:
        return bool((await answer(ada))["metadata"]["status"] == "completed")

    await wait_until(has_ended)
    assert await titles(ada) == ["Buy milk"]
