"""Ids: an endpoint responds to the id of another user, byte for byte, as to an id that does not exist."""

import pytest
from uuid_utils.compat import uuid7

from tests.isolation.endpoints import ENDPOINTS, Endpoint
from tests.isolation.parameters import NOUNS, OUTSIDE_CONVERSATIONS, Parameter, variants
from tests.isolation.responses import comparable, is_successful
from tests.isolation.tenants import Caller, Tenants

pytestmark = pytest.mark.asyncio(loop_scope="session")

ID_PARAMETERS = [(endpoint, parameter) for endpoint in ENDPOINTS for parameter in endpoint.parameters if parameter.noun]
BOUND_PARAMETERS = [
    (endpoint, parameter)
    for endpoint, parameter in ID_PARAMETERS
    if not endpoint.user_only and parameter.noun not in OUTSIDE_CONVERSATIONS
]
"""Ids that a token bound to another conversation of the same user must not reach."""


def case_ids(cases: list[tuple[Endpoint, Parameter]]) -> list[str]:
    return [f"{endpoint.name}({parameter.name})" for endpoint, parameter in cases]


async def assert_unknown(
    tenants: Tenants, endpoint: Endpoint, parameter: Parameter, caller: Caller, ids: list[str]
) -> None:
    """Compare with an unused id, for all variants of the other parameters."""
    for values in variants(endpoint.parameters):
        unused_id = str(uuid7())
        absent = comparable(await tenants.send(endpoint, caller, **values, **{parameter.name: unused_id}), unused_id)
        assert absent[0] != 401
        for id in ids:
            response = await tenants.send(endpoint, caller, **values, **{parameter.name: id})
            assert comparable(response, id) == absent, (values, response.text)
            assert not [mark for mark in tenants.ada.marks if mark in response.content.replace(id.encode(), b"")]


@pytest.mark.parametrize(("endpoint", "parameter"), ID_PARAMETERS, ids=case_ids(ID_PARAMETERS))
async def test_foreign_id_responds_like_absent_id(tenants: Tenants, endpoint: Endpoint, parameter: Parameter) -> None:
    """Ids of every noun in every id parameter, from every other user with every credential. No row changes."""
    before = await tenants.rows(tenants.ada), await tenants.entities(*tenants.others)
    for caller in tenants.callers(endpoint):
        await assert_unknown(tenants, endpoint, parameter, caller, [tenants.ada.ids[noun] for noun in NOUNS])

    assert (await tenants.rows(tenants.ada), await tenants.entities(*tenants.others)) == before


@pytest.mark.parametrize(("endpoint", "parameter"), BOUND_PARAMETERS, ids=case_ids(BOUND_PARAMETERS))
async def test_id_outside_bound_conversation_responds_like_absent_id(
    tenants: Tenants, endpoint: Endpoint, parameter: Parameter
) -> None:
    before = await tenants.entities(tenants.ada)
    await assert_unknown(tenants, endpoint, parameter, (tenants.ada, tenants.ada.bound), list(tenants.ada.ids.values()))

    assert await tenants.entities(tenants.ada) == before


@pytest.mark.parametrize(("endpoint", "parameter"), ID_PARAMETERS, ids=case_ids(ID_PARAMETERS))
async def test_own_id_succeeds(tenants: Tenants, endpoint: Endpoint, parameter: Parameter) -> None:
    """The counterpart: the same requests succeed for the owner of the ids."""
    assert parameter.noun
    is_destructive = any(word in endpoint.name for word in ("delete", "revoke", "forget", "undo"))
    owner = await tenants.new_tenant() if is_destructive else tenants.bob
    own_id, unused_id = owner.ids[parameter.noun], str(uuid7())
    absent = comparable(
        await tenants.send(endpoint, (owner, owner.user.token), **{parameter.name: unused_id}), unused_id
    )
    for bearer in [owner.user.token] if is_destructive or endpoint.user_only else [owner.user.token, owner.secret]:
        response = await tenants.send(endpoint, (owner, bearer), **{parameter.name: own_id})
        assert is_successful(response), response.text
        assert comparable(response, own_id) != absent
