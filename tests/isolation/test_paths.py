"""One user's path is open to that user alone; to others it does not even tell whether there is such a user."""

from uuid import uuid4

import httpx2
import pytest

from tests.isolation.answers import said
from tests.isolation.doors import API, DOCUMENT, OPERATIONS, Operation
from tests.isolation.place import variants
from tests.isolation.street import Street
from tests.support.service import BASE_URL

pytestmark = pytest.mark.asyncio(loop_scope="session")

PUBLIC = [
    (method.upper(), path)
    for path, methods in DOCUMENT["paths"].items()
    if not path.startswith(API)
    for method in methods
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_anothers_path_is_as_that_of_nobody(street: Street, operation: Operation) -> None:
    """With all that is there named in it, or nothing; and nothing is changed."""
    before = await street.rows(street.ada)
    here, nowhere = street.ada.person.user_id, f"nobody-{uuid4()}"
    ids = {place.name: street.ada.ids[place.noun] for place in operation.places if place.noun}
    for stranger in street.strangers:
        caller = (stranger, stranger.person.token)
        for given in variants(operation.places):
            existing = said(await street.ask(operation, caller, here, **given, **ids))
            absent = said(await street.ask(operation, caller, nowhere, **given))
            assert existing == absent
            assert existing[0] == 403
            assert b'"code":"wrong-user"' in existing[2]

    assert await street.rows(street.ada) == before


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_no_context_token_opens_any_path(street: Street, operation: Operation) -> None:
    """Neither its own user's nor another's nor nobody's, and all of them with the same words."""
    ada, bob = street.ada, street.bob
    holders = [(one, secret) for one in (ada, bob) for secret in (one.secret, one.bound, "lk_nobodys")]
    whose = [ada.person.user_id, bob.person.user_id, f"nobody-{uuid4()}"]
    answers = [said(await street.ask(operation, holder, at)) for holder in holders for at in whose]

    assert answers == [answers[0]] * len(answers)
    assert answers[0][0] == 401


@pytest.mark.parametrize(("method", "path"), PUBLIC, ids=[path for _, path in PUBLIC])
async def test_outside_the_api_everybody_is_told_the_same(street: Street, method: str, path: str) -> None:
    """Whatever credential they bring."""
    brought = [{}, *({"authorization": f"Bearer {one.person.token}"} for one in (street.ada, street.bob))]
    told = [said(await street.client.send(httpx2.Request(method, BASE_URL + path, headers=one))) for one in brought]

    assert told == [told[0]] * len(told)
    assert not [mark for mark in street.ada.marks + street.bob.marks if mark in told[0][2]]
