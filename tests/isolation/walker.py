"""A user who walks about in the service, with whatever ids and credentials come to hand."""

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from latchkey.domain.credentials import Grant
from tests.isolation.answers import is_done
from tests.isolation.doors import OPERATIONS, Door, Operation, Rpc
from tests.isolation.keeping import Keeping, Thing
from tests.isolation.place import FILLINGS
from tests.isolation.watchman import Watchman
from tests.support.event_stream import ServerSentEvent
from tests.support.service import ApiUser

EVENTS = "text/event-stream"
EVERY_PLACE = 255
"""Chosen by this number, everything that may be left out is there."""

GONE: Thing = {"revoked_at": "when its conversation was deleted", "conversation_id": None}


@dataclass
class Walker:
    """`secrets` are context tokens by their ids; `cursors` those that each listing gave."""

    person: ApiUser
    watchman: Watchman
    canary: str
    kept: Keeping = field(default_factory=Keeping)
    secrets: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    cursors: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def setting_out(cls, person: ApiUser, watchman: Watchman) -> "Walker":
        canary = f"canary-{uuid4().hex}"
        watchman.claim(person.user_id, person.user_id, canary)
        return cls(person, watchman, canary)

    async def set_result(self) -> None:
        """Have something of everything, to begin with."""
        begun: dict[str, dict[str, Any]] = {
            "chat": {"message": self.says(self, 0)},
            "mint_context_token": {"grants": [grant.value for grant in Grant]},
            "add_artifact": {},
        }
        for door in OPERATIONS:
            if door.name in begun:
                await self.ask(door, self, EVERY_PLACE, **begun[door.name])

    async def send(self, request: httpx2.Request) -> httpx2.Response:
        """The answer, once the watchman has looked at it."""
        response = await self.person.client.send(request)
        self.watchman.judge(self.person.user_id, request, response)
        return response

    async def get(self, path: str, **params: Any) -> Any:
        headers = {"authorization": f"Bearer {self.person.token}"}
        url = f"http://127.0.0.1:8000{self.person.path(path)}"
        response = await self.send(httpx2.Request("GET", url, params=params, headers=headers))
        assert response.status_code == httpx2.codes.OK, response.text
        return response.json()

    async def ask(self, door: Door, whose: "Walker", nth: int, *, streamed: bool = False, **given: Any) -> None:
        """At one's own path, with ids, keys and cursors of somebody's, perhaps one's own."""
        values = {**self.filling(door, whose, nth), **given}
        bearer, token = self.credential(door, nth)
        request = door.request(self.person.user_id, bearer, {}, values)
        if streamed:
            request.headers["accept"] = EVENTS
        response = await self.send(request)
        is_dead = token is not None and token["revoked_at"] is not None
        assert (response.status_code == httpx2.codes.UNAUTHORIZED) == is_dead, response.text
        if is_done(response):
            self.watchman.opened.add(door.name)
            self.learn(door, values, response, token["conversation_id"] if token else None)

    async def knock(self, door: Door, whose: "Walker", nth: int) -> None:
        """At another's path, or nobody's, with ids, keys and cursors of theirs."""
        at = f"walker-{uuid4().hex}" if whose is self else whose.person.user_id
        values = self.filling(door, whose, nth)
        response = await self.send(door.request(at, self.person.token, {}, values))
        assert response.status_code == httpx2.codes.FORBIDDEN, response.text

    def filling(self, door: Door, whose: "Walker", nth: int) -> dict[str, Any]:
        """Each place in its turn, some of those that may be left out; every text has one's own mark."""
        found = {}
        for bit, place in enumerate(door.places):
            if not place.required and not nth >> bit & 1:
                continue
            if place.noun:
                found[place.name] = chosen(whose.kept.ids(place.noun), nth) or str(uuid4())
            elif place.name in {"title", "description", "content_markdown", "message"}:
                found[place.name] = self.canary
            elif place.name == "Idempotency-Key":
                found[place.name] = chosen(whose.keys, nth) or f"key-{uuid4().hex}"
            elif place.name == "cursor":
                found[place.name] = chosen(whose.cursors.get(door.name, []), nth)
            else:
                found[place.name] = chosen(list(FILLINGS[place.name]), nth)
        return {name: value for name, value in found.items() if value is not None}

    def credential(self, door: Door, nth: int) -> tuple[str, Thing | None]:
        """One's own sign-in, or a context token and what it is, alive or not."""
        if door.only_person or nth % 3 == 0 or not self.secrets:
            return self.person.token, None
        id = chosen(list(self.secrets), nth)
        return self.secrets[id], self.kept.things["context_token"].get(id, GONE)

    def learn(self, door: Door, values: dict[str, Any], response: httpx2.Response, within: str | None) -> None:
        """What one has from now on, by what was answered; something new is within the token's conversation."""
        if key := values.get("Idempotency-Key"):
            self.keys.append(key)
        if door.name == "chat":
            self.learn_turn(response)
        elif door.name.startswith(("delete_", "tool delete_")):
            noun = door.name.rpartition("delete_")[2]
            self.kept.drop(noun, values[f"{noun}_id"])
        elif door.name == "revoke_context_token":
            self.kept.things["context_token"][values["token_id"]]["revoked_at"] = "now"
        elif isinstance(door, Operation) and "application/json" in response.headers["content-type"]:
            self.learn_thing(door, response.json(), within)
        elif isinstance(door, Rpc) and "structuredContent" in (result := response.json()["result"]):
            self.learn_thing(door, result["structuredContent"], within)

    def learn_thing(self, door: Door, thing: Thing, within: str | None) -> None:
        name = door.name.removeprefix("tool ")
        if cursor := thing.get("next_cursor"):
            self.cursors.setdefault(door.name, []).append(cursor)
        if name == "mint_context_token":
            self.secrets[thing["id"]] = thing.pop("token")
        self.kept.note(name, thing, within)

    def learn_turn(self, response: httpx2.Response) -> None:
        if response.headers.get("idempotency-replayed"):
            return
        if not response.headers["content-type"].startswith(EVENTS):
            told = response.json()
            self.kept.note_turn(told["turn_id"], told["conversation_id"], told["tool_calls"])
            return
        events = [ServerSentEvent.parse(raw + b"\n\n") for raw in response.content.split(b"\n\n") if raw[:2] == b"id"]
        calls = [event.data for event in events if event.name == "tool_call.completed"]
        self.kept.note_turn(events[0].data["turn_id"], events[0].data["conversation_id"], calls)

    def says(self, whose: "Walker", nth: int) -> str:
        """A message with calls of tools in it, on somebody's things."""
        id = chosen(whose.kept.ids("task"), nth) or str(uuid4())
        artifact = {"artifact_id": chosen(whose.kept.ids("artifact"), nth)} if nth & 1 else {}
        calls: list[tuple[str, Thing]] = [
            ("add_task", {"title": self.canary}),
            ("update_task", {"task_id": id, "description": self.canary}),
            ("delete_task", {"task_id": id}),
            ("complete_task", {"task_id": id}),
            ("list_tasks", {"limit": 2}),
            ("save_artifact", {"title": self.canary, "content_markdown": self.canary, **artifact}),
        ]
        name, arguments = calls[nth % len(calls)]
        return f"{self.canary}\n/{name} {json.dumps(arguments)}"


def chosen(of: list[Any], nth: int) -> Any:
    """One of them, or None if there is none."""
    return of[nth % len(of)] if of else None
