"""Every endpoint that takes user input, derived from the published OpenAPI document, MCP tools and resources."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2

from latchkey.interfaces.mcp.resources import RESOURCE_TEMPLATES
from tests import schemas
from tests.integration.mcp.jsonrpc import headers, message
from tests.isolation.parameters import Parameter, fill
from tests.support.service import BASE_URL

API = "/api/{user_id}"


@dataclass(frozen=True)
class HttpEndpoint:
    """An operation of the HTTP API. All are `user_only`: they reject context tokens."""

    name: str
    method: str
    path: str
    media_type: str | None
    parameters: tuple[Parameter, ...]
    user_only = True

    @classmethod
    def of(cls, path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> "HttpEndpoint":
        declared = [resolve(parameter, document) for parameter in operation.get("parameters", [])]
        parameters = [
            Parameter.of(
                parameter["name"],
                parameter["in"],
                resolve(parameter["schema"], document),
                required=parameter.get("required", False),
            )
            for parameter in declared
            if parameter["name"] != "user_id"
        ]
        content = operation.get("requestBody", {}).get("content", {})
        for body in list(content.values())[:1]:
            parameters += _properties(resolve(body["schema"], document), "body")
        media_type = next(iter(content), None)
        return cls(operation["operationId"], method.upper(), path, media_type, tuple(parameters))

    def request(self, user_id: str, bearer: str, ids: Mapping[str, str], values: Mapping[str, Any]) -> httpx2.Request:
        """A request below the path of that user. `ids` and sample values complete the required parameters."""
        values = fill(self.parameters, ids, values)
        parts: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}, "body": {}}
        for parameter in self.parameters:
            if parameter.name in values:
                parts[parameter.location][parameter.name] = values[parameter.name]
        request_headers = {"authorization": f"Bearer {bearer}", **parts["header"]}
        if self.media_type:
            request_headers["content-type"] = self.media_type
        path = self.path.format(user_id=quote(user_id, safe=""), **parts["path"])
        json = parts["body"] if self.media_type else None
        return httpx2.Request(self.method, BASE_URL + path, params=parts["query"], headers=request_headers, json=json)


@dataclass(frozen=True)
class McpEndpoint:
    """An MCP tool, resource template or list method. `target` is the tool name or the URI template."""

    name: str
    method: str
    parameters: tuple[Parameter, ...]
    target: str = ""
    user_only = False

    @classmethod
    def of_tool(cls, tool: dict[str, Any]) -> "McpEndpoint":
        parameters = tuple(_properties(tool["inputSchema"], "argument"))
        return cls(f"tool {tool['name']}", "tools/call", parameters, tool["name"])

    @classmethod
    def of_template(cls, template: dict[str, Any]) -> "McpEndpoint":
        """The URI has one id. The path segment before it is the plural of the noun."""
        uri: str = template["uriTemplate"]
        noun = uri.removesuffix("s/{id}").rpartition("/")[2]
        parameter = Parameter.of(f"{noun}_id", "argument", {"format": "uuid"}, required=True)
        return cls(f"resource {noun}", "resources/read", (parameter,), uri.replace("{id}", f"{{{parameter.name}}}"))

    @classmethod
    def of_list(cls, method: str) -> "McpEndpoint":
        return cls(method, method, (Parameter.of("cursor", "argument", {}, required=False),))

    def request(self, _: str, bearer: str, ids: Mapping[str, str], values: Mapping[str, Any]) -> httpx2.Request:
        """A request as in `HttpEndpoint`. Over MCP only the credential selects the user."""
        values = fill(self.parameters, ids, values)
        params: dict[str, Any] = values
        if self.method == "tools/call":
            params = {"name": self.target, "arguments": values}
        elif self.method == "resources/read":
            params = {"uri": self.target.format(**values)}
        body = message("current", self.method, params)
        return httpx2.Request("POST", f"{BASE_URL}/mcp", json=body, headers=headers("current", body, bearer))


Endpoint = HttpEndpoint | McpEndpoint


def resolve(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Follow references until a schema without `$ref`."""
    while "$ref" in schema:
        node: Any = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            node = node[name]
        schema = node
    return schema


def http_endpoints(document: dict[str, Any]) -> list[HttpEndpoint]:
    """Every operation of the document below the path of a user."""
    return [
        HttpEndpoint.of(path, method, operation, document)
        for path, methods in document["paths"].items()
        if path.startswith(API)
        for method, operation in methods.items()
    ]


def _properties(schema: dict[str, Any], location: str) -> list[Parameter]:
    required = schema.get("required", [])
    return [
        Parameter.of(name, location, property_schema, required=name in required)
        for name, property_schema in schema["properties"].items()
    ]


DOCUMENT: dict[str, Any] = asyncio.run(schemas.openapi())
HTTP_ENDPOINTS = http_endpoints(DOCUMENT)
TOOLS = [McpEndpoint.of_tool(tool) for tool in schemas.mcp()["tools"]]
TEMPLATES = [McpEndpoint.of_template(template) for template in RESOURCE_TEMPLATES.values()]
RESOURCE_LIST = McpEndpoint.of_list("resources/list")
ENDPOINTS: list[Endpoint] = [*HTTP_ENDPOINTS, *TOOLS, *TEMPLATES, RESOURCE_LIST]
