"""A user with data of every kind that the app has, made by calling everything that creates."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct

from latchkey.testing.rows import UUID, Rows, ids_in, rows_of
from latchkey.testing.service import ToolResult, User
from latchkey.testing.surface import Operation

Examples = Mapping[str, Mapping[str, Any]]


class Answer(Struct, frozen=True):
    """What the service answers to a call of an operation, as a text. `is_success` says that it did something."""

    text: str
    is_success: bool

    @property
    def ids(self) -> list[str]:
        """The ids in the answer, in order."""
        return list(dict.fromkeys(UUID.findall(self.text)))

    @property
    def comparable(self) -> str:
        """The text without ids, times and request ids, so that answers to different calls can be compared."""
        text = re.sub(r'"request_id": ?"[^"]*"', '"request_id":""', self.text)
        return UUID.sub("ID", re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text))


class Tenant(Struct, frozen=True, eq=False):
    """A user whose texts are all the canary. `ids` are those that the service has answered to their calls."""

    user: User
    canary: str
    examples: Examples
    ids: list[str]
    shared_ids: set[str]

    @classmethod
    async def of(cls, user: User, examples: Examples) -> "Tenant":
        """Make the tenant. `shared_ids` are those in the reference tables, which every user may be answered."""
        service = user.service
        shared = await ids_in(service.database_url, service.registry.schema.reference_tables)
        return cls(user, f"canary {uuid4().hex}", examples, [], shared)

    @classmethod
    async def with_data(cls, user: User, examples: Examples, operations: list[Operation]) -> "Tenant":
        """Make the tenant, and its data with these operations."""
        tenant = await cls.of(user, examples)
        await tenant.create_data(operations)
        return tenant

    @property
    def marks(self) -> list[str]:
        """The texts that no other user may be answered."""
        return [self.canary, *self.ids]

    async def create_data(self, operations: list[Operation]) -> set[str]:
        """Chat, and call each operation that needs no id. Return the names of those that have succeeded."""
        succeeded = set()
        self.ids.extend(Answer(msgspec.json.encode(await self.user.chat(self.canary)).decode(), is_success=True).ids)
        for operation in operations:
            if operation.needs_id and not self._gives_ids(operation):
                continue
            answer = await self.call(operation)
            if answer.is_success:
                succeeded.add(operation.name)
                self.ids.extend(id for id in answer.ids if id not in {*self.ids, *self.shared_ids})
        return succeeded

    async def call(
        self,
        operation: Operation,
        arguments: Mapping[str, Any] = MappingProxyType({}),
        *,
        call_id: str | None = None,
        at: User | None = None,
    ) -> Answer:
        """Call the operation with example arguments, as this user, or `at` the path or token of another."""
        given = {**self.examples.get(operation.name, {}), **arguments}
        values = operation.example(self.canary, given)
        user = at or self.user
        if operation.is_tool:
            return _tool_answer(await user.call_tool_once(operation.name, call_id, values))
        headers = {"authorization": f"Bearer {self.user.bearer}"} | ({"idempotency-key": call_id} if call_id else {})
        path_names = re.findall(r"\{(\w+)\}", operation.path)
        path = re.sub(r"\{(\w+)\}", lambda match: str(values[match[1]]), operation.path)
        body = {name: value for name, value in values.items() if name in operation.body}
        query = {name: value for name, value in values.items() if name not in {*body, *path_names}}
        options: dict[str, Any] = {"json": body} if operation.method in {"POST", "PUT", "PATCH"} else {}
        response = await user.request(operation.method, path, params=query, headers=headers, **options)
        return Answer(f"{response.status_code} {response.text}", response.is_success)

    async def succeeds(self, operation: Operation) -> bool:
        """Call the operation with each of the user's ids, and with those of the examples, until one call succeeds."""
        examples = self.examples.get(operation.name, {})
        for id in reversed(self.ids):
            if (await self.call(operation, {**dict.fromkeys(operation.ids, id), **examples})).is_success:
                return True
        return False

    def _gives_ids(self, operation: Operation) -> bool:
        """Whether the examples have all ids that the operation needs."""
        return operation.required & {*operation.ids} <= self.examples.get(operation.name, {}).keys()

    async def rows(self) -> Rows:
        """Return the user's rows in the tables of the apps."""
        service = self.user.service
        tables = [table.name for table in service.registry.schema.entities]
        return await rows_of(self.user.user_id, service.database_url, tables)


def _tool_answer(result: ToolResult) -> Answer:
    return Answer(msgspec.json.encode(result.content).decode(), not result.is_error)
