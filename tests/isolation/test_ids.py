"""Whatever takes an id answers for what is another's, byte for byte, as for what has never been."""

import pytest
from uuid_utils.compat import uuid7

from tests.isolation.answers import is_done, said
from tests.isolation.doors import DOORS, Door
from tests.isolation.place import NOUNS, Place, variants
from tests.isolation.street import Caller, Street

pytestmark = pytest.mark.asyncio(loop_scope="session")

TAKING_IDS = [(door, place) for door in DOORS for place in door.places if place.noun]
NARROWED = [(door, place) for door, place in TAKING_IDS if not door.only_person and place.noun != "task"]
"""What a token that is bound to another conversation does not open, though it is the same person's."""


def named(cases: list[tuple[Door, Place]]) -> list[str]:
    return [f"{door.name}({place.name})" for door, place in cases]


async def assert_unknown(street: Street, door: Door, place: Place, caller: Caller, ids: list[str]) -> None:
    """In whatever way the rest of the request is filled."""
    for given in variants(door.places):
        nobodys = str(uuid7())
        absent = said(await street.ask(door, caller, **given, **{place.name: nobodys}), nobodys)
        assert absent[0] != 401
        for id in ids:
            response = await street.ask(door, caller, **given, **{place.name: id})
            assert said(response, id) == absent, (given, response.text)
            assert not [mark for mark in street.ada.marks if mark in response.content.replace(id.encode(), b"")]


@pytest.mark.parametrize(("door", "place"), TAKING_IDS, ids=named(TAKING_IDS))
async def test_what_is_anothers_is_as_if_it_had_never_been(street: Street, door: Door, place: Place) -> None:
    """An id of each noun in each place, for each other user and each of their credentials; and nothing is changed."""
    before = await street.rows(street.ada), await street.things(*street.strangers)
    for caller in street.callers(door):
        await assert_unknown(street, door, place, caller, [street.ada.ids[noun] for noun in NOUNS])

    assert (await street.rows(street.ada), await street.things(*street.strangers)) == before


@pytest.mark.parametrize(("door", "place"), NARROWED, ids=named(NARROWED))
async def test_so_is_what_belongs_to_another_conversation_than_the_tokens(
    street: Street, door: Door, place: Place
) -> None:
    before = await street.things(street.ada)
    await assert_unknown(street, door, place, (street.ada, street.ada.bound), list(street.ada.ids.values()))

    assert await street.things(street.ada) == before


@pytest.mark.parametrize(("door", "place"), TAKING_IDS, ids=named(TAKING_IDS))
async def test_to_whom_it_belongs_it_opens(street: Street, door: Door, place: Place) -> None:
    """So that "as if it had never been" says something: the same requests, by the one whose ids they name."""
    assert place.noun
    destroys = any(word in door.name for word in ("delete", "revoke"))
    owner = await street.newcomer() if destroys else street.bob
    mine, nobodys = owner.ids[place.noun], str(uuid7())
    absent = said(await street.ask(door, (owner, owner.person.token), **{place.name: nobodys}), nobodys)
    for bearer in [owner.person.token] if destroys or door.only_person else [owner.person.token, owner.secret]:
        response = await street.ask(door, (owner, bearer), **{place.name: mine})
        assert is_done(response), response.text
        assert said(response, mine) != absent
