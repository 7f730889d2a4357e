"""Questions of AI SDK pages that expire, and approved calls that take time: of tools outside a transaction."""

import asyncio
from pathlib import Path

import pytest

from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.fakes.shop_server import shop_server
from tests.integration.http.ai_sdk.chat import (
    answer,
    calls_of,
    chunks,
    decide,
    post_decisions,
    responded,
    say,
    text_of,
    types,
)
from tests.polling import wait_until
from tests.support.service import model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

BELL = calls(("order_item", '{"sku": "bell"}'))


def assistants_file(folder: Path, tool: str) -> str:
    """A file with an assistant that asks before it calls its only tool."""
    file = folder / "assistants.toml"
    file.write_text(f'[assistant.careful]\ntools = ["{tool}"]\napprove = ["{tool}"]\n')
    return str(file)


async def test_expired_question_is_declined_and_its_page_is_shown_the_rest(
    database_url: str, model: ModelServer, tmp_path: Path
) -> None:
    variables = {
        **model_variables(model),
        "LATCHKEY_APPROVAL_TTL_S": "1",
        "LATCHKEY_ASSISTANTS": assistants_file(tmp_path, "add_task"),
    }
    async with run_service(settings_for(database_url, **variables)) as service:
        ada = service.user()
        model.script += [calls(("add_task", '{"title": "Buy milk"}')), says("Too late.")]
        await say(ada, "c1", "Buy milk", "m1", assistant="careful")
        asked = responded(await answer(ada), "approve")

        async def has_expired() -> bool:
            return not await ada.list_items("approvals")

        await wait_until(has_expired)
        stream = chunks(await post_decisions(ada, asked))
        shown = await answer(ada)

        assert types(stream)[:2] == ["start", "tool-output-denied"]
        assert text_of(stream) == "Too late."
        assert ([call["state"] for call in calls_of(shown)], shown["metadata"]["status"]) == (
            ["output-denied"],
            "completed",
        )
        assert await ada.list_items("tasks") == []


async def test_approved_call_outside_a_transaction_is_shown_as_approved_until_it_has_a_result(
    database_url: str, model: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        **model_variables(model),
        "LATCHKEY_APP": "tests.apps.shop:app",
        "LATCHKEY_ASSISTANTS": assistants_file(tmp_path, "order_item"),
    }
    async with shop_server() as shop:
        monkeypatch.setenv("SHOP_URL", shop.url)
        async with run_service(settings_for(database_url, **variables), validate=False) as service:
            ada = service.user()
            model.script += [BELL, says("Ordered.")]
            await say(ada, "c1", "Buy a bell", "m1", assistant="careful")
            deciding = asyncio.create_task(decide(ada, "approve"))
            await shop.received.wait()
            running = await answer(ada)
            shop.is_open.set()
            stream = await deciding

            assert [call["state"] for call in calls_of(running)] == ["approval-responded"]
            assert types(stream)[:4] == ["start", "tool-output-available", "finish-step", "start-step"]
            assert text_of(stream) == "Ordered."
            assert shop.orders == 1


async def test_approval_is_a_conflict_if_the_assistant_no_longer_exists_and_the_call_can_be_declined(
    database_url: str, model: ModelServer, tmp_path: Path
) -> None:
    """No decision was made, so that there is nothing to show in place of the page's own."""
    variables = model_variables(model)
    model.script += [calls(("add_task", '{"title": "Buy milk"}'))]
    with_assistant = {**variables, "LATCHKEY_ASSISTANTS": assistants_file(tmp_path, "add_task")}
    async with run_service(settings_for(database_url, **with_assistant)) as service:
        user_id = service.user().user_id
        await say(service.user(user_id), "c1", "Buy milk", "m1", assistant="careful")
    async with run_service(settings_for(database_url, **variables)) as service:
        ada = service.user(user_id)
        asked = await answer(ada)
        approved = await post_decisions(ada, responded(asked, "approve"))
        open_questions = await ada.list_items("approvals")
        declined = chunks(await post_decisions(ada, responded(asked, "decline")))

        assert (approved.status_code, approved.json()["code"]) == (409, "conflict")
        assert [question["id"] for question in open_questions] == [calls_of(asked)[0]["toolCallId"]]
        assert types(declined)[:2] == ["start", "tool-output-denied"]
        assert await ada.list_items("tasks") == []
