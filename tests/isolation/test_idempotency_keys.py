"""Idempotency keys belong to one user: the key of another user works like an unused key."""

from uuid import uuid4

import pytest

from tests.isolation.endpoints import HTTP_ENDPOINTS, HttpEndpoint
from tests.isolation.responses import comparable_without_ids
from tests.isolation.tenants import Tenants

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEYED_ENDPOINTS = [
    endpoint
    for endpoint in HTTP_ENDPOINTS
    if any(parameter.name == "Idempotency-Key" for parameter in endpoint.parameters)
]
CHAT = [endpoint for endpoint in KEYED_ENDPOINTS if endpoint.name == "chat"]


@pytest.mark.parametrize("endpoint", CHAT, ids=lambda endpoint: endpoint.name)
async def test_foreign_idempotency_key_responds_like_unused_key(tenants: Tenants, endpoint: HttpEndpoint) -> None:
    """It is neither replayed nor a mismatch, and no row of its owner changes."""
    before = await tenants.rows(tenants.ada)
    for tenant in tenants.others:
        caller = (tenant, tenant.user.token)
        unused, foreign = [
            await tenants.send(endpoint, caller, **{"Idempotency-Key": key})
            for key in (f"key-{uuid4().hex}", tenants.ada.key)
        ]
        assert comparable_without_ids(foreign) == comparable_without_ids(unused)
        assert foreign.is_success
        assert not [mark for mark in tenants.ada.marks if mark in foreign.content]

    assert await tenants.rows(tenants.ada) == before


@pytest.mark.parametrize("endpoint", KEYED_ENDPOINTS, ids=lambda endpoint: endpoint.name)
async def test_foreign_idempotency_key_is_not_replayed(tenants: Tenants, endpoint: HttpEndpoint) -> None:
    """Each user has one effect and the own response, although all send the same key."""
    key = f"key-{uuid4().hex}"
    for repetition in range(2):
        for tenant in tenants.others:
            caller = (tenant, tenant.user.token)
            response = await tenants.send(endpoint, caller, **{"Idempotency-Key": key})
            marks = [mark for other in tenants.others if other is not tenant for mark in other.marks]

            assert response.is_success
            assert ("idempotency-replayed" in response.headers) == (repetition == 1)
            assert not [mark for mark in marks if mark in response.content]


@pytest.mark.parametrize("endpoint", KEYED_ENDPOINTS, ids=lambda endpoint: endpoint.name)
async def test_own_idempotency_key_with_another_request_is_a_mismatch(tenants: Tenants, endpoint: HttpEndpoint) -> None:
    owner = (tenants.ada, tenants.ada.user.token)
    refused = await tenants.send(endpoint, owner, **{"Idempotency-Key": tenants.ada.key})

    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-mismatch")


async def test_operations_that_create_accept_idempotency_key() -> None:
    created = {"add_artifact", "add_conversation", "add_note", "add_task", "revise_artifact"}

    assert {endpoint.name for endpoint in KEYED_ENDPOINTS} == {"chat", *created}
