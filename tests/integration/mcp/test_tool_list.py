"""`tools/list`: tools, schemas and annotations, by grant."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from latchkey.domain.credentials import Grant
from tests.integration.mcp.jsonrpc import message, post
from tests.integration.mcp.mcp_service import ME, McpService, OpenClient
from tests.support.tools import ALL_GRANTS, TOOLS, tools_granted_by


def objects_in(schema: Any) -> list[dict[str, Any]]:
    """Return all object schemas in a schema, including itself."""
    if isinstance(schema, list):
        return [found for part in schema for found in objects_in(part)]
    if not isinstance(schema, dict):
        return []
    inside = objects_in(list(schema.values()))
    return [schema, *inside] if schema.get("type") == "object" else inside


async def test_tools_list_has_fixed_order_titles_and_schemas(service: McpService, open_client: OpenClient) -> None:
    async with open_client(service, await service.secret(*ALL_GRANTS)) as client:
        tools = (await client.list_tools()).tools

    assert [tool.name for tool in tools] == list(TOOLS)
    for tool in tools:
        assert tool.title
        assert any(noun in (tool.description or "") for noun in ("document", "to-do task", "note", "emember"))
        for schema in (tool.input_schema, tool.output_schema):
            assert schema
            assert schema["type"] == "object"
            Draft202012Validator.check_schema(schema)
            assert all(found["additionalProperties"] is False for found in objects_in(schema))


async def test_tools_list_annotations_are_published_and_match_the_verb(
    service: McpService, open_client: OpenClient
) -> None:
    """Reading is idempotent and not destructive, adding is not idempotent, deleting is destructive."""
    async with open_client(service, await service.secret(*ALL_GRANTS)) as client:
        tools = {tool.name: tool.annotations for tool in (await client.list_tools()).tools}

    for name, hints in tools.items():
        assert hints
        assert hints.model_dump(by_alias=True, exclude_none=True) == TOOLS[name]["annotations"]
        assert hints.open_world_hint is False
        assert hints.read_only_hint is name.startswith(("list_", "get_", "recall"))
        assert hints.destructive_hint is name.startswith(("delete_", "update_", "forget"))
        assert hints.idempotent_hint is not name.startswith(("add_", "save_", "remember"))


@pytest.mark.parametrize("grant", ALL_GRANTS)
async def test_tools_list_with_one_grant_shows_the_tools_of_that_grant(
    service: McpService, open_client: OpenClient, grant: Grant
) -> None:
    async with open_client(service, await service.secret(grant)) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == tools_granted_by(grant)


def test_every_tool_is_granted_by_exactly_one_grant() -> None:
    assert sorted(name for grant in ALL_GRANTS for name in tools_granted_by(grant)) == sorted(TOOLS)


async def test_tools_list_with_user_token_shows_all_tools_without_a_transaction(
    service: McpService, protocol: str
) -> None:
    """Except a request that reads the quota, which an earlier one has done."""
    await service.dispatcher.acquire(ME)
    service.units.opened.clear()
    async with service.http() as http:
        response = await post(http, protocol, message(protocol, "tools/list"), service.jwt())

    assert [tool["name"] for tool in response.json()["result"]["tools"]] == list(TOOLS)
    assert service.units.opened == []


async def test_tools_list_result_is_private_to_the_credential(service: McpService) -> None:
    """No shared cache may return it to another credential."""
    async with service.http() as http:
        response = await post(http, "current", message("current", "tools/list"), service.jwt())

    assert response.json()["result"]["cacheScope"] == "private"


async def test_capabilities_are_tools_and_resources_only(service: McpService, protocol: str) -> None:
    """No prompts, no logging, and no subscriptions, which would need a session."""
    probe = "server/discover" if protocol == "current" else "initialize"
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    async with service.http() as http:
        response = await post(
            http, protocol, message(protocol, probe, None if protocol == "current" else params), service.jwt()
        )

    capabilities = response.json()["result"]["capabilities"]
    assert {"tools", "resources"} <= capabilities.keys() <= {"tools", "resources", "experimental"}
    assert not any(capabilities["resources"].values())
