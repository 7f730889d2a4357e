"""What a token does not grant is, to whoever holds it, not there: each tool and each resource, under each grant."""

from dataclasses import replace

import pytest
from uuid_utils.compat import uuid7

from latchkey.domain.credentials import Grant, TokenSecret, UserId
from tests.isolation.answers import is_done, said
from tests.isolation.doors import RESOURCES, TEMPLATES, TOOLS, Rpc
from tests.isolation.street import Street

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("grant", Grant)
async def test_a_tool_that_is_not_granted_is_as_one_that_does_not_exist(street: Street, grant: Grant) -> None:
    """And what `tools/list` shows is exactly what works."""
    owner = await street.newcomer()
    token = (await owner.person.create("context-tokens", grants=[grant]))["token"]
    async with street.service.mcp_client(token) as client:
        shown = {f"tool {tool.name}" for tool in (await client.list_tools()).tools}
    for tool in sorted(TOOLS, key=lambda tool: "delete" in tool.name):
        answer = await street.ask(tool, (owner, token))
        absent = replace(tool, target="x" * len(tool.target))
        unknown = said(await street.ask(absent, (owner, token)), absent.target)
        assert is_done(answer) == (tool.name in shown), answer.text
        assert (said(answer, tool.target) == unknown) != (tool.name in shown)


@pytest.mark.parametrize("grant", Grant)
async def test_a_resource_that_is_not_granted_is_as_one_that_does_not_exist(street: Street, grant: Grant) -> None:
    """And what `resources/templates/list` shows is exactly what can be read."""
    owner = street.bob
    token = (await owner.person.create("context-tokens", grants=[grant]))["token"]
    async with street.service.mcp_client(token) as client:
        shown = {one.uri_template for one in (await client.list_resource_templates()).resource_templates}
    for template in TEMPLATES:
        (place,) = template.places
        mine, nobodys = owner.ids[place.noun or ""], str(uuid7())
        answer = await street.ask(template, (owner, token), **{place.name: mine})
        unknown = said(await street.ask(template, (owner, token), **{place.name: nobodys}), nobodys)
        is_shown = template.target.replace(place.name, "id") in shown
        assert is_done(answer) == is_shown, answer.text
        assert (said(answer, mine) == unknown) != is_shown


@pytest.mark.parametrize("door", [*TOOLS, *TEMPLATES, RESOURCES], ids=lambda door: door.name)
async def test_a_forged_token_that_names_somebody_is_as_one_that_names_nobody(street: Street, door: Rpc) -> None:
    """And costs whom it names nothing."""
    before = await street.rows(street.ada)
    forgeries = [TokenSecret.mint(UserId(name)).text for name in (street.ada.person.user_id, "nobody")]
    existing, absent = [said(await street.ask(door, (street.bob, forgery))) for forgery in forgeries]

    assert existing == absent
    assert existing[0] == 401
    assert await street.rows(street.ada) == before
