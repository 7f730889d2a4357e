"""The console of `latchkey serve --dev` in Chromium."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
import pytest_asyncio

from tests.browser.browser_driver import BrowserDriver
from tests.e2e.service_process import running_service

ASSISTANTS = """
[assistant.shop]
title = "Bicycle shop"
models = ["large", "small"]
tools = ["list_tasks"]

[assistant.careful]
title = "Careful"
approve = ["delete_task"]
"""

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def dev_url(driver: BrowserDriver, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    home = tmp_path_factory.mktemp("dev") / "home"
    home.mkdir()
    (home / "assistants.toml").write_text(ASSISTANTS)
    with ExitStack() as stack:
        settings = {"LATCHKEY_ASSISTANTS": "assistants.toml"}
        service = running_service("--dev", home=home, environment=settings, ready="curl -s")
        yield (await asyncio.to_thread(stack.enter_context, service)).url


@pytest.mark.parametrize(
    "name",
    [
        "message_and_tool_call_within_a_minute",
        "assistant_is_chosen",
        "task_is_deleted_after_approval_and_restored",
        "earlier_messages_are_shown_on_request",
        "renews_its_token_by_itself",
        "goes_on_without_a_refused_token",
        "page_of_another_port_gets_no_token",
    ],
)
async def test_dev_console_scenario_in_browser_succeeds(name: str, driver: BrowserDriver, dev_url: str) -> None:
    await driver.run("dev/console", name, {"user": {"id": "me", "token": ""}, "url": dev_url}, {})
