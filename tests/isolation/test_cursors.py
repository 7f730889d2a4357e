"""Cursors: a cursor is only a position in the caller's own list, whichever user received it."""

import base64
import json
import re
from typing import Any

import pytest

from tests.isolation.endpoints import ENDPOINTS, Endpoint
from tests.isolation.responses import comparable, is_successful
from tests.isolation.tenants import Caller, Tenants

pytestmark = pytest.mark.asyncio(loop_scope="session")

LISTS = [endpoint for endpoint in ENDPOINTS if any(parameter.name == "cursor" for parameter in endpoint.parameters)]
UNBOUND_LISTS = {"tool list_tasks", "tool recall"}
BOUND_LISTS = [endpoint for endpoint in LISTS if not endpoint.user_only and endpoint.name not in UNBOUND_LISTS]
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def cursor_of(tenants: Tenants, endpoint: Endpoint, caller: Caller) -> str:
    """The cursor of the second page of a list."""
    if endpoint.name == "resources/list":
        (artifacts,) = [endpoint for endpoint in LISTS if endpoint.name == "list_artifacts"]
        return f"artifacts:{await cursor_of(tenants, artifacts, caller)}"
    body = (await tenants.send(endpoint, caller, limit=1)).json()
    page = body["result"]["structuredContent"] if "result" in body else body
    cursor: str = page["next_cursor"]
    return cursor


def decoded(cursor: str) -> list[Any]:
    text = cursor.rpartition(":")[2]
    values: list[Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return values


def unused_cursor(cursor: str) -> str:
    """The same cursor with ids that differ in one digit, so that no entity has them."""
    kind, colon, _ = cursor.rpartition(":")
    text = _UUID.sub(lambda match: match[0][:-1] + f"{int(match[0][-1], 16) ^ 1:x}", json.dumps(decoded(cursor)))
    return kind + colon + base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("endpoint", LISTS, ids=lambda endpoint: endpoint.name)
async def test_foreign_cursor_responds_like_unused_cursor(tenants: Tenants, endpoint: Endpoint) -> None:
    """The response has the caller's own entities after that position."""
    cursor = await cursor_of(tenants, endpoint, (tenants.ada, tenants.ada.user.token))
    for caller in tenants.callers(endpoint):
        forged = comparable(await tenants.send(endpoint, caller, cursor=unused_cursor(cursor)))
        foreign = await tenants.send(endpoint, caller, cursor=cursor)
        assert comparable(foreign) == forged
        assert is_successful(foreign), foreign.text
        assert not [mark for mark in tenants.ada.marks if mark in foreign.content]


@pytest.mark.parametrize("endpoint", LISTS, ids=lambda endpoint: endpoint.name)
async def test_list_returns_own_entities_only(tenants: Tenants, endpoint: Endpoint) -> None:
    members = [tenants.ada, tenants.bob, tenants.eve]
    for tenant in members:
        response = await tenants.send(endpoint, (tenant, tenant.user.token))
        foreign = [mark for other in members if other is not tenant for mark in other.marks]
        assert is_successful(response), response.text
        assert [mark for mark in tenant.marks if mark in response.content]
        assert not [mark for mark in foreign if mark in response.content]


@pytest.mark.parametrize("endpoint", BOUND_LISTS, ids=lambda endpoint: endpoint.name)
async def test_list_with_bound_token_returns_its_conversation_only(tenants: Tenants, endpoint: Endpoint) -> None:
    ada = tenants.ada
    ids = [ada.ids[noun].encode() for noun in ("artifact", "conversation")]
    unbound, bound = [await tenants.send(endpoint, (ada, secret)) for secret in (ada.secret, ada.bound)]

    assert is_successful(unbound)
    assert is_successful(bound)
    assert [id for id in ids if id in unbound.content]
    assert not [id for id in ids if id in bound.content]


@pytest.mark.parametrize("endpoint", LISTS, ids=lambda endpoint: endpoint.name)
async def test_cursor_of_another_list_responds_like_malformed_cursor(tenants: Tenants, endpoint: Endpoint) -> None:
    """Even if the caller owns the cursor."""
    caller = (tenants.bob, tenants.bob.user.token)
    cursors = [await cursor_of(tenants, other, caller) for other in LISTS if other.name != "resources/list"]
    own = decoded(await cursor_of(tenants, endpoint, caller))[0]
    prefix = "artifacts:" if endpoint.name == "resources/list" else ""
    malformed = comparable(await tenants.send(endpoint, caller, cursor=f"{prefix}garbage"))
    foreign = [prefix + cursor for cursor in cursors if decoded(cursor)[0] != own]

    assert len(foreign) >= 5
    assert [comparable(await tenants.send(endpoint, caller, cursor=cursor)) for cursor in foreign] == [malformed] * len(
        foreign
    )
