"""A cursor says where a listing of one's own goes on, and nothing else, whoever was given it."""

import base64
import json
import re
from typing import Any

import pytest

from tests.isolation.answers import is_done, said
from tests.isolation.doors import DOORS, Door
from tests.isolation.street import Caller, Street

pytestmark = pytest.mark.asyncio(loop_scope="session")

LISTINGS = [door for door in DOORS if any(place.name == "cursor" for place in door.places)]
OF_CONVERSATIONS = [door for door in LISTINGS if not door.only_person and "task" not in door.name]
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def cursor_of(street: Street, door: Door, caller: Caller) -> str:
    """Where the second page of it begins."""
    if door.name == "resources/list":
        (artifacts,) = [one for one in LISTINGS if one.name == "list_artifacts"]
        return f"artifacts:{await cursor_of(street, artifacts, caller)}"
    answered = (await street.ask(door, caller, limit=1)).json()
    page = answered["result"]["structuredContent"] if "result" in answered else answered
    cursor: str = page["next_cursor"]
    return cursor


def decoded(cursor: str) -> list[Any]:
    text = cursor.rpartition(":")[2]
    found: list[Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


def neighbour(cursor: str) -> str:
    """The cursor of something that was never made: the ids in it are one off."""
    kind, colon, _ = cursor.rpartition(":")
    text = _UUID.sub(lambda found: found[0][:-1] + f"{int(found[0][-1], 16) ^ 1:x}", json.dumps(decoded(cursor)))
    return kind + colon + base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("door", LISTINGS, ids=lambda door: door.name)
async def test_anothers_cursor_is_as_one_that_nobody_was_given(street: Street, door: Door) -> None:
    """It bounds one's own listing, and the things beyond it are one's own."""
    cursor = await cursor_of(street, door, (street.ada, street.ada.person.token))
    for caller in street.callers(door):
        forged = said(await street.ask(door, caller, cursor=neighbour(cursor)))
        foreign = await street.ask(door, caller, cursor=cursor)
        assert said(foreign) == forged
        assert is_done(foreign), foreign.text
        assert not [mark for mark in street.ada.marks if mark in foreign.content]


@pytest.mark.parametrize("door", LISTINGS, ids=lambda door: door.name)
async def test_a_listing_shows_everybody_their_own_and_nothing_else(street: Street, door: Door) -> None:
    people = [street.ada, street.bob, street.eve]
    for who in people:
        listed = await street.ask(door, (who, who.person.token))
        others = [mark for one in people if one is not who for mark in one.marks]
        assert is_done(listed), listed.text
        assert [mark for mark in who.marks if mark in listed.content]
        assert not [mark for mark in others if mark in listed.content]


@pytest.mark.parametrize("door", OF_CONVERSATIONS, ids=lambda door: door.name)
async def test_a_token_for_a_conversation_lists_what_belongs_to_it_alone(street: Street, door: Door) -> None:
    ada = street.ada
    mine = [ada.ids[noun].encode() for noun in ("artifact", "conversation")]
    everything, elsewhere = [await street.ask(door, (ada, secret)) for secret in (ada.secret, ada.bound)]

    assert is_done(everything)
    assert is_done(elsewhere)
    assert [id for id in mine if id in everything.content]
    assert not [id for id in mine if id in elsewhere.content]


@pytest.mark.parametrize("door", LISTINGS, ids=lambda door: door.name)
async def test_a_cursor_of_another_listing_is_none(street: Street, door: Door) -> None:
    """One's own, too: each is answered as something that never was a cursor."""
    caller = (street.bob, street.bob.person.token)
    cursors = [await cursor_of(street, one, caller) for one in LISTINGS if one.name != "resources/list"]
    own = decoded(await cursor_of(street, door, caller))[0]
    prefix = "artifacts:" if door.name == "resources/list" else ""
    garbage = said(await street.ask(door, caller, cursor=f"{prefix}garbage"))
    foreign = [prefix + one for one in cursors if decoded(one)[0] != own]

    assert len(foreign) >= 5
    assert [said(await street.ask(door, caller, cursor=one)) for one in foreign] == [garbage] * len(foreign)
