"""What an app imports: every public name of Latchkey. All other modules are private and may change in any release.

`__init__.pyi` has the same names for type checkers. A name is imported when it is first used, because commands such as
`latchkey token` need few of them.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "app": ("App",),
    "application.access": ("owner_only", "requires", "tool"),
    "application.dispatcher": ("Dispatcher",),
    "domain.agent": ("AgentEvent", "AgentRun", "ModelCall", "PastStep", "TextDelta", "TurnWaiting"),
    "domain.assistant": ("Assistant", "ModelOptions"),
    "domain.credentials": ("Grant", "Scope"),
    "domain.errors": (
        "Conflict",
        "ContextTooLong",
        "Exhausted",
        "Failure",
        "Forbidden",
        "IdempotencyMismatch",
        "Invalid",
        "MaxSteps",
        "ModelBadResponse",
        "ModelUnavailable",
        "NotFound",
        "RateLimited",
        "StaleVersion",
        "ToolsUnavailable",
        "TurnFailed",
        "Unavailable",
    ),
    "domain.message": ("PastTurn",),
    "domain.page": ("DEFAULT_LIMIT", "Cursor", "Limit", "Page", "Window"),
    "domain.ports": ("Agent", "UnitOfWork"),
    "domain.tool_call": ("ToolRequest", "ToolReturned"),
    "domain.turn": ("Usage",),
    "domain.values": ("Instant",),
    "infrastructure.agents.toolset": ("Connect", "Toolset", "open_toolset", "result_text"),
    "infrastructure.agents.turn_tasks": ("AgentEventStream", "TurnTasks"),
    "infrastructure.database.entity": ("entity_table", "reference_table", "user_foreign_key"),
    "infrastructure.database.entity_model": ("Entity",),
    "infrastructure.database.entity_repository": ("EntityRepository",),
    "infrastructure.database.repository": ("Repository",),
    "infrastructure.database.sql.session": ("insert_for_user", "owned_by_user"),
    "infrastructure.tool_context": ("ToolContext",),
    "interfaces.http.requests": (
        "ApiRequest",
        "CursorQuery",
        "IdempotencyKey",
        "JsonBody",
        "LimitQuery",
        "PatchBody",
        "REPLAYED",
    ),
    "interfaces.http.responses": ("ETAG", "LOCATION", "IfMatch", "respond_once", "version_of", "versioned"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'latchkey' has no public name {name!r}")
    value = getattr(import_module(f"latchkey.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME_OF)
