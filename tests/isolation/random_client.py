"""A user that sends requests with its own or foreign ids, keys, cursors and credentials."""

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from tests.isolation.endpoints import ENDPOINTS, HTTP_ENDPOINTS, Endpoint, HttpEndpoint, McpEndpoint
from tests.isolation.leak_detector import LeakDetector
from tests.isolation.parameters import SAMPLE_VALUES
from tests.isolation.responses import is_successful
from tests.isolation.state_model import OPERATIONS, Entity, StateModel
from tests.isolation.tenants import ALL_GRANTS
from tests.support.event_stream import ServerSentEvent
from tests.support.service import ApiUser

EVENTS = "text/event-stream"
ALL_PARAMETERS = 255
"""The choice that fills every optional parameter: each bit of a choice stands for one of them."""

DELETED_TOKEN: Entity = {"revoked_at": "when its conversation was deleted", "conversation_id": None}


@dataclass
class RandomClient:
    """A user, and a model of the data that it must have.

    A choice is a random number that selects everything that is not fixed about a request. `tokens` are secrets of
    context tokens by id; `cursors` are those that each list returned, by the name of its endpoint.
    """

    user: ApiUser
    leak_detector: LeakDetector
    canary: str
    model: StateModel = field(default_factory=StateModel)
    tokens: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    cursors: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def create(cls, user: ApiUser, leak_detector: LeakDetector) -> "RandomClient":
        canary = f"canary-{uuid4().hex}"
        leak_detector.register(user.user_id, user.user_id, canary)
        return cls(user, leak_detector, canary)

    async def create_initial_data(self) -> None:
        """Create at least one entity of each noun, and call the endpoints that have not succeeded yet."""
        creations: dict[str, dict[str, Any]] = {
            "chat": {"message": self.message_with_tool_call(self, 0)},
            "mint_context_token": {"grants": ALL_GRANTS},
            "add_artifact": {},
            "add_note": {},
        }
        for endpoint in HTTP_ENDPOINTS:
            if endpoint.name in creations:
                await self.call(endpoint, self, ALL_PARAMETERS, **creations[endpoint.name])
        for untried in sorted(ENDPOINTS, key=lambda endpoint: "delete" in endpoint.name):
            if untried.name not in self.leak_detector.succeeded and untried.name != "chat":
                await self.call(untried, self, 0)

    async def send(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and search its response for leaks."""
        response = await self.user.client.send(request)
        self.leak_detector.check(self.user.user_id, request, response)
        return response

    async def get(self, path: str, **params: Any) -> Any:
        headers = {"authorization": f"Bearer {self.user.token}"}
        url = f"http://127.0.0.1:8000{self.user.path(path)}"
        response = await self.send(httpx2.Request("GET", url, params=params, headers=headers))
        assert response.status_code == httpx2.codes.OK, response.text
        return response.json()

    async def call(
        self, endpoint: Endpoint, owner: "RandomClient", choice: int, *, streamed: bool = False, **values: Any
    ) -> None:
        """Call the endpoint below the own path, with ids, keys and cursors of the owner, who may be this client."""
        values = {**self.choose_values(endpoint, owner, choice), **values}
        bearer, token = self.choose_credential(endpoint, choice)
        request = endpoint.request(self.user.user_id, bearer, {}, values)
        if streamed:
            request.headers["accept"] = EVENTS
        response = await self.send(request)
        is_revoked = token is not None and token["revoked_at"] is not None
        assert (response.status_code == httpx2.codes.UNAUTHORIZED) == is_revoked, response.text
        if is_successful(response):
            self.leak_detector.succeeded.add(endpoint.name)
            self.update_model(endpoint, values, response, token["conversation_id"] if token else None)

    async def call_foreign_path(self, endpoint: Endpoint, owner: "RandomClient", choice: int) -> None:
        """Call the endpoint below the path of the owner, or of an unknown user if this client is the owner."""
        path_user = f"tenant-{uuid4().hex}" if owner is self else owner.user.user_id
        values = self.choose_values(endpoint, owner, choice)
        response = await self.send(endpoint.request(path_user, self.user.token, {}, values))
        assert response.status_code == httpx2.codes.FORBIDDEN, response.text

    def choose_values(self, endpoint: Endpoint, owner: "RandomClient", choice: int) -> dict[str, Any]:
        """Values for the required and some optional parameters. Every text is the canary of this client."""
        values = {}
        for bit, parameter in enumerate(endpoint.parameters):
            if not parameter.required and not choice >> bit & 1:
                continue
            if parameter.noun:
                values[parameter.name] = pick(owner.model.ids(parameter.noun), choice) or str(uuid4())
            elif parameter.name in {"title", "description", "content_markdown", "message", "text"}:
                values[parameter.name] = self.canary
            elif parameter.name == "Idempotency-Key":
                # A used key belongs to one request, so that most requests with it are refused.
                used = pick(owner.keys, choice) if choice % 4 == 0 else None
                values[parameter.name] = used or f"key-{uuid4().hex}"
            elif parameter.name == "cursor":
                values[parameter.name] = pick(owner.cursors.get(endpoint.name, []), choice)
            else:
                values[parameter.name] = pick(list(SAMPLE_VALUES[parameter.name]), choice)
        return {name: value for name, value in values.items() if value is not None}

    def choose_credential(self, endpoint: Endpoint, choice: int) -> tuple[str, Entity | None]:
        """The user's JWT, or a context token with its entity. The token may be revoked."""
        if endpoint.user_only or choice % 3 == 0 or not self.tokens:
            return self.user.token, None
        id = pick(list(self.tokens), choice)
        return self.tokens[id], self.model.entities["context_token"].get(id, DELETED_TOKEN)

    def update_model(
        self, endpoint: Endpoint, values: dict[str, Any], response: httpx2.Response, token_conversation: str | None
    ) -> None:
        """Record the effect of a successful call. A new entity belongs to the conversation of the token."""
        operation = endpoint.name.removeprefix("tool ")
        operation = OPERATIONS.get(operation, operation)
        if key := values.get("Idempotency-Key"):
            self.keys.append(key)
        if endpoint.name == "chat":
            self.record_turn(response)
        elif endpoint.name == "undo_turn":
            self.model.undo(values["turn_id"], response.json()["undone_at"])
        elif operation.startswith("delete_"):
            noun = operation.removeprefix("delete_")
            self.model.remove(noun, values[f"{noun}_id"])
        elif endpoint.name == "revoke_context_token":
            self.model.entities["context_token"][values["token_id"]]["revoked_at"] = "now"
        elif isinstance(endpoint, HttpEndpoint) and "application/json" in response.headers["content-type"]:
            self.record_entity(endpoint, response.json(), token_conversation)
        elif isinstance(endpoint, McpEndpoint) and "structuredContent" in (result := response.json()["result"]):
            self.record_entity(endpoint, result["structuredContent"], token_conversation)

    def record_entity(self, endpoint: Endpoint, entity: Entity, token_conversation: str | None) -> None:
        name = endpoint.name.removeprefix("tool ")
        if cursor := entity.get("next_cursor"):
            self.cursors.setdefault(endpoint.name, []).append(cursor)
        if name == "mint_context_token":
            self.tokens[entity["id"]] = entity.pop("token")
        self.model.record(name, entity, token_conversation)

    def record_turn(self, response: httpx2.Response) -> None:
        if response.headers.get("idempotency-replayed"):
            return
        if not response.headers["content-type"].startswith(EVENTS):
            turn = response.json()
            self.model.record_turn(turn["turn_id"], turn["conversation_id"], turn["tool_calls"], self.canary)
            return
        events = [ServerSentEvent.parse(raw + b"\n\n") for raw in response.content.split(b"\n\n") if raw[:2] == b"id"]
        calls = [event.data for event in events if event.name == "tool_call.completed"]
        title = self.canary if events[-1].name == "turn.completed" else None
        self.model.record_turn(events[0].data["turn_id"], events[0].data["conversation_id"], calls, title)

    def message_with_tool_call(self, owner: "RandomClient", choice: int) -> str:
        """A message that makes the scripted agent call one tool, on an entity of the owner."""
        id = pick(owner.model.ids("task"), choice) or str(uuid4())
        artifact = {"artifact_id": pick(owner.model.ids("artifact"), choice)} if choice & 1 else {}
        calls: list[tuple[str, Entity]] = [
            ("add_task", {"title": self.canary}),
            ("update_task", {"task_id": id, "description": self.canary}),
            ("delete_task", {"task_id": id}),
            ("complete_task", {"task_id": id}),
            ("list_tasks", {"limit": 2}),
            ("save_artifact", {"title": self.canary, "content_markdown": self.canary, **artifact}),
        ]
        name, arguments = calls[choice % len(calls)]
        return f"{self.canary}\n/{name} {json.dumps(arguments)}"


def pick(values: list[Any], choice: int) -> Any:
    """The value that the choice selects, or None from an empty list."""
    return values[choice % len(values)] if values else None
