"""Nothing that is published is left out of the proof: what it does not know how to try makes it fail."""

from copy import deepcopy
from typing import Any

import pytest

from latchkey.domain.credentials import Grant
from tests.isolation.doors import API, DOCUMENT, OPERATIONS, TEMPLATES, TOOLS, Rpc, operations
from tests.isolation.place import Unfillable, formats
from tests.isolation.street import Street

pytestmark = pytest.mark.asyncio(loop_scope="session")

ADDITIONS: dict[str, dict[str, Any]] = {
    "an id of something new": {"name": "folder_id", "in": "query", "schema": {"type": "string", "format": "uuid"}},
    "a name that nobody knows": {"name": "share_with", "in": "query", "schema": {"type": "string"}},
    "a cookie": {"name": "title", "in": "cookie", "schema": {"type": "string"}},
}


async def test_what_is_tried_is_what_the_running_service_publishes(street: Street) -> None:
    served = (await street.client.get("/schema/openapi.json")).json()
    async with street.service.mcp_client(street.bob.person.token) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        templates = [one.uri_template for one in (await client.list_resource_templates()).resource_templates]

    assert operations(served) == OPERATIONS
    assert [f"tool {name}" for name in tools] == [door.name for door in TOOLS]
    assert len(templates) == len(TEMPLATES)


async def test_every_id_that_the_schemas_take_is_tried() -> None:
    """Counted in another way."""
    taken = [
        *(one.get("parameters", []) for path in DOCUMENT["paths"].values() for one in path.values()),
        *(DOCUMENT["components"]["schemas"][name] for name in requested_schemas()),
    ]

    assert list(formats(taken)).count("uuid") == sum(
        place.noun is not None for door in OPERATIONS for place in door.places
    )
    assert sum(place.noun is not None for door in TOOLS for place in door.places) >= 5


def requested_schemas() -> list[str]:
    """The names of the schemas of bodies, one for each operation that has one."""
    bodies = [
        one["requestBody"]["content"]
        for path in DOCUMENT["paths"].values()
        for one in path.values()
        if "requestBody" in one
    ]
    return [next(iter(body.values()))["schema"]["$ref"].rpartition("/")[2] for body in bodies]


@pytest.mark.parametrize("addition", ADDITIONS.values(), ids=ADDITIONS)
async def test_a_new_parameter_cannot_be_forgotten(addition: dict[str, Any]) -> None:
    document = deepcopy(DOCUMENT)
    document["paths"][f"{API}/tasks"]["get"]["parameters"].append(addition)

    with pytest.raises(Unfillable):
        operations(document)


async def test_nor_can_a_new_member_of_a_body_an_argument_or_a_kind_of_address() -> None:
    document = deepcopy(DOCUMENT)
    document["components"]["schemas"]["NewTask"]["properties"]["owner"] = {"type": "string"}

    with pytest.raises(Unfillable):
        operations(document)
    with pytest.raises(Unfillable):
        Rpc.of_tool({"name": "share", "inputSchema": {"properties": {"owner": {"type": "string"}}}})
    with pytest.raises(Unfillable):
        Rpc.of_template({"uriTemplate": "latchkey://folders/{id}"})


async def test_each_resident_holds_every_grant_there_is(street: Street) -> None:
    """So that what a stranger's token does not open is closed by whose it is, and not by what it grants."""
    for who in (street.ada, street.bob, street.eve):
        granted = [one["grants"] for one in await who.person.list_items("context-tokens") if one["turn_id"] is None]
        assert granted == [sorted(grant.value for grant in Grant)] * 3
