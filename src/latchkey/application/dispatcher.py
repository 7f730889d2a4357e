"""The one door: credential, scope, one transaction, use case, commit, and only then the answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Concatenate, ParamSpec, TypeVar

from latchkey.application.access import Permission, name_of, permission_of
from latchkey.application.quota import QuotaLimiter
from latchkey.domain.credentials import Credential, Scope, TokenSecret, UserId
from latchkey.domain.errors import Failure
from latchkey.domain.ports import CallLog, Transaction, UnitOfWork, UnitsOfWork, UseCaseCall
from latchkey.domain.quota import Quota

P = ParamSpec("P")
R = TypeVar("R")


class Dispatcher:
    """Everything that reads or writes comes through here."""

    def __init__(self, units: UnitsOfWork, journal: CallLog, quota: Quota = Quota()) -> None:  # noqa: B008 - frozen
        self._units = units
        self._journal = journal
        self._quota = QuotaLimiter(units, quota)

    async def acquire(self, credential: Credential) -> None:
        """Let a request in from outside. Raises `Exhausted` if it is one too many, and what opening a unit does."""
        await self._quota.acquire(credential)

    def consume(self, credential: TokenSecret) -> None:
        """What was let in under that token is its person's request, now that it has been found alive."""
        self._quota.consume(credential)

    async def call(
        self,
        credential: Credential,
        use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run a use case in the credential's scope. Its answer is only seen once it is committed.

        Raises any `Failure`; whatever is raised, nothing of the use case has happened.
        """
        async with self.unit(credential, permission_of(use_case), name_of(use_case)) as uow:
            result = await use_case(uow, *args, **kwargs)
            await uow.commit()
        return result

    async def resolve_scope(self, credential: Credential) -> Scope:
        """What a credential opens. Raises `Unauthenticated` if it opens nothing."""
        async with self._units.open(credential, "read") as uow:
            return uow.scope

    @asynccontextmanager
    async def unit(self, credential: Credential, access: Permission, name: str) -> AsyncIterator[Transaction]:
        """One unit of work, opened for whoever has that access, and written into the journal under a name.

        Raises `Exhausted` where something is to be stored and there is no room.
        """
        started, outcome, user_id = perf_counter(), "internal", None
        try:
            if access.stores:
                await self._quota.check_storage(credential)
            async with self._units.open(credential, access.mode) as uow:
                user_id = uow.scope.user_id
                access.check(uow.scope)
                yield uow
            self._quota.add_usage(user_id, uow.written)
            outcome = "ok"
        except Failure as failure:
            outcome = failure.code
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self.journal(name, user_id, started, outcome)

    def journal(self, name: str, user_id: UserId | None, started: float, outcome: str) -> None:
        """Write down what was done, since when (by the performance counter), and what came of it."""
        self._journal(UseCaseCall(name, user_id, outcome, (perf_counter() - started) * 1000))
