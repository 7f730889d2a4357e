"""Approvals over AG-UI: a run ends with interrupts, and the `resume` of a further run has the user's decisions."""

import asyncio
from asyncio import Event
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.ag_ui.runs import (
    API,
    RunEvent,
    events_of,
    frames_of,
    run,
    run_input,
    say,
    text_of,
    thread_messages,
    types,
    user_message,
)
from tests.integration.http.task_calls import ASKING, BOTH, MILK, decide_over_rest, titles
from tests.polling import wait_until
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASSISTANTS = ASKING
APPROVED, DECLINED = {"approved": True}, {"approved": False}


@pytest.fixture
def ada(assistants_service: Service) -> ApiUser:
    return assistants_service.user()


def interrupts_of(events: list[RunEvent]) -> list[dict[str, Any]]:
    """The open questions with which the run has ended."""
    assert events[-1]["type"] == "RUN_FINISHED"
    assert events[-1]["outcome"]["type"] == "interrupt"
    interrupts: list[dict[str, Any]] = events[-1]["outcome"]["interrupts"]
    return interrupts


def answer(interrupt: dict[str, Any], payload: Any = None) -> dict[str, Any]:
    """The answer to a question; without a payload it is cancelled."""
    if payload is None:
        return {"interruptId": interrupt["id"], "status": "cancelled"}
    return {"interruptId": interrupt["id"], "status": "resolved", "payload": payload}


async def resume(user: ApiUser, *answers: dict[str, Any], **members: Any) -> list[RunEvent]:
    return await run(user, run_input("t1", **{"resume": answers, **members}))


def results_of(events: list[RunEvent]) -> list[tuple[str, bool]]:
    """The call and whether it failed, of each result in the stream."""
    results = [event for event in events if event["type"] == "TOOL_CALL_RESULT"]
    return [(event["toolCallId"], "metadata" in event) for event in results]


async def statuses(user: ApiUser) -> list[str]:
    """The statuses of the turns of the only conversation, oldest first."""
    (conversation,) = await user.list_items("conversations")
    turns = await user.list_items(f"conversations/{conversation['id']}/turns")
    return [turn["status"] for turn in turns][::-1]


async def test_run_of_a_turn_that_waits_ends_with_an_interrupt(ada: ApiUser, model: ModelServer) -> None:
    model.script.append(MILK)
    events = await say(ada, "t1", "Buy milk", run_id="r1")
    (interrupt,) = interrupts_of(events)
    (approval,) = await ada.list_items("approvals")
    call = next(event for event in events if event["type"] == "TOOL_CALL_START")

    assert types(events)[-4:] == ["TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "RUN_FINISHED"]
    assert interrupt.pop("message") == "The assistant asks to call `add_task`."
    assert interrupt.pop("responseSchema")["required"] == ["approved"]
    assert interrupt == {
        "id": call["toolCallId"],
        "reason": "approval_required",
        "toolCallId": call["toolCallId"],
        "expiresAt": approval["expires_at"],
        "metadata": {"kind": "approval", "toolName": "add_task", "input": {"title": "Buy milk"}},
    }
    assert approval["id"] == call["toolCallId"]
    assert (await titles(ada), await statuses(ada)) == ([], ["waiting"])


async def test_approval_in_resume_makes_the_call_once_and_streams_the_rest_as_a_run(
    ada: ApiUser, model: ModelServer
) -> None:
    model.script += [MILK, says("It is ", "on the list.")]
    first = await say(ada, "t1", "Buy milk", "m1", run_id="r1")
    (interrupt,) = interrupts_of(first)
    body = run_input("t1", user_message("Buy milk", "m1"), run_id="r2", resume=[answer(interrupt, APPROVED)])
    second = await run(ada, body)
    repeated = await run(ada, body)
    messages = await thread_messages(ada, "t1")

    assert types(second)[:2] == ["RUN_STARTED", "TOOL_CALL_RESULT"]
    assert second[0] == first[0] | {"runId": "r2"}
    assert results_of(second) == [(interrupt["id"], False)]
    assert text_of(second) == "It is on the list."
    assert (second[-1]["type"], second[-1]["runId"], "outcome" in second[-1]) == ("RUN_FINISHED", "r2", False)
    assert repeated == second
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1]["id"] == first[0]["metadata"]["turnId"]
    assert messages[3]["id"] == second[2]["messageId"]
    assert await titles(ada) == ["Buy milk"]
    assert len(model.requests) == 2


@pytest.mark.parametrize("payload", [DECLINED, {**DECLINED, "reason": "Not now"}, None], ids=["no", "reason", "cancel"])
async def test_decline_in_resume_makes_no_call_and_tells_the_model(
    ada: ApiUser, model: ModelServer, payload: Any
) -> None:
    model.script += [MILK, says("Then not.")]
    (interrupt,) = interrupts_of(await say(ada, "t1", "Buy milk"))
    events = await resume(ada, answer(interrupt, payload))
    result = next(event for event in events if event["type"] == "TOOL_CALL_RESULT")

    assert '"code":"declined"' in result["content"]
    assert ("Not now" in result["content"]) == bool(payload and "reason" in payload)
    assert results_of(events) == [(interrupt["id"], True)]
    assert text_of(events) == "Then not."
    assert (await titles(ada), await statuses(ada)) == ([], ["completed"])


async def test_calls_of_one_step_are_decided_each_and_a_partial_resume_waits_for_the_rest(
    ada: ApiUser, model: ModelServer
) -> None:
    model.script += [BOTH, says("Done.")]
    first = await say(ada, "t1", "Buy both")
    milk, tea = interrupts_of(first)
    partial = await resume(ada, answer(milk, APPROVED))
    rest = await resume(ada, answer(tea, DECLINED))

    assert len(results_of(first)) == 1  # what needs no approval has run
    assert interrupts_of(partial) == [tea]
    assert results_of(partial) == [(milk["id"], False)]
    assert results_of(rest) == [(tea["id"], True)]
    assert text_of(rest) == "Done."
    assert await titles(ada) == ["Buy milk"]


async def test_several_answers_are_one_run(ada: ApiUser, model: ModelServer) -> None:
    model.script += [BOTH, says("Done.")]
    milk, tea = interrupts_of(await say(ada, "t1", "Buy both"))
    events = await resume(ada, answer(tea, APPROVED), answer(milk, APPROVED))

    assert sorted(results_of(events)) == sorted([(milk["id"], False), (tea["id"], False)])
    assert text_of(events) == "Done."
    assert sorted(await titles(ada)) == ["Buy milk", "Buy tea"]


@pytest.mark.parametrize("elsewhere", ["approve", "decline"])
async def test_question_that_was_decided_elsewhere_shows_that_decision(
    ada: ApiUser, model: ModelServer, elsewhere: str
) -> None:
    """The opposite decision has no effect. The run corrects the page: it shows the stored thread and turn."""
    model.script += [MILK, says("So be it.")]
    first = await say(ada, "t1", "Buy milk")
    (interrupt,) = interrupts_of(first)
    await decide_over_rest(ada, first[0]["metadata"]["turnId"], interrupt["id"], elsewhere)
    same = answer(interrupt, {"approved": elsewhere == "approve"})
    opposite = answer(interrupt, {"approved": elsewhere != "approve"})
    agreed = await resume(ada, same)
    refused = await resume(ada, opposite)

    assert text_of(agreed) == "So be it."
    assert types(refused) == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    assert refused[1]["messages"] == await thread_messages(ada, "t1")
    assert "outcome" not in refused[-1]
    assert await titles(ada) == (["Buy milk"] if elsewhere == "approve" else [])
    assert len(model.requests) == 2


@pytest.mark.parametrize("interrupt_id", ["no id", "0198f3c0-a7b4-7c1e-8d2f-3a4b5c6d7e8f"])
async def test_unknown_interrupt_has_no_effect_and_shows_what_is_open(
    ada: ApiUser, model: ModelServer, interrupt_id: str
) -> None:
    model.script.append(MILK)
    interrupts = interrupts_of(await say(ada, "t1", "Buy milk"))
    unknown = {"interruptId": interrupt_id, "status": "resolved", "payload": APPROVED}
    events = await resume(ada, unknown)

    assert types(events) == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    assert interrupts_of(events) == interrupts
    assert await titles(ada) == []


async def test_answer_to_a_question_of_another_user_has_no_effect(
    ada: ApiUser, assistants_service: Service, model: ModelServer
) -> None:
    bob = assistants_service.user()
    model.script += [MILK, MILK]
    (of_ada,) = interrupts_of(await say(ada, "t1", "Buy milk"))
    (of_bob,) = interrupts_of(await say(bob, "t1", "Buy milk"))
    events = await resume(bob, answer(of_ada, APPROVED))

    assert interrupts_of(events) == [of_bob]
    assert interrupts_of(await run(ada, run_input("t1"))) == [of_ada]
    assert (await titles(ada), await titles(bob)) == ([], [])


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        (None, "$.resume[0].payload"),
        (True, "$.resume[0].payload"),
        ({}, "$.resume[0].payload"),
        ({"approved": "yes"}, "$.resume[0].payload.approved"),
        ({"approved": True, "editedArgs": {"title": "Buy gold"}}, "$.resume[0].payload.editedArgs"),
        ({"approved": True, "reason": "x" * 1001}, "$.resume[0].payload.reason"),
    ],
)
async def test_answer_that_is_no_decision_on_the_call_as_shown_is_refused(
    ada: ApiUser, model: ModelServer, payload: Any, path: str
) -> None:
    model.script.append(MILK)
    (interrupt,) = interrupts_of(await say(ada, "t1", "Buy milk"))
    entry = {"interruptId": interrupt["id"], "status": "resolved", "payload": payload}
    response = await ada.post(API, json=run_input("t1", resume=[entry]))

    assert response.status_code == 422
    assert [error["path"] for error in response.json()["errors"]] == [path]
    assert (await titles(ada), await statuses(ada)) == ([], ["waiting"])


async def test_thread_that_is_loaded_while_the_turn_waits_has_the_open_question(
    ada: ApiUser, model: ModelServer
) -> None:
    model.script += [MILK, says("It is on the list.")]
    first = await say(ada, "t1", "Buy milk", "m1", run_id="r1")
    interrupts = interrupts_of(first)
    loaded = await run(ada, run_input("t1"))
    again = await say(ada, "t1", "Buy milk", "m1", run_id="r3")
    by_run = events_of(await ada.get(API, params={"runId": "r1"}))
    thread = (await ada.get(f"{API}/t1")).json()
    hydrated = (await ada.get(API, params={"threadId": "t1"})).json()
    answered = await resume(ada, answer(interrupts[0], APPROVED))

    assert types(loaded) == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    assert [message["role"] for message in loaded[1]["messages"]] == ["user", "assistant"]
    assert [interrupts_of(events) for events in (loaded, again, by_run)] == [interrupts] * 3
    assert by_run == first
    assert (thread["interrupts"], thread["activeTurnId"]) == (interrupts, None)
    assert hydrated["interrupts"] == {"runId": "r1", "pending": interrupts}
    assert hydrated["activeRun"] is None
    assert hydrated["messages"][-1]["parts"][-1]["state"] == "approval-requested"
    assert text_of(answered) == "It is on the list."
    assert (await ada.get(API, params={"threadId": "t1"})).json()["interrupts"] is None
    assert (await ada.get(f"{API}/t1")).json()["interrupts"] == []


async def test_further_message_declines_the_open_question(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK, says("As you like.")]
    (interrupt,) = interrupts_of(await say(ada, "t1", "Buy milk"))
    events = await say(ada, "t1", "Never mind", "m2", resume=[answer(interrupt)])
    late = await resume(ada, answer(interrupt, APPROVED))

    assert text_of(events) == "As you like."
    assert await statuses(ada) == ["cancelled", "completed"]
    assert types(late) == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    assert '"code":"declined"' in (await thread_messages(ada, "t1"))[2]["content"]
    assert await titles(ada) == []


async def test_approval_before_a_further_message_is_made(ada: ApiUser, model: ModelServer) -> None:
    model.script += [BOTH, says("As you like."), says("As you like.")]
    milk, tea = interrupts_of(await say(ada, "t1", "Buy both"))
    body = run_input("t1", user_message("And hurry", "m2"), resume=[answer(milk, APPROVED), answer(tea)])
    events = await run(ada, body)
    repeated = await run(ada, body)

    assert text_of(events) == "As you like."
    assert repeated[1]["messages"] == await thread_messages(ada, "t1")
    assert await titles(ada) == ["Buy milk"]
    assert await statuses(ada) == ["cancelled", "completed"]


async def test_cancelled_turn_has_no_open_question(ada: ApiUser, model: ModelServer) -> None:
    model.script.append(MILK)
    events = await say(ada, "t1", "Buy milk")
    (interrupt,) = interrupts_of(events)
    cancelled = await ada.post(f"turns/{events[0]['metadata']['turnId']}/cancel")
    late = await resume(ada, answer(interrupt, APPROVED))

    assert cancelled.json()["status"] == "cancelled"
    assert types(late) == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    assert await titles(ada) == []


async def test_resumed_run_that_is_cut_has_exactly_the_rest_after_an_event(ada: ApiUser, model: ModelServer) -> None:
    model.script += [MILK, says("It is ", "on the list.")]
    first = frames_of(await ada.post(API, json=run_input("t1", user_message("Buy milk"), run_id="r1")))
    (interrupt,) = interrupts_of([event for _, event in first])
    body = run_input("t1", run_id="r2", resume=[answer(interrupt, APPROVED)])
    whole = frames_of(await ada.post(API, json=body))

    for place, (id, _) in enumerate(whole):
        assert frames_of(await ada.post(API, json=body, headers={"last-event-id": id})) == whole[place + 1 :]
    assert not {id for id, _ in first} & {id for id, _ in whole}
    assert await titles(ada) == ["Buy milk"]


async def test_concurrent_answers_make_the_call_once(ada: ApiUser, model: ModelServer, gate: Event) -> None:
    model.script += [MILK, says("It is on the list.").held(gate)]
    (interrupt,) = interrupts_of(await say(ada, "t1", "Buy milk"))
    answers = [resume(ada, answer(interrupt, payload)) for payload in [APPROVED, DECLINED, APPROVED, DECLINED]]
    runs = [asyncio.create_task(each) for each in answers]
    await model.wait_for_requests(2)
    gate.set()
    streams = await asyncio.gather(*runs)

    assert all(text_of(events).endswith("It is on the list.") for events in streams)
    assert len(await titles(ada)) <= 1
    assert len(model.requests) == 2
    (result,) = [message for message in await thread_messages(ada, "t1") if message["role"] == "tool"]
    assert ('"code":"declined"' in result["content"]) == (await titles(ada) == [])


async def test_answer_to_an_expired_question_has_no_effect_and_the_turn_goes_on_without_the_call(
    shared_database_url: str, assistants_file: Path, model: ModelServer
) -> None:
    model.script += [MILK, says("Then not.")]
    variables = {"LATCHKEY_ASSISTANTS": str(assistants_file), "LATCHKEY_APPROVAL_TTL_S": "1", **model_variables(model)}
    async with run_service(settings_for(shared_database_url, **variables)) as service:
        ada = service.user()
        (interrupt,) = interrupts_of(await say(ada, "t1", "Buy milk"))

        async def is_expired() -> bool:
            return await ada.list_items("approvals") == []

        await wait_until(is_expired)
        events = await resume(ada, answer(interrupt, APPROVED))
        messages, tasks = await thread_messages(ada, "t1"), await titles(ada)

    assert types(events)[:2] == ["RUN_STARTED", "MESSAGES_SNAPSHOT"]
    assert text_of(events).endswith("Then not.")
    assert '"code":"declined"' in messages[2]["content"]
    assert tasks == []
