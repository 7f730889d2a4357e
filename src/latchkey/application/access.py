"""Permissions and tools: what a credential must grant to run a use case, and how models may call it."""

from collections.abc import Callable, Sequence
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, TypedDict, TypeVar, Unpack

from msgspec import Struct
from msgspec.structs import replace

from latchkey.domain.credentials import Grant, Scope
from latchkey.domain.errors import Forbidden
from latchkey.domain.ports import TransactionMode

UseCase = TypeVar("UseCase", bound=Callable[..., Any])

_PERMISSION = "__latchkey_permission__"
"""The attribute of a use case that holds its permission; `functools.wraps` copies it to a decorated function."""

_TOOL = "__latchkey_tool__"
"""The attribute of a use case that holds its declaration as a tool."""

_ARTIFACT_CREATORS: set[str] = set()


class Permission(Struct, frozen=True):
    """The requirements of a use case.

    - `grant`: the grant that a context token needs; None means that only the user's own credential may run it.
    - `mode`: the transaction mode of its unit of work.
    - `stores`: it adds stored bytes, so it is refused once the user's storage quota is reached.
    - `creates_artifact`: it returns an `ArtifactReference`; a turn reports the artifact as its own.
    - `use_case`: its name. A token may be limited to certain use cases.
    """

    grant: Grant | None
    mode: TransactionMode
    stores: bool = False
    creates_artifact: bool = False
    use_case: str = ""

    def is_satisfied_by(self, scope: Scope) -> bool:
        """Whether a credential with this scope may run the use case."""
        return scope.allows(self.grant) and scope.may_run(self.use_case)

    def check(self, scope: Scope) -> None:
        """Raises `Forbidden` unless the scope satisfies this permission."""
        if self.is_satisfied_by(scope):
            return
        if scope.allows(self.grant):
            raise Forbidden(f"This token is for other tools than {self.use_case}.")
        needed = f"a token with the grant {self.grant}" if self.grant else "the user's own token"
        raise Forbidden(f"This operation requires {needed}.")


def requires(grant: Grant, *, stores: bool = False, creates_artifact: bool = False) -> Callable[[UseCase], UseCase]:
    """Declare that a credential with this grant may run the use case."""
    mode: TransactionMode = "read" if grant.endswith(":read") else "write"
    return _declare(Permission(grant, mode, stores, creates_artifact))


class ToolOptions(TypedDict, total=False):
    """What a tool may declare beside its grant and title.

    - `destructive` (True), `idempotent` (False), `open_world`: hints for clients, see the MCP specification. Of a tool
      with a read grant, the first is always False and the second True. The third is True for a tool outside a
      transaction unless it says otherwise.
    - `stores`: whether it adds stored bytes, so that it is refused once the user's storage quota is reached. By
      default the same as whether its grant is for writing.
    - `timeout_s` (30): how many seconds a tool outside a transaction may take.
    - `approval` (False): whether the user is asked before the tool runs; or a function that decides it. The function is
      called with the arguments of the tool, in their order.
    """

    destructive: bool
    idempotent: bool
    open_world: bool
    stores: bool
    timeout_s: float
    approval: bool | Callable[..., bool]


class ToolDeclaration(Struct, frozen=True):
    """A use case as a tool: its title, and its options."""

    title: str
    options: ToolOptions

    def asks(self, arguments: Sequence[Any]) -> bool:
        """Whether the user is asked before the tool runs with these arguments. Raises what the function raises."""
        approval = self.options.get("approval", False)
        return approval if isinstance(approval, bool) else bool(approval(*arguments))

    def annotations(self, *, is_read: bool, is_outside: bool) -> dict[str, bool]:
        """Return the hints as MCP names them. `is_outside` says that it runs outside a transaction."""
        return {
            "readOnlyHint": is_read,
            "destructiveHint": not is_read and self.options.get("destructive", True),
            "idempotentHint": is_read or self.options.get("idempotent", False),
            "openWorldHint": self.options.get("open_world", is_outside),
        }


def tool(grant: str, *, title: str, **options: Unpack[ToolOptions]) -> Callable[[UseCase], UseCase]:
    """Declare that the use case is a tool that a credential with this grant may call.

    The first parameter of the use case is a `UnitOfWork`: then it runs in a transaction, together with its record. Or
    it is a `ToolContext`: then it runs outside of one, and may call other services. The other parameters are the
    arguments, the returned struct is the result, and the docstring is the description.
    """

    def declare(use_case: UseCase) -> UseCase:
        is_read = grant.endswith(":read")
        permission = Permission(Grant(grant), "read" if is_read else "write", options.get("stores", not is_read))
        setattr(use_case, _TOOL, ToolDeclaration(title, options))
        if not hasattr(use_case, _PERMISSION):
            return _declare(permission)(use_case)
        if (required := permission_of(use_case).grant) != grant:
            raise TypeError(f"`{name_of(use_case)}` is a tool with the grant {grant} and requires {required}: use one.")
        return use_case

    return declare


def owner_only(mode: TransactionMode, *, stores: bool = False) -> Callable[[UseCase], UseCase]:
    """Declare that only the user's own credential may run the use case."""
    return _declare(Permission(None, mode, stores))


def permission_of(use_case: Callable[..., Any]) -> Permission:
    """Return the declared permission, also of a `functools.partial` or a decorated function that uses `wraps`.

    Raises `TypeError` for a function that declares none.
    """
    permission = getattr(function_of(use_case), _PERMISSION, None)
    if not isinstance(permission, Permission):
        raise TypeError(f"{use_case!r} declares no permission: decorate it with `requires` or `owner_only`.")
    return permission


def declaration_of(use_case: Callable[..., Any]) -> ToolDeclaration:
    """Return the declaration of a tool. Raises `TypeError` for a use case that is no tool."""
    declaration = getattr(function_of(use_case), _TOOL, None)
    if not isinstance(declaration, ToolDeclaration):
        raise TypeError(f"{use_case!r} is no tool: decorate it with `tool`.")
    return declaration


def name_of(use_case: Callable[..., Any]) -> str:
    """Return the name of the use case, under which it is logged and offered as a tool."""
    name: str = function_of(use_case).__name__
    return name


def creates_artifact(tool_name: str) -> bool:
    """Whether the result of the use case with this name is an `ArtifactReference`."""
    return tool_name in _ARTIFACT_CREATORS


def function_of(use_case: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a `functools.partial`, else the use case itself."""
    while isinstance(use_case, partial):
        use_case = use_case.func
    return use_case


def _declare(permission: Permission) -> Callable[[UseCase], UseCase]:
    def declare(use_case: UseCase) -> UseCase:
        if not iscoroutinefunction(use_case):
            code = getattr(use_case, "__code__", None)
            place = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
            name = getattr(use_case, "__name__", repr(use_case))
            raise TypeError(f"`{name}`{place} cannot be a use case, because it is not async: make it `async def`.")
        setattr(use_case, _PERMISSION, replace(permission, use_case=use_case.__name__))
        if permission.creates_artifact:
            _ARTIFACT_CREATORS.add(use_case.__name__)
        return use_case

    return declare
