"""Paths: only the user may use its path. Other users cannot find out whether that user exists."""

from uuid import uuid4

import httpx2
import pytest

from tests.isolation.endpoints import API, DOCUMENT, HTTP_ENDPOINTS, HttpEndpoint
from tests.isolation.parameters import variants
from tests.isolation.responses import comparable
from tests.isolation.tenants import Tenants
from tests.support.service import BASE_URL

pytestmark = pytest.mark.asyncio(loop_scope="session")

PUBLIC = [
    (method.upper(), path)
    for path, methods in DOCUMENT["paths"].items()
    if not path.startswith(API)
    for method in methods
]


@pytest.mark.parametrize("endpoint", HTTP_ENDPOINTS, ids=lambda endpoint: endpoint.name)
async def test_foreign_path_responds_like_path_of_unknown_user(tenants: Tenants, endpoint: HttpEndpoint) -> None:
    """With and without existing ids in the request. No row changes."""
    before = await tenants.rows(tenants.ada)
    existing_user, unknown_user = tenants.ada.user.user_id, f"nobody-{uuid4()}"
    ids = {parameter.name: tenants.ada.ids[parameter.noun] for parameter in endpoint.parameters if parameter.noun}
    for tenant in tenants.others:
        caller = (tenant, tenant.user.token)
        for values in variants(endpoint.parameters):
            existing = comparable(await tenants.send(endpoint, caller, existing_user, **values, **ids))
            absent = comparable(await tenants.send(endpoint, caller, unknown_user, **values))
            assert existing == absent
            assert existing[0] == 403
            assert b'"code":"wrong-user"' in existing[2]

    assert await tenants.rows(tenants.ada) == before


@pytest.mark.parametrize("endpoint", HTTP_ENDPOINTS, ids=lambda endpoint: endpoint.name)
async def test_context_token_is_rejected_on_every_http_path(tenants: Tenants, endpoint: HttpEndpoint) -> None:
    """On the path of its own user, another user and an unknown user: with the same bytes."""
    ada, bob = tenants.ada, tenants.bob
    callers = [(tenant, secret) for tenant in (ada, bob) for secret in (tenant.secret, tenant.bound, "lk_nobodys")]
    path_users = [ada.user.user_id, bob.user.user_id, f"nobody-{uuid4()}"]
    answers = [comparable(await tenants.send(endpoint, caller, user)) for caller in callers for user in path_users]

    assert answers == [answers[0]] * len(answers)
    assert answers[0][0] == 401


@pytest.mark.parametrize(("method", "path"), PUBLIC, ids=[path for _, path in PUBLIC])
async def test_public_endpoint_responds_the_same_for_every_credential(tenants: Tenants, method: str, path: str) -> None:
    credentials = [{}, *({"authorization": f"Bearer {tenant.user.token}"} for tenant in (tenants.ada, tenants.bob))]
    responses = [
        comparable(await tenants.client.send(httpx2.Request(method, BASE_URL + path, headers=headers)))
        for headers in credentials
    ]

    assert responses == [responses[0]] * len(responses)
    assert not [mark for mark in tenants.ada.marks + tenants.bob.marks if mark in responses[0][2]]
