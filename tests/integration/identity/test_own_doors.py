"""Two people sign up with a real identity provider: each opens exactly their own door, by every way in."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.http.service import Person, Service, serving, settings_for
from tests.integration.identity.better_auth import BetterAuth, Member

ADD_MILK = '/add_task {"title": "Buy milk"}'


@pytest.fixture
async def service(database_url: str, provider: BetterAuth) -> AsyncIterator[Service]:
    async with serving(settings_for(database_url, **provider.variables)) as service:
        yield service


async def test_each_opens_exactly_their_own_door(service: Service, ada: Member, bob: Member) -> None:
    """By REST, by MCP, and by what the agent does for them."""
    tokens = {ada.user_id: await ada.token(), bob.user_id: await bob.token()}
    seen: dict[str, list[str]] = {}
    for whose, title in ((ada.user_id, "Ada's own"), (bob.user_id, "Bob's own")):
        person = Person(whose, tokens[whose], service.client)
        await person.made("tasks", title=title)
        said = await person.said(ADD_MILK)
        async with service.mcp(person.token) as client:
            await client.call_tool("add_task", {"title": f"{title}, by MCP"})
            listed = (await client.call_tool("list_tasks", {})).structured_content
        assert listed is not None
        assert said["tool_calls"][0]["result"]["title"] == "Buy milk"
        assert listed["items"] == await person.items("tasks")
        seen[whose] = sorted(task["title"] for task in listed["items"])

    assert seen == {
        ada.user_id: ["Ada's own", "Ada's own, by MCP", "Buy milk"],
        bob.user_id: ["Bob's own", "Bob's own, by MCP", "Buy milk"],
    }


async def test_the_other_door_stays_shut(service: Service, ada: Member, bob: Member) -> None:
    """Whether there is anybody behind it or not, and whatever is asked."""
    key, theirs = await ada.token(), Person(bob.user_id, await bob.token(), service.client)
    await theirs.made("tasks", title="Bob's own")
    answers = []
    for door in (Person(bob.user_id, key, service.client), Person("nobody-at-all", key, service.client)):
        answers += [await door.get(what) for what in ("tasks", "conversations", "artifacts", "context-tokens")]
        answers += [await door.post("chat", json={"message": ADD_MILK}), await door.post("tasks", json={"title": "x"})]

    assert {(one.status_code, one.json()["code"], one.json()["detail"]) for one in answers} == {
        (403, "wrong-user", "The path names another user than your token.")
    }
    assert [task["title"] for task in await theirs.items("tasks")] == ["Bob's own"]


async def test_a_person_may_hand_out_a_smaller_key(service: Service, ada: Member) -> None:
    """A context token of somebody whom the provider vouches for opens what it grants, over MCP alone."""
    person = Person(ada.user_id, await ada.token(), service.client)
    minted = await person.made("context-tokens", grants=["tasks:read"])
    async with service.mcp(minted["token"]) as client:
        offered = [tool.name for tool in (await client.list_tools()).tools]

    assert offered == ["list_tasks"]
    assert (await Person(ada.user_id, minted["token"], service.client).get("tasks")).status_code == 401
