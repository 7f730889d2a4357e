"""Every way into the service that takes something of its caller, read from what the service publishes."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2

from latchkey.interfaces.mcp.resources import _TEMPLATES
from tests import schemas
from tests.integration.mcp.wire import headers, message
from tests.isolation.place import Place, filled
from tests.support.service import BASE_URL

API = "/api/{user_id}"


@dataclass(frozen=True)
class Operation:
    """An operation of the HTTP API, which `only_person` may ask for: no context token opens it."""

    name: str
    method: str
    path: str
    media_type: str | None
    places: tuple[Place, ...]
    only_person = True

    @classmethod
    def of(cls, path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> "Operation":
        declared = [resolved(one, document) for one in operation.get("parameters", [])]
        places = [
            Place.of(one["name"], one["in"], resolved(one["schema"], document), required=one.get("required", False))
            for one in declared
            if one["name"] != "user_id"
        ]
        content = operation.get("requestBody", {}).get("content", {})
        for body in list(content.values())[:1]:
            schema = resolved(body["schema"], document)
            places += _members(schema, "body")
        media_type = next(iter(content), None)
        return cls(operation["operationId"], method.upper(), path, media_type, tuple(places))

    def request(self, user_id: str, bearer: str, ids: Mapping[str, str], given: Mapping[str, Any]) -> httpx2.Request:
        """At that user's path, with that credential, ids of one's own where ids are required, and what is given."""
        values = filled(self.places, ids, given)
        parts: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}, "body": {}}
        for place in self.places:
            if place.name in values:
                parts[place.where][place.name] = values[place.name]
        told = {"authorization": f"Bearer {bearer}", **parts["header"]}
        if self.media_type:
            told["content-type"] = self.media_type
        path = self.path.format(user_id=quote(user_id, safe=""), **parts["path"])
        json = parts["body"] if self.media_type else None
        return httpx2.Request(self.method, BASE_URL + path, params=parts["query"], headers=told, json=json)


@dataclass(frozen=True)
class Rpc:
    """What is asked for over MCP: a tool, a listing, or what is at an address."""

    name: str
    method: str
    places: tuple[Place, ...]
    target: str = ""
    only_person = False

    @classmethod
    def of_tool(cls, tool: dict[str, Any]) -> "Rpc":
        return cls(f"tool {tool['name']}", "tools/call", tuple(_members(tool["inputSchema"], "argument")), tool["name"])

    @classmethod
    def of_template(cls, template: dict[str, Any]) -> "Rpc":
        """Its address has one id in it, of what stands before that in the plural."""
        uri: str = template["uriTemplate"]
        noun = uri.removesuffix("s/{id}").rpartition("/")[2]
        place = Place.of(f"{noun}_id", "argument", {"format": "uuid"}, required=True)
        return cls(f"resource {noun}", "resources/read", (place,), uri.replace("{id}", f"{{{place.name}}}"))

    @classmethod
    def of_listing(cls, method: str) -> "Rpc":
        return cls(method, method, (Place.of("cursor", "argument", {}, required=False),))

    def request(self, _: str, bearer: str, ids: Mapping[str, str], given: Mapping[str, Any]) -> httpx2.Request:
        """The same; over MCP the credential alone says whose things are meant."""
        values = filled(self.places, ids, given)
        params: dict[str, Any] = values
        if self.method == "tools/call":
            params = {"name": self.target, "arguments": values}
        elif self.method == "resources/read":
            params = {"uri": self.target.format(**values)}
        sent = message("current", self.method, params)
        return httpx2.Request("POST", f"{BASE_URL}/mcp", json=sent, headers=headers("current", sent, bearer))


Door = Operation | Rpc


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """What a reference refers to."""
    while "$ref" in schema:
        found: Any = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        schema = found
    return schema


def operations(document: dict[str, Any]) -> list[Operation]:
    return [
        Operation.of(path, method, operation, document)
        for path, methods in document["paths"].items()
        if path.startswith(API)
        for method, operation in methods.items()
    ]


def _members(schema: dict[str, Any], where: str) -> list[Place]:
    required = schema.get("required", [])
    return [Place.of(name, where, one, required=name in required) for name, one in schema["properties"].items()]


DOCUMENT: dict[str, Any] = asyncio.run(schemas.openapi())
OPERATIONS = operations(DOCUMENT)
TOOLS = [Rpc.of_tool(tool) for tool in schemas.mcp()["tools"]]
TEMPLATES = [Rpc.of_template(template) for template in _TEMPLATES.values()]
RESOURCES = Rpc.of_listing("resources/list")
DOORS: list[Door] = [*OPERATIONS, *TOOLS, *TEMPLATES, RESOURCES]
