"""The names of the MCP SDK that are not documented: an SDK release that changes one fails here, with what to do."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.runner import ServerRunner

from latchkey.interfaces import mcp
from latchkey.interfaces.mcp.http import transport

FOLDER = Path(mcp.__path__[0])
ADVICE = (
    "The MCP SDK has no `{name}` any more. Adapt latchkey/interfaces/mcp/http/transport.py, or replace"
    " `StatelessTransport` by `SdkTransport` of tests/integration/mcp/sdk_transport.py."
)
UNDOCUMENTED = {
    "mcp.server.connection",
    "mcp.server.runner",
    "mcp.shared.dispatcher",
    "mcp.shared.inbound",
    "mcp.shared.transport_context",
}


def imported_names(path: Path) -> Iterator[tuple[str, str]]:
    """Yield module and name of every import from the SDK."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"mcp", "mcp_types"}:
            yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.parametrize(("module", "name"), [*imported_names(Path(transport.__file__))])
def test_sdk_name_used_by_transport_exists(module: str, name: str) -> None:
    assert hasattr(import_module(module), name), ADVICE.format(name=f"{module}.{name}")


def test_sdk_attributes_used_by_transport_exist() -> None:
    connection = Connection.from_envelope("2026-07-28", None, None)
    server = Server("test")
    runner = ServerRunner(server, connection, {})

    for owner, name in [(connection, "exit_stack"), (runner, "on_request"), (server, "lifespan")]:
        assert hasattr(owner, name), ADVICE.format(name=f"{type(owner).__name__}.{name}")


def test_sdk_middleware_stays_first_on_a_server() -> None:
    """`with_principal` puts its middleware before the SDK's, which makes the spans of OpenTelemetry."""
    assert isinstance(Server("test").middleware, list), "The MCP SDK has no `Server.middleware` any more."
    assert len(Server("test").middleware) == 1


def test_undocumented_sdk_modules_are_imported_by_transport_only() -> None:
    others = [path for path in FOLDER.rglob("*.py") if path != Path(transport.__file__)]

    assert [(path, name) for path in others for name, _ in imported_names(path) if name in UNDOCUMENTED] == []
