"""The laws that every app must keep, generated from what the app serves. A class derived from `AppLaws` runs them."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.migrations import check, downgrade, upgrade
from latchkey.infrastructure.database.revision import app_history
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.startup_checks import verify
from latchkey.testing.service import Service
from latchkey.testing.surface import Operation, operations_of, tools_of
from latchkey.testing.tenant import Tenant

_NEED_A_SPECIAL_TURN = {"decide_approval", "undo_turn"}
"""Built-in operations that succeed only for a turn that waits, or that has had effects."""

_async = pytest.mark.asyncio(loop_scope="session")


class AppLaws:
    """Isolation, exactly-once effects, grants, parity and migrations, for everything that the app serves."""

    @pytest_asyncio.fixture(loop_scope="session")
    async def operations(self, latchkey_service: Service) -> list[Operation]:
        """Every tool and REST operation."""
        return [*tools_of(latchkey_service), *await operations_of(latchkey_service)]

    @pytest_asyncio.fixture(loop_scope="session")
    async def ada(
        self, latchkey_service: Service, operations: list[Operation], latchkey_examples: Mapping[str, Any]
    ) -> Tenant:
        """A user with data of every kind."""
        return await Tenant.with_data(latchkey_service.new_user(), latchkey_examples, operations)

    @pytest_asyncio.fixture(loop_scope="session")
    async def bob(
        self, latchkey_service: Service, operations: list[Operation], latchkey_examples: Mapping[str, Any]
    ) -> Tenant:
        """Another user with data of every kind."""
        return await Tenant.with_data(latchkey_service.new_user(), latchkey_examples, operations)

    @_async
    async def test_every_operation_succeeds_for_its_own_data(
        self, operations: list[Operation], latchkey_service: Service, latchkey_examples: Mapping[str, Any]
    ) -> None:
        """Or else the other laws would prove nothing about it."""
        shared = await Tenant.of(latchkey_service.new_user(), latchkey_examples)
        succeeded = await shared.create_data(operations)
        for operation in operations:
            if operation.name in succeeded or operation.name in _NEED_A_SPECIAL_TURN:
                continue
            tenant = shared
            if operation.is_destructive:
                tenant = await Tenant.with_data(latchkey_service.new_user(), latchkey_examples, operations)
            if await tenant.succeeds(operation):
                succeeded.add(operation.name)
        failed = sorted({operation.name for operation in operations} - succeeded - _NEED_A_SPECIAL_TURN)

        assert failed == [], (
            f"No call of {', '.join(failed)} succeeds: give arguments that do in the fixture `latchkey_examples`"
        )

    @_async
    async def test_no_answer_has_data_of_another_user(
        self, operations: list[Operation], ada: Tenant, bob: Tenant
    ) -> None:
        for operation in operations:
            if operation.needs_id:
                continue
            answer = await bob.call(operation)
            leaked = [mark for mark in ada.marks if mark in answer.text]
            assert leaked == [], f"{operation.name} answers one user with data of another: {answer.text[:500]}"

    @_async
    async def test_id_of_another_user_is_like_an_unknown_one(
        self, operations: list[Operation], ada: Tenant, bob: Tenant
    ) -> None:
        """The answer is the same, and nothing of that user changes."""
        before = await ada.rows()
        for operation in operations:
            for argument in operation.ids:
                unknown = str(uuid4())
                others = {name: str(uuid4()) for name in operation.ids if name in operation.required}
                expected = await bob.call(operation, {**others, argument: unknown})
                for id in ada.ids:
                    answer = await bob.call(operation, {**others, argument: id})
                    assert answer.comparable == expected.comparable, (
                        f"{operation.name} with {argument} of another user answers {answer.text[:300]}, and with an"
                        f" unknown one {expected.text[:300]}"
                    )
        assert await ada.rows() == before, "an operation has changed the rows of another user"

    @_async
    async def test_path_of_another_user_is_forbidden(
        self, operations: list[Operation], ada: Tenant, bob: Tenant
    ) -> None:
        before = await ada.rows()
        for operation in operations:
            if operation.is_tool:
                continue
            answer = await bob.call(operation, dict.fromkeys(operation.ids, ada.ids[0]), at=ada.user)
            assert answer.text.startswith("403 "), f"{operation.name} at another user's path: {answer.text[:300]}"
        assert await ada.rows() == before

    @_async
    async def test_query_cannot_name_another_user(self, operations: list[Operation]) -> None:
        named = [operation.name for operation in operations if {"user_id", "user", "sub"} & operation.arguments.keys()]

        assert named == [], f"{', '.join(named)} takes a user as an argument: the user comes from the credential"

    @_async
    async def test_repeated_call_has_one_effect(
        self, operations: list[Operation], latchkey_service: Service, latchkey_examples: Mapping[str, Any]
    ) -> None:
        """One after the other, and at the same time: the rows are those of one call, and the answers are equal."""
        for operation in operations:
            if operation.is_read or operation.needs_id or not (operation.is_tool or operation.takes_key):
                continue
            once = await Tenant.of(latchkey_service.new_user(), latchkey_examples)
            repeated = await Tenant.of(latchkey_service.new_user(), latchkey_examples)
            first = await once.call(operation, call_id="once")
            answers = await asyncio.gather(*(repeated.call(operation, call_id="repeated") for _ in range(3)))
            answers.append(await repeated.call(operation, call_id="repeated"))
            counts = [{name: len(rows) for name, rows in (await each.rows()).items()} for each in (once, repeated)]

            assert counts[0] == counts[1], (
                f"{operation.name}: one call stores {counts[0]}, four repeated ones {counts[1]}"
            )
            if first.is_success and not operation.is_outside:
                texts = {answer.text for answer in answers}
                assert len(texts) == 1, f"{operation.name} answers a repeated call differently: {sorted(texts)}"

    @_async
    async def test_tool_without_its_grant_is_like_an_unknown_one(
        self, operations: list[Operation], ada: Tenant, latchkey_service: Service
    ) -> None:
        grants = latchkey_service.registry.grants.names
        for operation in [operation for operation in operations if operation.is_tool]:
            holder = await ada.user.with_grants(*(grant for grant in grants if grant != operation.grant))
            before = await ada.rows()
            answer = await ada.call(operation, dict.fromkeys(operation.ids, ada.ids[0]), at=holder)
            unknown = await holder.call_tool("a_tool_that_nobody_has")

            assert operation.name not in await holder.list_tools()
            assert not answer.is_success, f"{operation.name} runs without its grant {operation.grant}"
            assert unknown.content["detail"].replace("a_tool_that_nobody_has", operation.name) in answer.text
            assert await ada.rows() == before

    @_async
    async def test_read_operation_changes_nothing(self, operations: list[Operation], ada: Tenant) -> None:
        for operation in operations:
            if not operation.is_read:
                continue
            before = await ada.rows()
            if not operation.needs_id:
                await ada.call(operation)
            for id in ada.ids if operation.ids else ():
                await ada.call(operation, dict.fromkeys(operation.ids, id))
            assert await ada.rows() == before, f"{operation.name} is declared as reading, and has changed rows"

    @_async
    async def test_tool_and_operation_of_one_name_answer_the_same(
        self, operations: list[Operation], latchkey_service: Service, latchkey_examples: Mapping[str, Any]
    ) -> None:
        by_name: dict[str, list[Operation]] = {}
        for operation in operations:
            by_name.setdefault(operation.name, []).append(operation)
        for name, pair in by_name.items():
            if len(pair) == 1 or pair[0].needs_id:
                continue
            user = await Tenant.of(latchkey_service.new_user(), latchkey_examples)
            answers = [await user.call(operation) for operation in pair]
            tool, rest = (answer.comparable.partition("{")[2] for answer in answers)
            assert tool == rest, f"the tool and the operation {name} answer differently: {tool} and {rest}"

    def test_migrations_make_the_tables_of_the_code(
        self, latchkey_database_url: str, latchkey_schema: AppSchema
    ) -> None:
        """Autogeneration finds no difference, also after the newest revision has been undone and applied again."""
        check(latchkey_database_url, latchkey_schema)
        if (history := app_history(latchkey_schema)) is not None and history.head is not None:
            downgrade(latchkey_database_url, "-1", latchkey_schema)
            upgrade(latchkey_database_url, schema=latchkey_schema)
            check(latchkey_database_url, latchkey_schema)

    @_async
    async def test_database_isolates_users(self, latchkey_database_url: str, latchkey_schema: AppSchema) -> None:
        """The policies and privileges of every table on PostgreSQL; the tenant guard on both."""
        engine = create_engine(latchkey_database_url)
        try:
            await verify(engine, latchkey_schema)
        finally:
            await engine.dispose()
