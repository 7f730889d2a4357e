"""Grants: a tool or resource without its grant does not exist for the token, for each grant alone."""

from dataclasses import replace

import pytest
from uuid_utils.compat import uuid7

from latchkey.domain.credentials import Grant, TokenSecret, UserId
from tests.isolation.endpoints import RESOURCE_LIST, TEMPLATES, TOOLS, McpEndpoint
from tests.isolation.responses import comparable, is_successful
from tests.isolation.tenants import Tenants
from tests.support.tools import ALL_GRANTS

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("grant", ALL_GRANTS)
async def test_tool_without_grant_responds_like_unknown_tool(tenants: Tenants, grant: Grant) -> None:
    """`tools/list` lists exactly the tools that succeed."""
    owner = await tenants.new_tenant()
    token = (await owner.user.create("context-tokens", grants=[grant]))["token"]
    async with tenants.service.mcp_client(token) as client:
        listed = {f"tool {tool.name}" for tool in (await client.list_tools()).tools}
    for tool in sorted(TOOLS, key=lambda tool: "delete" in tool.name):
        answer = await tenants.send(tool, (owner, token))
        absent = replace(tool, target="x" * len(tool.target))
        unknown = comparable(await tenants.send(absent, (owner, token)), absent.target)
        assert is_successful(answer) == (tool.name in listed), answer.text
        assert (comparable(answer, tool.target) == unknown) != (tool.name in listed)


@pytest.mark.parametrize("grant", ALL_GRANTS)
async def test_resource_without_grant_responds_like_absent_resource(tenants: Tenants, grant: Grant) -> None:
    """`resources/templates/list` lists exactly the templates that can be read."""
    owner = tenants.bob
    token = (await owner.user.create("context-tokens", grants=[grant]))["token"]
    async with tenants.service.mcp_client(token) as client:
        listed = {template.uri_template for template in (await client.list_resource_templates()).resource_templates}
    for template in TEMPLATES:
        (parameter,) = template.parameters
        own_id, unused_id = owner.ids[parameter.noun or ""], str(uuid7())
        answer = await tenants.send(template, (owner, token), **{parameter.name: own_id})
        unknown = comparable(await tenants.send(template, (owner, token), **{parameter.name: unused_id}), unused_id)
        is_listed = template.target.replace(parameter.name, "id") in listed
        assert is_successful(answer) == is_listed, answer.text
        assert (comparable(answer, own_id) == unknown) != is_listed


@pytest.mark.parametrize("endpoint", [*TOOLS, *TEMPLATES, RESOURCE_LIST], ids=lambda endpoint: endpoint.name)
async def test_forged_token_of_existing_user_responds_like_unknown_user(
    tenants: Tenants, endpoint: McpEndpoint
) -> None:
    """The forgery changes no row of the user that it names."""
    before = await tenants.rows(tenants.ada)
    forgeries = [TokenSecret.mint(UserId(name)).text for name in (tenants.ada.user.user_id, "nobody")]
    existing, absent = [comparable(await tenants.send(endpoint, (tenants.bob, forgery))) for forgery in forgeries]

    assert existing == absent
    assert existing[0] == 401
    assert await tenants.rows(tenants.ada) == before
