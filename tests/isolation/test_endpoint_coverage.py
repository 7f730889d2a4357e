"""The isolation tests cover every published parameter; an unknown one fails their collection."""

from copy import deepcopy
from typing import Any

import pytest

from tests.isolation.endpoints import API, DOCUMENT, HTTP_ENDPOINTS, TEMPLATES, TOOLS, McpEndpoint, http_endpoints
from tests.isolation.parameters import UnknownParameter, formats
from tests.isolation.tenants import ALL_GRANTS, Tenants

pytestmark = pytest.mark.asyncio(loop_scope="session")

ADDITIONS: dict[str, dict[str, Any]] = {
    "an id of an unknown noun": {"name": "folder_id", "in": "query", "schema": {"type": "string", "format": "uuid"}},
    "an unknown name": {"name": "share_with", "in": "query", "schema": {"type": "string"}},
    "a cookie": {"name": "title", "in": "cookie", "schema": {"type": "string"}},
}


async def test_tested_endpoints_equal_published_endpoints(tenants: Tenants) -> None:
    served = (await tenants.client.get("/schema/openapi.json")).json()
    async with tenants.service.mcp_client(tenants.bob.user.token) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        templates = [template.uri_template for template in (await client.list_resource_templates()).resource_templates]

    assert http_endpoints(served) == HTTP_ENDPOINTS
    assert [f"tool {name}" for name in tools] == [endpoint.name for endpoint in TOOLS]
    assert len(templates) == len(TEMPLATES)


async def test_every_id_parameter_of_schemas_is_tested() -> None:
    """The ids are counted in the raw schemas, independently of the parser."""
    schemas = [
        *(operation.get("parameters", []) for path in DOCUMENT["paths"].values() for operation in path.values()),
        *(DOCUMENT["components"]["schemas"][name] for name in requested_schemas()),
    ]

    assert list(formats(schemas)).count("uuid") == sum(
        parameter.noun is not None for endpoint in HTTP_ENDPOINTS for parameter in endpoint.parameters
    )
    assert sum(parameter.noun is not None for endpoint in TOOLS for parameter in endpoint.parameters) >= 5


def requested_schemas() -> list[str]:
    """The names of the body schemas, one for each operation with a body."""
    bodies = [
        operation["requestBody"]["content"]
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
        if "requestBody" in operation
    ]
    return [next(iter(body.values()))["schema"]["$ref"].rpartition("/")[2] for body in bodies]


@pytest.mark.parametrize("addition", ADDITIONS.values(), ids=ADDITIONS)
async def test_unknown_parameter_fails_collection(addition: dict[str, Any]) -> None:
    document = deepcopy(DOCUMENT)
    document["paths"][f"{API}/tasks"]["get"]["parameters"].append(addition)

    with pytest.raises(UnknownParameter):
        http_endpoints(document)


async def test_unknown_body_member_argument_or_template_fails_collection() -> None:
    document = deepcopy(DOCUMENT)
    document["components"]["schemas"]["NewTask"]["properties"]["owner"] = {"type": "string"}

    with pytest.raises(UnknownParameter):
        http_endpoints(document)
    with pytest.raises(UnknownParameter):
        McpEndpoint.of_tool({"name": "share", "inputSchema": {"properties": {"owner": {"type": "string"}}}})
    with pytest.raises(UnknownParameter):
        McpEndpoint.of_template({"uriTemplate": "latchkey://folders/{id}"})


async def test_tenant_tokens_have_every_grant(tenants: Tenants) -> None:
    """So a foreign token is rejected because of its user, and not because a grant is missing."""
    for tenant in (tenants.ada, tenants.bob, tenants.eve):
        tokens = await tenant.user.list_items("context-tokens")
        grants = [token["grants"] for token in tokens if token["id"] in tenant.token_ids]
        assert grants == [ALL_GRANTS] * 3
