"""Approval over MCP under attack: changed arguments, states of others, expired and tampered ones, replays, races."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from latchkey.application.context_tokens import revoke_context_token
from latchkey.domain.tool_call import APPROVAL_REQUEST
from tests.apps.guarded import READ, WRITE, orders
from tests.integration.mcp.approvals.calls import APPROVE, DECLINE, TEXT, Caller, Clock, error_of, titles
from tests.integration.mcp.mcp_service import ME, YOU, McpService

INVALID_STATE = (-32602, {"reason": "invalid_request_state"})
TAMPERED: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "shorter": lambda state: state[:-1],
    "longer": lambda state: state + "0",
    "upper case": str.upper,
    "without hyphens": lambda state: state.replace("-", ""),
    "braces": lambda state: "{" + state + "}",
    "another digit": lambda state: ("1" if state[0] != "1" else "2") + state[1:],
    "key of the call": lambda state: "approval:" + state,
    "call id": lambda _: "call-1",
    "NUL": lambda state: state + "\x00",
    "surrogate": lambda _: "\ud800",
    "large": lambda _: "0" * 1_000_000,
}


def state_error(result: Any) -> tuple[int, Any]:
    assert result["message"].startswith("Invalid or expired requestState"), result
    return result["code"], result["data"]


@pytest.mark.parametrize(
    "changed",
    [{"text": "Goodbye"}, {"text": "Hello", "notify": False}, {"text": "Hello", "user_id": "you"}, {}],
    ids=["another text", "one more argument", "unknown argument", "none"],
)
async def test_arguments_cannot_change_between_question_and_call(
    service: McpService, me: Caller, changed: dict[str, Any]
) -> None:
    state = await me.ask("publish", TEXT)
    refused = await me.call("publish", changed, state, APPROVE)
    assert state_error(refused) == INVALID_STATE
    assert await titles(service) == []

    await me.call("publish", TEXT, state, APPROVE)
    assert await titles(service) == ["Hello"]


async def test_state_of_another_tool_is_refused(service: McpService, me: Caller) -> None:
    state = await me.ask("pay", {"amount": 500})
    for tool, arguments in (("publish", TEXT), ("add_task", {"title": "Hello"}), ("order", {"sku": "bell"})):
        assert state_error(await me.call(tool, arguments, state, APPROVE)) == INVALID_STATE
    assert await titles(service) == []


async def test_state_of_another_user_is_refused(service: McpService, me: Caller) -> None:
    state = await me.ask("publish", TEXT)
    you = Caller(service, me.http, service.jwt(YOU))
    assert state_error(await you.call("publish", TEXT, state, APPROVE)) == INVALID_STATE
    assert state_error(await you.call("publish", TEXT, state, DECLINE)) == INVALID_STATE
    assert (await titles(service), await titles(service, YOU)) == ([], [])

    await me.call("publish", TEXT, state, APPROVE)
    assert (await titles(service), await titles(service, YOU)) == (["Hello"], [])


@pytest.mark.parametrize("tampered", TAMPERED)
async def test_tampered_state_is_refused(service: McpService, me: Caller, tampered: str) -> None:
    state = await me.ask("publish", TEXT, "call-1")
    refused = await me.call("publish", TEXT, TAMPERED[tampered](state), APPROVE)

    assert refused["code"] in {-32602, -32700}
    assert await titles(service) == []


@pytest.mark.parametrize("hours", [1, 24, 48])
async def test_expired_state_is_refused(service: McpService, me: Caller, clock: Clock, hours: int) -> None:
    """After an hour, which is the setting, or after a day at the latest."""
    state = await me.ask("publish", TEXT)
    late = Caller(service, me.http, me.bearer)
    clock.offset = timedelta(hours=hours)
    assert state_error(await late.call("publish", TEXT, state, APPROVE)) == INVALID_STATE
    assert await titles(service) == []


async def test_state_is_accepted_until_it_expires(service: McpService, me: Caller, clock: Clock) -> None:
    state = await me.ask("publish", TEXT)
    clock.offset = timedelta(minutes=59)
    await me.call("publish", TEXT, state, APPROVE)
    assert await titles(service) == ["Hello"]


async def test_context_token_can_neither_ask_nor_approve(service: McpService, me: Caller) -> None:
    """Even with a state that the user's own client was given for the same call."""
    state = await me.ask("publish", TEXT)
    token = Caller(service, me.http, (await service.secret(READ, WRITE)).text)
    called = error_of(await token.call("publish", TEXT))
    approved = await token.call("publish", TEXT, state, APPROVE)

    assert called["code"] == "approval-required"
    assert "the user's own JWT" in called["detail"]
    assert state_error(approved) == INVALID_STATE
    assert await titles(service) == []


async def test_turn_token_can_neither_ask_nor_approve(service: McpService, me: Caller) -> None:
    """Its call becomes a question of its turn."""
    state = await me.ask("publish", TEXT)
    turn = await service.turn(READ, WRITE)
    token = Caller(service, me.http, turn.secret.text)
    approved = await token.call("publish", TEXT, state, APPROVE)
    called = await token.call("publish", TEXT)

    assert state_error(approved) == INVALID_STATE
    assert error_of(called)["code"] == "approval-required"
    assert called["_meta"]["latchkey/waiting"] is True
    assert await titles(service) == []


async def test_revoked_token_with_a_state_is_unauthenticated(service: McpService, me: Caller) -> None:
    """Although the service has seen the token when it was valid."""
    state = await me.ask("publish", TEXT)
    minted = await service.mint(READ, WRITE)
    token = Caller(service, me.http, minted.secret.text)
    await token.call("publish", TEXT)
    await service.dispatcher.call(ME, revoke_context_token, minted.token.id)
    refused = await token.call("publish", TEXT, state, APPROVE)

    assert refused["message"].startswith("unauthenticated")


@pytest.mark.parametrize(("tool", "arguments"), [("publish", TEXT), ("order", {"sku": "bell"})])
async def test_concurrent_approvals_have_one_effect(
    service: McpService, me: Caller, tool: str, arguments: dict[str, str]
) -> None:
    """A client may give up and repeat while the first request still runs, on another replica too."""
    state = await me.ask(tool, arguments)
    results = await asyncio.gather(*(me.call(tool, arguments, state, APPROVE) for _ in range(8)))
    succeeded = [result["structuredContent"] for result in results if not result["isError"]]

    assert succeeded
    assert len({json.dumps(content) for content in succeeded}) == 1
    assert len([*await titles(service), *orders]) == 1
    for result in results:
        if result["isError"]:
            assert error_of(result)["detail"].startswith("no result recorded")


async def test_concurrent_decisions_agree(service: McpService, me: Caller) -> None:
    """Of an approval and a decline that race, one counts for both: also for a tool whose results are not recorded."""
    published = 0
    for _ in range(10):
        for tool, arguments in (("publish", TEXT), ("show_balance", {})):
            state = await me.ask(tool, arguments)
            responses = [APPROVE, DECLINE, APPROVE, DECLINE]
            results = await asyncio.gather(*(me.call(tool, arguments, state, response) for response in responses))
            assert len({result["isError"] for result in results}) == 1, results
            published += tool == "publish" and not results[0]["isError"]
            assert len(await titles(service)) == published


async def test_expired_questions_are_removed(service: McpService, me: Caller, clock: Clock) -> None:
    """Each further question removes those of the days before."""
    asked_at = clock.now()
    old = [await me.ask("publish", TEXT) for _ in range(3)]
    clock.offset = timedelta(days=2)
    states = [*old, await me.ask("publish", TEXT)]
    async with service.units.units.open(ME, "read") as uow:
        rows = [await uow.idempotent_calls.find(APPROVAL_REQUEST, state, asked_at) for state in states]

    assert [row is not None for row in rows] == [False, False, False, True]
