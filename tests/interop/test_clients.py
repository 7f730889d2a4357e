"""Third-party MCP clients connect, use all tools and resources, and are refused what their token does not grant."""

import asyncio
import re
from functools import partial
from uuid import UUID

import pytest

from tests.interop.check_counter import Checks
from tests.interop.client import Endpoint, Refused
from tests.interop.client_matrix import CLIENT_MATRIX, ClientConfiguration
from tests.interop.service import PLAN, InteropService
from tests.support.tools import ALL_GRANTS, TOOLS

UNUSED_ID = str(UUID(int=0))
REFUSAL_MESSAGE = re.compile("unauthenticated|HTTP 401|revoked|closed|latchkey: failed")
MILK = "Milk — 牛乳 🥛"

pytestmark = pytest.mark.parametrize("configuration", CLIENT_MATRIX, ids=str)


async def test_client_with_all_grants_uses_every_tool_and_resource(
    configuration: ClientConfiguration, service: InteropService, checks: Checks
) -> None:
    """Over HTTP with the JWT of the user, over stdio with a context token that has every grant."""
    equal = partial(checks.equal, configuration.client)
    user = await asyncio.to_thread(service.new_user)
    uris = await asyncio.to_thread(user.create_resources)
    bearer = (
        user.token
        if configuration.transport == "http"
        else await asyncio.to_thread(user.create_context_token, *ALL_GRANTS)
    )

    async with configuration.connect(service.endpoint(configuration.transport, bearer), configuration.era) as client:
        if client.version is not None:
            equal("protocol version", client.version, configuration.version)
        equal("tools", sorted(await client.tools()), sorted(TOOLS))
        added = (await client.call("add_task", {"title": MILK})).content
        equal("title of the new task", added["title"], MILK)
        equal("listed tasks", (await client.call("list_tasks", {})).content["items"], [added])
        done = await client.call("complete_task", {"task_id": added["id"]})
        equal("status", (done.is_error, done.content["status"]), (False, "completed"))
        wrong = await client.call("complete_task", {"task_id": UNUSED_ID})
        expected = {"code": "not-found", "detail": "There is no such task."}
        equal("unknown id", (wrong.is_error, wrong.content), (True, expected))
        equal("resources", await client.resources(), uris)
        equal("artifact", await client.read(uris[0]), PLAN["content_markdown"])

    equal("stored tasks", await asyncio.to_thread(lambda: user.tasks), [(MILK, "completed", 2)])


async def test_client_with_read_only_token_can_only_list_tasks(
    configuration: ClientConfiguration, service: InteropService, checks: Checks
) -> None:
    equal = partial(checks.equal, configuration.client)
    user = await asyncio.to_thread(service.new_user)
    task = (await asyncio.to_thread(user.request, "POST", "tasks", json={"title": MILK})).json()
    bearer = await asyncio.to_thread(user.create_context_token, "tasks:read")
    await asyncio.to_thread(user.create_resources)

    async with configuration.connect(service.endpoint(configuration.transport, bearer), configuration.era) as client:
        equal("tools", await client.tools(), ["list_tasks"])
        equal("listed tasks", (await client.call("list_tasks", {})).content["items"], [task])
        for name, arguments in (("add_task", {"title": "No"}), ("delete_task", {"task_id": task["id"]})):
            with pytest.raises(Refused) as refused:
                await client.call(name, arguments)
            equal("tool name in the error", name in str(refused.value), expected=True)
        equal("resources", await client.resources(), [])

    equal("stored tasks", await asyncio.to_thread(lambda: user.tasks), [(MILK, "pending", 1)])


async def test_client_with_revoked_token_reports_the_refusal(
    configuration: ClientConfiguration, service: InteropService, checks: Checks
) -> None:
    """It neither hangs nor behaves as if it were connected."""
    user = await asyncio.to_thread(service.new_user)
    bearer = await asyncio.to_thread(user.create_context_token, "tasks:read")
    (minted,) = (await asyncio.to_thread(user.request, "GET", "context-tokens")).json()["items"]
    await asyncio.to_thread(user.request, "DELETE", f"context-tokens/{minted['id']}")

    output = await _refusal(configuration, service.endpoint(configuration.transport, bearer))

    checks.equal(
        configuration.client, f"reason in the error: {output}", bool(REFUSAL_MESSAGE.search(output)), expected=True
    )


async def _refusal(configuration: ClientConfiguration, endpoint: Endpoint) -> str:
    """The error on connection or, in an era without a handshake, on the first request."""
    try:
        async with configuration.connect(endpoint, configuration.era) as client:
            try:
                await client.tools()
            except Refused as refused:
                return str(refused)
    except Refused as refused:
        return str(refused)
    pytest.fail("The client was not refused.")
