"""An app with tools of the names that the official MCP conformance suite calls to get an input request."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from latchkey import App, Grant, UnitOfWork, tool

WRITE = Grant("conformance:write")
NAMES = ("elicitation", "request_state", "multi_round", "tampered_state")


class Done(Struct, frozen=True):
    """The result."""

    ok: bool


def tool_that_asks(name: str) -> Callable[..., Any]:
    """Make a tool of this name that needs approval."""

    async def run(_: UnitOfWork) -> Done:
        """Do nothing, after the user has approved it."""
        return Done(ok=True)

    run.__name__ = name
    return tool(WRITE, title="Conformance test", approval=True)(run)


app = App(
    name="conformance",
    tools=[tool_that_asks(f"test_input_required_result_{name}") for name in NAMES],
    grants=[WRITE],
)
