"""Third-party clients ask the user before they call a tool that needs approval, and send the decision back."""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.interop.check_counter import Checks
from tests.interop.client import HttpEndpoint
from tests.interop.client_matrix import CLIENT_MATRIX, ClientConfiguration
from tests.interop.service import InteropService, InteropUser, interop_service

APPROVE: dict[str, Any] = {"action": "accept", "content": {"approve": True}}
UNCHECKED: dict[str, Any] = {"action": "accept", "content": {"approve": False}}
DECLINE: dict[str, Any] = {"action": "decline"}

ASKING = ("TypeScript SDK 1", "TypeScript SDK 2", "Python SDK", "fastmcp")
"""The clients that the tests give a handler for elicitations."""

pytestmark = pytest.mark.parametrize(
    "configuration",
    [each for each in CLIENT_MATRIX if each.transport == "http" and each.client in ASKING],
    ids=str,
)


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteropService]:
    """A service whose app has tools that ask."""
    home = tmp_path_factory.mktemp("guarded") / "home"
    home.mkdir()
    with interop_service(home, LATCHKEY_APP="tests.apps.guarded:app") as service:
        yield service


async def publish(
    configuration: ClientConfiguration, user: InteropUser, text: str, answer: dict[str, Any] | None
) -> Any:
    """Call the tool, and return the content of its result or the code of its error."""
    endpoint = HttpEndpoint(f"{user.service.replica.url}/mcp", user.token, answer)
    async with configuration.connect(endpoint, configuration.era) as client:
        result = await client.call("publish", {"text": text})
    return result.content["code"] if result.is_error else result.content["title"]


async def test_client_asks_before_a_call_that_needs_approval(
    configuration: ClientConfiguration, guarded: InteropService, checks: Checks
) -> None:
    """With the older protocol, and without a handler, it gets a tool error that says where to approve."""
    equal = partial(checks.equal, configuration.client)
    user = await asyncio.to_thread(guarded.new_user)
    is_asked = configuration.era != "legacy"

    outcome = await publish(configuration, user, "Approved", APPROVE)
    equal("approved", outcome, "Approved" if is_asked else "approval-required")
    for name, answer in {"declined": DECLINE, "not checked": UNCHECKED}.items():
        outcome = await publish(configuration, user, name, answer)
        equal(name, outcome, "declined" if is_asked else "approval-required")
    equal("no handler", await publish(configuration, user, "No handler", None), "approval-required")

    titles = [title for title, *_ in await asyncio.to_thread(lambda: user.tasks)]
    equal("stored tasks", titles, ["Approved"] if is_asked else [])
