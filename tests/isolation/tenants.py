"""Three users with data of every kind in one service, and requests on their behalf."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2

from latchkey.bootstrap.registry import BUILT_IN, Registry
from latchkey.infrastructure.database.schema import TABLE_NAMES
from latchkey.testing.rows import Rows, rows_of
from tests.isolation.endpoints import Endpoint
from tests.support.service import ApiUser, Service

ACCEPT_EVENTS = {"accept": "text/event-stream"}
ALL_GRANTS = [*Registry.of(*BUILT_IN).grants.names]


@dataclass(frozen=True)
class Tenant:
    """A user with at least one entity of every noun, all marked with the canary.

    `ids` has one id for each noun. `secret` is a context token for all of the data; `bound` is one that is limited to
    another conversation of the same user.
    """

    user: ApiUser
    canary: str
    ids: dict[str, str]
    key: str
    secret: str
    bound: str
    token_ids: list[str]

    @classmethod
    async def create(cls, user: ApiUser) -> "Tenant":
        """Create the data: two entities for each list, so that each list has a second page."""
        canary = f"canary-{uuid4().hex}"
        key = f"key-{canary}"
        question = f'/remember {{"text": "{canary}"}}'
        message = f'{canary}\n/add_task {{"title": "{canary}"}}\n{question}'
        body = {"json": {"message": message}, "headers": {"Idempotency-Key": key}}
        waiting = (await user.post("chat", **body)).json()
        approval = f"turns/{waiting['turn_id']}/approvals/{waiting['approvals'][0]['id']}"
        async with user.stream("POST", approval, json={"decision": "approve"}, headers=ACCEPT_EVENTS) as events:
            await events.aread()
        answer = (await user.post("chat", **body)).json()
        conversation = answer["conversation_id"]
        await user.chat(canary, conversation_id=conversation)
        other_conversation = await user.create("conversations", title=canary)
        await user.create("tasks", title=canary, description=canary)
        document = {"title": canary, "content_markdown": canary, "conversation_id": conversation}
        _, artifact = [await user.create("artifacts", **document) for _ in range(2)]
        await user.put(f"artifacts/{artifact['id']}", json={"content_markdown": canary})
        _, note = [await user.create("notes", text=canary) for _ in range(2)]
        listed = await user.create("context-tokens", grants=ALL_GRANTS)
        unbound = await user.create("context-tokens", grants=ALL_GRANTS)
        bound = await user.create("context-tokens", grants=ALL_GRANTS, conversation_id=other_conversation["id"])
        for _ in range(2):
            await user.post("chat", json={"message": question})
        added, remembered = answer["tool_calls"]
        ids = {
            "conversation": conversation,
            "turn": answer["turn_id"],
            "message": answer["message"]["id"],
            "tool_call": remembered["id"],
            "task": added["result"]["id"],
            "artifact": artifact["id"],
            "note": note["id"],
            "token": listed["id"],
        }
        token_ids = [token["id"] for token in (listed, unbound, bound)]
        return cls(user, canary, ids, key, unbound["token"], bound["token"], token_ids)

    @property
    def marks(self) -> list[bytes]:
        """Byte strings that no other user may receive."""
        marks = [self.canary, self.user.user_id, self.secret, self.bound, *self.ids.values()]
        return [mark.encode() for mark in marks]


Caller = tuple[Tenant, str]
"""A tenant, and the credential that it presents."""


@dataclass(frozen=True)
class Tenants:
    """Ada is the target of foreign requests. Bob and Eve are the other users, with as much data of their own."""

    service: Service
    client: httpx2.AsyncClient
    database_url: str
    ada: Tenant
    bob: Tenant
    eve: Tenant

    @property
    def others(self) -> list[Tenant]:
        return [self.bob, self.eve]

    def callers(self, endpoint: Endpoint) -> list[Caller]:
        """Bob and Eve, each with every kind of credential that the endpoint accepts."""
        callers = [(tenant, tenant.user.token) for tenant in self.others]
        if not endpoint.user_only:
            callers += [(tenant, secret) for tenant in self.others for secret in (tenant.secret, tenant.bound)]
        return callers

    async def send(
        self, endpoint: Endpoint, caller: Caller, path_user: str | None = None, **values: Any
    ) -> httpx2.Response:
        """Send a request of the caller, below its own path or that of another user."""
        tenant, bearer = caller
        return await self.client.send(endpoint.request(path_user or tenant.user.user_id, bearer, tenant.ids, values))

    async def new_tenant(self) -> Tenant:
        return await Tenant.create(self.service.user())

    async def rows(self, tenant: Tenant) -> Rows:
        return await rows_of(tenant.user.user_id, self.database_url, TABLE_NAMES)

    async def entities(self, *tenants: Tenant) -> list[Rows]:
        """All rows but those of the quota usage, which grows with the tenant's own requests."""
        rows_by_tenant = [await self.rows(tenant) for tenant in tenants]
        return [{name: rows for name, rows in tables.items() if name != "allowances"} for tables in rows_by_tenant]
