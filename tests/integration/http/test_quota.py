"""Quotas per user: rate limit and storage quota, with 429 and `Retry-After`."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio
from litestar import Litestar

from latchkey.interfaces.http.litestar_internals import operations_of
from tests.fakes.model_script import calls, says
from tests.fakes.model_server import ModelServer
from tests.support.service import ApiUser, Service, model_variables, run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = {"title": "Plan", "content_markdown": "x" * 20_000}


@pytest_asyncio.fixture(loop_scope="session")
async def strict(shared_database_url: str) -> AsyncIterator[Service]:
    async with run_service(settings_for(shared_database_url, LATCHKEY_REQUESTS_PER_MINUTE="2")) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="session")
async def small(shared_database_url: str) -> AsyncIterator[Service]:
    async with run_service(settings_for(shared_database_url, LATCHKEY_BYTES_PER_USER="20000")) as service:
        yield service


def new_user(service: Service) -> ApiUser:
    return service.user(f"limited-{uuid4().hex}")


async def test_rate_limit_exceeded_is_429_with_retry_after(strict: Service) -> None:
    """On every operation, and other users are not affected."""
    ada, bob = new_user(strict), new_user(strict)
    assert [(await ada.get("tasks")).status_code for _ in range(2)] == [200, 200]

    refusal = await ada.post("chat", json={"message": "Hello"})

    assert refusal.status_code == 429
    assert 1 <= int(refusal.headers["retry-after"]) <= 30
    assert refusal.json()["code"] == "exhausted"
    assert "2 requests per minute" in refusal.json()["detail"]
    assert (await bob.get("conversations")).json()["items"] == []


async def test_rate_limit_counts_http_and_mcp_requests_together(strict: Service) -> None:
    """MCP clients get the status and a JSON-RPC error."""
    ada = new_user(strict)
    token = (await ada.create("context-tokens", grants=["tasks:read"]))["token"]
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    headers = {"authorization": f"Bearer {token}", "accept": "application/json, text/event-stream"}
    assert (await strict.client.post("/mcp", json=listing, headers=headers)).status_code == 200

    refusal = await strict.client.post("/mcp", json=listing, headers=headers)

    assert refusal.status_code == 429
    assert 1 <= int(refusal.headers["retry-after"]) <= 30
    assert refusal.json()["error"]["message"].startswith("exhausted: Rate limit of 2 requests per minute reached")
    assert (await ada.get("tasks")).status_code == 429


async def test_rate_limit_is_not_consumed_by_invalid_tokens(strict: Service) -> None:
    ada = new_user(strict)
    token = (await ada.create("context-tokens", grants=["tasks:read"]))["token"]
    forged = {"authorization": f"Bearer {token[:3]}{'A' * 43}{token[46:]}"}
    listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}

    statuses = {(await strict.client.post("/mcp", json=listing, headers=forged)).status_code for _ in range(5)}

    assert statuses == {401}
    assert (await ada.get("tasks")).status_code == 200
    assert (await strict.client.post("/mcp", json=listing, headers=forged)).status_code == 401


async def test_rate_limit_exceeded_allows_everything_that_ends_harm(strict: Service) -> None:
    """Find and revoke tokens, cancel and delete: a client that floods under the user's name cannot prevent it."""
    ada = new_user(strict)
    token = await ada.create("context-tokens", grants=["tasks:read"])
    assert (await ada.get("tasks")).status_code == 200
    assert (await ada.get("tasks")).status_code == 429

    shown = await ada.get("context-tokens")
    revoked = await ada.delete(f"context-tokens/{token['id']}")
    absent = [await ada.delete(f"{collection}/{uuid4()}") for collection in ("conversations", "tasks", "artifacts")]
    cancelled = await ada.post(f"turns/{uuid4()}/cancel")

    assert ([each["id"] for each in shown.json()["items"]], revoked.status_code) == ([token["id"]], 204)
    assert {answer.status_code for answer in [*absent, cancelled]} == {404}
    assert (await ada.get("tasks")).status_code == 429


async def test_rate_limit_every_operation_that_ends_harm_is_essential(strict: Service) -> None:
    """Each DELETE, each cancellation and each decision, which can decline; also of operations that are added later."""
    expected = {
        operation.handler.handler_name
        for operation in operations_of(litestar_app(strict))
        if operation.method == "DELETE" or operation.path.endswith(("/cancel", "/approvals/{call_id}"))
    }
    essential = {
        operation.handler.handler_name
        for operation in operations_of(litestar_app(strict))
        if operation.handler.opt.get("essential")
    }

    assert essential == expected | {"list_context_tokens"}


def litestar_app(service: Service) -> Litestar:
    app = service.asgi._app
    assert isinstance(app, Litestar)
    return app


async def test_storage_quota_exceeded_refuses_writes_and_allows_delete(small: Service) -> None:
    ada = new_user(small)
    plan = await ada.create("artifacts", **LONG)

    refusal = await ada.post("tasks", json={"title": "Milk"})

    assert refusal.status_code == 429
    assert int(refusal.headers["retry-after"]) >= 1
    assert "Storage quota of 20000 bytes reached" in refusal.json()["detail"]
    assert (await ada.get(f"artifacts/{plan['id']}")).status_code == 200
    assert (await ada.delete(f"artifacts/{plan['id']}")).status_code == 204


async def test_tool_call_limit_stops_a_turn_with_endless_tool_calls(
    shared_database_url: str, model: ModelServer
) -> None:
    """A thousand calls in one answer: the allowed number runs and stays, then the turn fails."""
    variables = {**model_variables(model), "LATCHKEY_TURN_MAX_CALLS": "5"}
    endless = [("add_task", f'{{"title":"Task {number}"}}') for number in range(1_000)]
    model.script += [calls(*endless), says("Done.")]
    async with run_service(settings_for(shared_database_url, **variables)) as service:
        ada = new_user(service)

        refusal = await ada.post("chat", json={"message": "Go on for ever"})

        assert (refusal.status_code, refusal.json()["code"]) == (502, "max-steps")
        assert "limit of 5 tool calls" in refusal.json()["detail"]
        assert len(await ada.list_items("tasks")) == 5


async def test_storage_quota_exceeded_does_not_prevent_an_idempotency_replay(small: Service) -> None:
    """The replayed message itself used up the quota."""
    ada, headers = new_user(small), {"idempotency-key": "once"}
    message = {"message": "x" * 20_000}
    first = await ada.post("chat", json=message, headers=headers)
    assert (await ada.post("tasks", json={"title": "Milk"})).status_code == 429

    again = await ada.post("chat", json=message, headers=headers)
    other = await ada.post("chat", json={"message": "Another"}, headers=headers)
    new = await ada.post("chat", json=message)

    assert (first.status_code, again.content) == (200, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert (other.status_code, new.status_code) == (422, 429)
