"""Two people sign up with a real identity provider: each opens exactly their own door, by every way in."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.identity.better_auth import BetterAuth, Member
from tests.support.service import ApiUser, Service, run_service, settings_for

ADD_MILK = '/add_task {"title": "Buy milk"}'


@pytest.fixture
async def service(database_url: str, provider: BetterAuth) -> AsyncIterator[Service]:
    async with run_service(settings_for(database_url, **provider.variables)) as service:
        yield service


async def test_each_opens_exactly_their_own_door(service: Service, ada: Member, bob: Member) -> None:
    """By REST, by MCP, and by what the agent does for them."""
    tokens = {ada.user_id: await ada.token(), bob.user_id: await bob.token()}
    seen: dict[str, list[str]] = {}
    for whose, title in ((ada.user_id, "Ada's own"), (bob.user_id, "Bob's own")):
        person = ApiUser(whose, tokens[whose], service.client)
        await person.create("tasks", title=title)
        said = await person.chat(ADD_MILK)
        async with service.mcp_client(person.token) as client:
            await client.call_tool("add_task", {"title": f"{title}, by MCP"})
            listed = (await client.call_tool("list_tasks", {})).structured_content
        assert listed is not None
        assert said["tool_calls"][0]["result"]["title"] == "Buy milk"
        assert listed["items"] == await person.list_items("tasks")
        seen[whose] = sorted(task["title"] for task in listed["items"])

    assert seen == {
        ada.user_id: ["Ada's own", "Ada's own, by MCP", "Buy milk"],
        bob.user_id: ["Bob's own", "Bob's own, by MCP", "Buy milk"],
    }


async def test_the_other_door_stays_shut(service: Service, ada: Member, bob: Member) -> None:
    """Whether there is anybody behind it or not, and whatever is asked."""
    key, theirs = await ada.token(), ApiUser(bob.user_id, await bob.token(), service.client)
    await theirs.create("tasks", title="Bob's own")
    answers = []
    for door in (ApiUser(bob.user_id, key, service.client), ApiUser("nobody-at-all", key, service.client)):
        answers += [await door.get(what) for what in ("tasks", "conversations", "artifacts", "context-tokens")]
        answers += [await door.post("chat", json={"message": ADD_MILK}), await door.post("tasks", json={"title": "x"})]

    assert {(one.status_code, one.json()["code"], one.json()["detail"]) for one in answers} == {
        (403, "wrong-user", "The path names another user than the bearer token.")
    }
    assert [task["title"] for task in await theirs.list_items("tasks")] == ["Bob's own"]


async def test_a_person_may_hand_out_a_smaller_key(service: Service, ada: Member) -> None:
    """A context token of somebody whom the provider vouches for opens what it grants, over MCP alone."""
    person = ApiUser(ada.user_id, await ada.token(), service.client)
    minted = await person.create("context-tokens", grants=["tasks:read"])
    async with service.mcp_client(minted["token"]) as client:
        offered = [tool.name for tool in (await client.list_tools()).tools]

    assert offered == ["list_tasks"]
    assert (await ApiUser(ada.user_id, minted["token"], service.client).get("tasks")).status_code == 401
