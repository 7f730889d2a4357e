"""Runs every use case: credential, scope, one transaction, use case, commit, and only then the result."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Concatenate, ParamSpec, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from latchkey.application.access import Permission, name_of, permission_of
from latchkey.application.quota import QuotaLimiter
from latchkey.domain.agent import RUN_METRICS
from latchkey.domain.credentials import Credential, Owner, Scope, TokenSecret, UserId
from latchkey.domain.errors import ConcurrentWrite, Conflict, Exhausted, Failure, Unavailable, cause_of
from latchkey.domain.ports import CallLog, LogEntry, Transaction, UnitOfWork, UnitsOfWork, UseCaseCall
from latchkey.domain.quota import Quota
from latchkey.domain.tool_call import HTTP_REQUEST, IdempotentCall
from latchkey.domain.turn import Idempotency, TurnId

P = ParamSpec("P")
R = TypeVar("R")


class LoggedOutcome(Struct):
    """How the log shows a unit of work that was committed: a caller that has stored a failure sets its code."""

    code: str = "ok"


class IdempotentResponse(Struct, frozen=True):
    """The encoded response of a request with an idempotency key, and whether it is that of an earlier request."""

    encoded: str
    is_replay: bool


class Dispatcher:
    """Runs use cases, each in one unit of work, within the user's quota."""

    def __init__(self, units: UnitsOfWork, call_log: CallLog, quota: Quota = Quota()) -> None:  # noqa: B008 - frozen
        self._units = units
        self._call_log = call_log
        self._quota = QuotaLimiter(units, quota)
        self.recover: Callable[[Owner, TurnId], Awaitable[None]] | None = None
        """Continues a lost turn of a user. The `TurnRunner` of the process sets it."""

    async def acquire(self, credential: Credential, *, essential: bool = False) -> None:
        """Admit one request of a client to the service; beyond the rate limit only some that are `essential`.

        Raises `Exhausted` if the user's rate limit is reached, and whatever `UnitsOfWork.open` raises.
        """
        await self._quota.acquire(credential, essential=essential)

    def consume(self, credential: TokenSecret) -> None:
        """Count an admitted request whose context token has been verified."""
        self._quota.consume(credential)

    async def call(
        self,
        credential: Credential,
        use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run a use case in the credential's scope, commit, and return its result.

        Raises any `Failure`. If anything is raised, the use case has had no effect.
        """
        async with self.unit_of_work(credential, permission_of(use_case), name_of(use_case)) as uow:
            result = await use_case(uow, *args, **kwargs)
            await uow.commit()
        return result

    async def call_once(
        self,
        credential: Credential,
        idempotency: Idempotency,
        encode: Callable[[R], str],
        use_case: Callable[Concatenate[UnitOfWork, P], Awaitable[R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> IdempotentResponse:
        """Run a use case and store its encoded result in the same transaction; for a known key return the stored one.

        Raises any `Failure`, which is not stored, and `IdempotencyMismatch` if the key is that of another request.
        """
        permission, name = permission_of(use_case), name_of(use_case)
        try:
            async with self.unit_of_work(credential, permission, name) as uow:
                if first := await _find_response(uow, idempotency):
                    return first
                encoded = encode(await use_case(uow, *args, **kwargs))
                key, digest = idempotency.key, idempotency.fingerprint
                await uow.idempotent_calls.add(
                    IdempotentCall(HTTP_REQUEST, key, digest, encoded, is_error=False, created_at=uow.now)
                )
                await uow.commit()
            return IdempotentResponse(encoded, is_replay=False)
        except (Conflict, ConcurrentWrite, Exhausted):
            # A concurrent request with the same key may have won. An earlier response needs no storage.
            reading = replace(permission, mode="read", stores=False)
            async with self.unit_of_work(credential, reading, "find_response") as uow:
                if first := await _find_response(uow, idempotency):
                    return first
            raise

    def check_known_storage(self, user_id: UserId) -> None:
        """Raises `Exhausted` if the user's storage quota is known to be reached, without asking the database."""
        self._quota.check_known_storage(user_id)

    async def resolve_scope(self, credential: Credential) -> Scope:
        """Return the scope of a credential. Raises `Unauthenticated` if the credential is not valid."""
        async with self._units.open(credential, "read") as uow:
            return uow.scope

    @asynccontextmanager
    async def unit_of_work(
        self, credential: Credential, permission: Permission, name: str, logged: LoggedOutcome | None = None
    ) -> AsyncIterator[Transaction]:
        """Open one unit of work for a credential that satisfies the permission, and log it as a call of this name.

        Raises `Forbidden`; `Exhausted` if it stores bytes and the user's storage quota is reached.
        """
        started, outcome, user_id, cause = perf_counter(), "internal", None, None
        try:
            if permission.stores:
                await self._quota.check_storage(credential)
            async with self._units.open(credential, permission.mode) as uow:
                user_id = uow.scope.user_id
                permission.check(uow.scope)
                yield uow
            self._quota.add_usage(user_id, uow.written)
            outcome = logged.code if logged else "ok"
        except Failure as failure:
            outcome, cause = failure.code, cause_of(failure) if isinstance(failure, Unavailable) else None
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            duration_ms = (perf_counter() - started) * 1000
            if (metrics := RUN_METRICS.get()) is not None:
                metrics.db_ms += duration_ms
            self._call_log(UseCaseCall(name, user_id, outcome, duration_ms, cause))

    def log(self, entry: LogEntry) -> None:
        """Log one turn, or one call that is more than a unit of work."""
        self._call_log(entry)


async def _find_response(uow: UnitOfWork, idempotency: Idempotency) -> IdempotentResponse | None:
    """Raises `IdempotencyMismatch`."""
    first = await uow.idempotent_calls.find(HTTP_REQUEST, idempotency.key, uow.now)
    if first is None:
        return None
    first.check_digest(idempotency.fingerprint)
    return IdempotentResponse(first.response, is_replay=True)
