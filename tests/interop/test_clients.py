"""Clients that nobody here wrote come in, do a person's work, and find no door open that is not theirs."""

import asyncio
import re
from functools import partial
from uuid import UUID

import pytest

from tests.interop.guest import Door, TurnedAway
from tests.interop.place import ALL_GRANTS, PLAN, Place
from tests.interop.tally import Checks
from tests.interop.ways import WAYS, Way
from tests.support.tools import TOOLS

NOBODYS = str(UUID(int=0))
HONEST = re.compile("unauthenticated|HTTP 401|revoked|closed|latchkey: failed")
MILK = "Milk — 牛乳 🥛"

pytestmark = pytest.mark.parametrize("way", WAYS, ids=str)


async def test_a_client_does_all_that_its_person_may(way: Way, place: Place, checks: Checks) -> None:
    """With the person's own JWT over HTTP, and over stdio with a context token of every grant."""
    equal = partial(checks.equal, way.client)
    person = await asyncio.to_thread(place.person)
    shelf = await asyncio.to_thread(person.shelve)
    bearer = person.token if way.transport == "http" else await asyncio.to_thread(person.mint, *ALL_GRANTS)

    async with way.enter(place.door(way.transport, bearer), way.era) as guest:
        if guest.version is not None:
            equal("the protocol's version", guest.version, way.version)
        equal("the tools", sorted(await guest.tools()), sorted(TOOLS))
        added = (await guest.call("add_task", {"title": MILK})).content
        equal("the title added", added["title"], MILK)
        equal("what is listed", (await guest.call("list_tasks", {})).content["items"], [added])
        done = await guest.call("complete_task", {"task_id": added["id"]})
        equal("the status", (done.is_error, done.content["status"]), (False, "completed"))
        wrong = await guest.call("complete_task", {"task_id": NOBODYS})
        expected = {"code": "not-found", "detail": "There is no such task."}
        equal("an id that is not there", (wrong.is_error, wrong.content), (True, expected))
        equal("the resources", await guest.resources(), shelf)
        equal("a document", await guest.read(shelf[0]), PLAN["content_markdown"])

    equal("what became of it", await asyncio.to_thread(lambda: person.tasks), [(MILK, "completed", 2)])


async def test_a_client_with_a_token_that_may_read_tasks_can_do_that_and_nothing_else(
    way: Way, place: Place, checks: Checks
) -> None:
    equal = partial(checks.equal, way.client)
    person = await asyncio.to_thread(place.person)
    task = (await asyncio.to_thread(person.ask, "POST", "tasks", json={"title": MILK})).json()
    bearer = await asyncio.to_thread(person.mint, "tasks:read")
    await asyncio.to_thread(person.shelve)

    async with way.enter(place.door(way.transport, bearer), way.era) as guest:
        equal("the tools", await guest.tools(), ["list_tasks"])
        equal("what is listed", (await guest.call("list_tasks", {})).content["items"], [task])
        for name, arguments in (("add_task", {"title": "No"}), ("delete_task", {"task_id": task["id"]})):
            with pytest.raises(TurnedAway) as refused:
                await guest.call(name, arguments)
            equal("that it says which tool", name in str(refused.value), expected=True)
        equal("the resources", await guest.resources(), [])

    equal("what became of it", await asyncio.to_thread(lambda: person.tasks), [(MILK, "pending", 1)])


async def test_a_client_with_a_token_that_opens_nothing_says_so(way: Way, place: Place, checks: Checks) -> None:
    """It does not hang, and it does not go on as if it were inside."""
    person = await asyncio.to_thread(place.person)
    bearer = await asyncio.to_thread(person.mint, "tasks:read")
    (minted,) = (await asyncio.to_thread(person.ask, "GET", "context-tokens")).json()["items"]
    await asyncio.to_thread(person.ask, "DELETE", f"context-tokens/{minted['id']}")

    said = await _refusal(way, place.door(way.transport, bearer))

    checks.equal(way.client, f"that it says why: {said}", bool(HONEST.search(said)), expected=True)


async def _refusal(way: Way, door: Door) -> str:
    """What it says as it comes in or, in an era without a handshake, as it asks for something."""
    try:
        async with way.enter(door, way.era) as guest:
            try:
                await guest.tools()
            except TurnedAway as refused:
                return str(refused)
    except TurnedAway as refused:
        return str(refused)
    pytest.fail("It was let in.")
