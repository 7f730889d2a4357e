"""Names that callers give (idempotency keys) are each user's own: another's is as one that was never used."""

from uuid import uuid4

import pytest

from tests.isolation.answers import outline
from tests.isolation.doors import OPERATIONS, Operation
from tests.isolation.street import Street

pytestmark = pytest.mark.asyncio(loop_scope="session")

TAKING_KEYS = [one for one in OPERATIONS if any(place.name == "Idempotency-Key" for place in one.places)]


@pytest.mark.parametrize("operation", TAKING_KEYS, ids=lambda operation: operation.name)
async def test_anothers_key_is_as_one_that_was_never_used(street: Street, operation: Operation) -> None:
    """Neither replayed nor held to be a mismatch, and what was done under it stays as it was."""
    before = await street.rows(street.ada)
    for stranger in street.strangers:
        caller = (stranger, stranger.person.token)
        fresh, foreign = [
            await street.ask(operation, caller, **{"Idempotency-Key": key})
            for key in (f"key-{uuid4().hex}", street.ada.key)
        ]
        assert outline(foreign) == outline(fresh)
        assert foreign.is_success
        assert not [mark for mark in street.ada.marks if mark in foreign.content]

    assert await street.rows(street.ada) == before


@pytest.mark.parametrize("operation", TAKING_KEYS, ids=lambda operation: operation.name)
async def test_ones_own_key_is_recognised(street: Street, operation: Operation) -> None:
    owner = (street.ada, street.ada.person.token)
    refused = await street.ask(operation, owner, **{"Idempotency-Key": street.ada.key})

    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-mismatch")


async def test_something_takes_keys() -> None:
    assert [one.name for one in TAKING_KEYS] == ["chat"]
