"""The operations of docs/openapi.json as tests call them: a new operation or entity is covered without an edit."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from uuid_utils.compat import uuid7

from tests.support.published_schema import DOCUMENT
from tests.support.schema_examples import example, resolve
from tests.support.service import ApiUser

ASKING = "asking"
"""The assistant of the fixture `service` whose tool asks the user first."""

USER_PATH = "/api/{user_id}/"


@dataclass(frozen=True)
class Operation:
    """A published operation on a user's data. `path` is relative to `/api/{user_id}/`."""

    name: str
    method: str
    path: str
    definition: dict[str, Any]

    @property
    def body_schema(self) -> dict[str, Any] | None:
        content = self.definition.get("requestBody", {}).get("content", {})
        schema: dict[str, Any] | None = next((media["schema"] for media in content.values()), None)
        return schema

    @property
    def headers(self) -> dict[str, str]:
        return {"content-type": next(iter(self.definition["requestBody"]["content"]))} if self.body_schema else {}

    @property
    def body(self) -> dict[str, Any] | None:
        """A valid body: the required members, or else the first one."""
        if self.body_schema is None:
            return None
        schema = resolve(self.body_schema, DOCUMENT)
        required: dict[str, Any] = example(schema, DOCUMENT)
        name, first = next(iter(schema["properties"].items()))
        return required or {name: example(first, DOCUMENT)}

    @property
    def body_properties(self) -> list[str]:
        return list(resolve(self.body_schema, DOCUMENT)["properties"]) if self.body_schema else []

    @property
    def content(self) -> bytes | None:
        return json.dumps(self.body).encode() if self.body_schema else None

    @property
    def is_listing(self) -> bool:
        """Whether it lists a collection that belongs to the user, not to another entity."""
        return self.method == "GET" and not self.parameters("path")

    def parameters(self, location: str) -> dict[str, dict[str, Any]]:
        """The schemas of its parameters in `path`, `query` or `header`, without the user id."""
        declared = [resolve(parameter, DOCUMENT) for parameter in self.definition.get("parameters", [])]
        return {
            parameter["name"]: parameter["schema"]
            for parameter in declared
            if parameter["in"] == location and parameter["name"] != "user_id"
        }

    def path_with(self, ids: Mapping[str, str]) -> str:
        """The path with these ids, and with new ids where `ids` has none."""
        values = {**dict.fromkeys(self.parameters("path"), str(uuid7())), **ids}
        is_of_call = "call_id" in self.parameters("path")
        if is_of_call and "waiting_turn_id" in ids and ids["turn_id"] == ids["replaces"]:
            values["turn_id"] = ids["waiting_turn_id"]
        return self.path.format_map(values)

    async def call(self, user: ApiUser, arguments: Mapping[str, Any]) -> httpx2.Response:
        """Call it with arguments by name, as an MCP tool takes them; `version` becomes `If-Match` where that exists."""
        parameters = dict(arguments)
        path = self.path.format_map({name: parameters.pop(name) for name in self.parameters("path")})
        headers = dict(self.headers)
        if "If-Match" in self.parameters("header") and (version := parameters.pop("version", None)) is not None:
            headers["if-match"] = f'"{version}"'
        if self.body_schema is None:
            return await user.request(self.method, path, headers=headers, params=parameters)
        return await user.request(self.method, path, headers=headers, content=json.dumps(parameters))


OPERATIONS = {
    definition["operationId"]: Operation(
        definition["operationId"], method.upper(), path.removeprefix(USER_PATH), definition
    )
    for path, methods in DOCUMENT["paths"].items()
    for method, definition in methods.items()
    if path.startswith(USER_PATH)
}
LISTINGS = [
    operation.path for operation in OPERATIONS.values() if operation.is_listing and operation.path != "assistants"
]
"""The listings of what a user has. The assistants are the same for all users."""


def each_operation(condition: Callable[[Operation], Any] = lambda _: True) -> pytest.MarkDecorator:
    """Parametrise `operation` with each published operation that meets the condition."""
    chosen = {name: operation for name, operation in OPERATIONS.items() if condition(operation)}
    return pytest.mark.parametrize("operation", chosen.values(), ids=chosen)


async def create_one_of_each(user: ApiUser) -> dict[str, str]:
    """Create one entity of each kind and return their ids by the names of the path parameters and body members.

    A turn and its conversation come from a chat message, a call that waits for the user from another one, and other
    entities from a POST to their collection.
    """
    answer = await user.chat('Hello\n/add_task {"title": "To be undone"}')
    turn_id = answer["turn_id"]
    ids = {"conversation_id": answer["conversation_id"], "turn_id": turn_id, "replaces": turn_id}
    question = await user.post("chat", json={"message": '/remember {"text": "A question"}', "assistant": ASKING})
    ids["waiting_turn_id"], ids["call_id"] = question.json()["turn_id"], question.json()["approvals"][0]["id"]
    creators = {operation.path: operation for operation in OPERATIONS.values() if operation.method == "POST"}
    for operation in OPERATIONS.values():
        for name in operation.parameters("path").keys() - ids.keys():
            collection = operation.path.partition(f"/{{{name}}}")[0]
            ids[name] = (await user.create(collection, **(creators[collection].body or {})))["id"]
    return ids
