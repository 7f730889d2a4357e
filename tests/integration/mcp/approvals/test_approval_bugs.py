"""A function of a tool that decides whether the user is asked, and that raises."""

from latchkey.domain.ports import ToolBug
from tests.apps.guarded import WRITE
from tests.integration.mcp.approvals.calls import Caller, error_of, titles
from tests.integration.mcp.mcp_service import ME, McpService


def bug_of(service: McpService) -> ToolBug:
    (bug,) = [entry for entry in service.logged if isinstance(entry, ToolBug)]
    return bug


async def test_bug_of_an_approval_function_is_logged_and_nothing_runs(service: McpService, me: Caller) -> None:
    result = await me.call("pay", {"amount": 0}, call_id="p1")
    bug = bug_of(service)

    assert error_of(result)["code"] == "internal"
    assert "inputRequests" not in result
    assert "math" not in result["content"][0]["text"]
    assert (bug.tool, bug.call_id, bug.user_id, type(bug.exception)) == ("pay", "p1", ME.user_id, ValueError)
    assert await titles(service) == []


async def test_bug_of_an_approval_function_is_the_result_of_the_call_of_a_turn(service: McpService) -> None:
    turn = await service.turn(WRITE)
    async with service.http() as http:
        result = await Caller(service, http, turn.secret.text).call("pay", {"amount": -1}, call_id="p1")
    (call,) = await service.tool_calls_of(turn)

    assert error_of(result)["code"] == "internal"
    assert "_meta" not in result or "latchkey/waiting" not in result["_meta"]
    assert (call.name, call.is_error) == ("pay", True)
    assert b'"internal"' in bytes(call.result)
    assert bug_of(service).tool == "pay"
    assert await titles(service) == []
