"""Titles of conversations: from the message, from the model, and never in place of one that a person has given."""

import asyncio
from asyncio import Event
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.model_script import Step, calls, fails, says
from tests.fakes.model_server import ModelServer
from tests.polling import wait_until
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

FILE = """
[assistant.default]
titles = "model"
"""
MESSAGE = "Please buy milk,   and eggs, and all that one needs for a large\ncake"
FROM_MESSAGE = "Please buy milk, and eggs, and all that one needs for a…"


@pytest.fixture
def ada(model_service: Service) -> ApiUser:
    return model_service.user()


@pytest_asyncio.fixture(loop_scope="session")
async def titling_service(
    shared_database_url: str, shared_model: ModelServer, tmp_path: Path
) -> AsyncIterator[Service]:
    """A service whose assistant asks the model for titles."""
    (tmp_path / "assistants.toml").write_text(FILE)
    variables = {**model_variables(shared_model), "LATCHKEY_ASSISTANTS": str(tmp_path / "assistants.toml")}
    async with run_service(settings_for(shared_database_url, **variables)) as service:
        yield service


async def title_in(user: ApiUser, conversation_id: str) -> str | None:
    title: str | None = (await user.get(f"conversations/{conversation_id}")).json()["title"]
    return title


async def titles_are_written(service: Service) -> None:
    await wait_until(lambda: _has_no_titles_to_write(service))


async def _has_no_titles_to_write(service: Service) -> bool:
    return not service.asgi._runner._titles.tasks


async def test_title_is_made_from_the_first_message_that_is_answered(ada: ApiUser, model: ModelServer) -> None:
    """It stays with later messages. A turn that fails makes none."""
    model.script += [fails(400), says("Sure."), says("Yes.")]
    failed = await ada.post("chat", json={"message": "First"})
    conversation_id = failed.json()["conversation_id"]
    before = await title_in(ada, conversation_id)
    await ada.chat(MESSAGE, conversation_id=conversation_id)
    after = await title_in(ada, conversation_id)
    await ada.chat("And then?", conversation_id=conversation_id)
    later = await title_in(ada, conversation_id)

    assert (before, after, later) == (None, FROM_MESSAGE, FROM_MESSAGE)
    assert [item["title"] for item in await ada.list_items("conversations")] == [FROM_MESSAGE]


async def test_title_of_a_turn_that_creates_a_file_is_made_from_its_message(ada: ApiUser, model: ModelServer) -> None:
    model.script += [calls(("save_artifact", '{"title": "Plan", "content_markdown": "# Plan"}')), says("It is there.")]
    answer = await ada.chat("Write a plan", artifact_generation=True)

    assert await title_in(ada, answer["conversation_id"]) == "Write a plan"


async def test_title_that_a_person_gave_stays(ada: ApiUser, model: ModelServer) -> None:
    """A title that is set before the turn, or while it runs."""
    release = Event()
    model.script += [says("Sure."), says("Sure.").held(release)]
    named = await ada.create("conversations", title="Mine")
    await ada.chat("Hello", conversation_id=named["id"])
    unnamed = await ada.create("conversations")
    waiting = asyncio.create_task(ada.chat("Hello", conversation_id=unnamed["id"]))
    await model.wait_for_requests(2)
    await ada.patch(f"conversations/{unnamed['id']}", json={"title": "Mine too"})
    release.set()
    await waiting

    assert [await title_in(ada, id) for id in (named["id"], unnamed["id"])] == ["Mine", "Mine too"]


async def test_title_by_the_model_is_asked_for_once_and_without_tools(
    titling_service: Service, model: ModelServer
) -> None:
    ada = titling_service.user()
    model.script += [says("Sure."), says('"Milk and ', 'eggs"\n'), says("Yes.")]
    conversation_id = (await ada.chat(MESSAGE))["conversation_id"]
    await titles_are_written(titling_service)
    request = model.requests[1]
    title = await title_in(ada, conversation_id)
    await ada.chat("And then?", conversation_id=conversation_id)
    await titles_are_written(titling_service)
    (system, *texts) = [text for _, text in request.conversation]
    turns = await ada.list_items(f"conversations/{conversation_id}/turns")

    assert title == "Milk and eggs"
    assert system.startswith("You name conversations.")
    assert ("Please buy milk" in texts[0], "Sure." in texts[0], len(texts)) == (True, True, 1)
    assert (request.tools, len(model.requests)) == ([], 3)
    assert [turn["usage"]["requests"] for turn in turns] == [1, 1]


UNUSABLE: dict[str, Step] = {
    "failure": fails(400),
    "cut": says("Half a").cut(),
    "blank": says(' "" \n'),
    "tool call": calls(("add_task", '{"title": "Buy milk"}')),
}


@pytest.mark.parametrize("step", UNUSABLE.values(), ids=UNUSABLE)
async def test_title_is_made_from_the_message_if_the_model_gives_none(
    titling_service: Service, model: ModelServer, step: Step
) -> None:
    ada = titling_service.user()
    model.script += [says("Sure."), step]
    conversation_id = (await ada.chat(MESSAGE))["conversation_id"]
    await titles_are_written(titling_service)

    assert await title_in(ada, conversation_id) == FROM_MESSAGE
    assert await ada.list_items("tasks") == []


async def test_title_by_the_model_is_not_written_over_one_that_a_person_gave_meanwhile(
    titling_service: Service, model: ModelServer, gate: Event
) -> None:
    ada = titling_service.user()
    model.script += [says("Sure."), says("Milk").held(gate)]
    conversation_id = (await ada.chat(MESSAGE))["conversation_id"]
    await model.wait_for_requests(2)
    await ada.patch(f"conversations/{conversation_id}", json={"title": "Mine"})
    gate.set()
    await titles_are_written(titling_service)

    assert await title_in(ada, conversation_id) == "Mine"


async def test_title_by_the_model_of_a_deleted_conversation_is_dropped(
    titling_service: Service, model: ModelServer, gate: Event
) -> None:
    ada = titling_service.user()
    model.script += [says("Sure."), says("Milk").held(gate)]
    conversation_id = (await ada.chat(MESSAGE))["conversation_id"]
    await model.wait_for_requests(2)
    await ada.delete(f"conversations/{conversation_id}")
    gate.set()
    await titles_are_written(titling_service)

    assert (await ada.get(f"conversations/{conversation_id}")).status_code == 404


async def test_drain_waits_for_a_title_and_its_timeout_makes_it_from_the_message(
    titling_service: Service, model: ModelServer, gate: Event
) -> None:
    ada, runner = titling_service.user(), titling_service.asgi._runner
    model.script += [says("Sure."), says("Milk").held(gate)]
    conversation_id = (await ada.chat(MESSAGE))["conversation_id"]
    await model.wait_for_requests(2)
    draining = asyncio.create_task(runner.drain())
    await asyncio.wait([draining], timeout=0.1)
    has_drained_before = draining.done()
    await runner.aclose()
    await draining

    assert (has_drained_before, await title_in(ada, conversation_id)) == (False, FROM_MESSAGE)
