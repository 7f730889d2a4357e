"""Isolation of two users of a real identity provider (Better Auth), over REST, MCP and chat."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.identity.better_auth import BetterAuth, SignedUpUser
from tests.support.operations import LISTINGS
from tests.support.service import ApiUser, Service, run_service, settings_for

ADD_MILK = '/add_task {"title": "Buy milk"}'


@pytest.fixture
async def service(database_url: str, provider: BetterAuth) -> AsyncIterator[Service]:
    async with run_service(settings_for(database_url, **provider.variables)) as service:
        yield service


async def test_isolation_each_user_sees_their_own_data_on_every_interface(
    service: Service, ada: SignedUpUser, bob: SignedUpUser
) -> None:
    """REST, MCP and the tool calls of the agent."""
    tokens = {ada.user_id: await ada.token(), bob.user_id: await bob.token()}
    titles: dict[str, list[str]] = {}
    for whose, title in ((ada.user_id, "Ada's own"), (bob.user_id, "Bob's own")):
        user = ApiUser(whose, tokens[whose], service.client)
        await user.create("tasks", title=title)
        answer = await user.chat(ADD_MILK)
        async with service.mcp_client(user.token) as client:
            await client.call_tool("add_task", {"title": f"{title}, by MCP"})
            listed = (await client.call_tool("list_tasks", {})).structured_content
        assert listed is not None
        assert answer["tool_calls"][0]["result"]["title"] == "Buy milk"
        assert listed["items"] == await user.list_items("tasks")
        titles[whose] = sorted(task["title"] for task in listed["items"])

    assert titles == {
        ada.user_id: ["Ada's own", "Ada's own, by MCP", "Buy milk"],
        bob.user_id: ["Bob's own", "Bob's own, by MCP", "Buy milk"],
    }


async def test_isolation_path_of_another_user_is_forbidden(
    service: Service, ada: SignedUpUser, bob: SignedUpUser
) -> None:
    """The response is the same for a user who exists and for one who does not, and for every request."""
    token, theirs = await ada.token(), ApiUser(bob.user_id, await bob.token(), service.client)
    await theirs.create("tasks", title="Bob's own")
    answers = []
    for target in (ApiUser(bob.user_id, token, service.client), ApiUser("unknown-user", token, service.client)):
        answers += [await target.get(listing) for listing in LISTINGS]
        answers += [await target.post("chat", json={"message": ADD_MILK})]
        answers += [await target.post("tasks", json={"title": "x"})]

    assert {(response.status_code, response.json()["code"], response.json()["detail"]) for response in answers} == {
        (403, "wrong-user", "The path names another user than the bearer token.")
    }
    assert [task["title"] for task in await theirs.list_items("tasks")] == ["Bob's own"]


async def test_context_token_of_a_provider_user_is_limited_to_its_grants_and_to_mcp(
    service: Service, ada: SignedUpUser
) -> None:
    """The user authenticated with a token of the identity provider."""
    user = ApiUser(ada.user_id, await ada.token(), service.client)
    minted = await user.create("context-tokens", grants=["tasks:read"])
    async with service.mcp_client(minted["token"]) as client:
        offered = [tool.name for tool in (await client.list_tools()).tools]

    assert offered == ["list_tasks"]
    assert (await ApiUser(ada.user_id, minted["token"], service.client).get("tasks")).status_code == 401
