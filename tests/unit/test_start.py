"""What a command imports before it does anything: each package here costs every start of it."""

import subprocess
import sys

import pytest

AGENTS = {"agents", "griffe", "openai"}
MIGRATIONS = {"advanced_alchemy", "alembic", "mako"}
CONSOLE = {"rich", "pygments"}
DATABASE = {"asyncpg", "sqlalchemy"}
SERVER = {"litestar", "uvicorn"}
MCP = {"mcp", "mcp_types", "pydantic"}

LOOK = """
import sys
from importlib import import_module
from latchkey.__main__ import main
from latchkey.bootstrap.runtime import importing
with importing():
    for name in sys.argv[1:]:
        import_module(f"latchkey.{name}")
print(*{name.partition(".")[0] for name in sys.modules})
"""


def imported_by(*modules: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", LOOK, *modules], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("modules", "spared", "needed"),
    [
        ((), AGENTS | CONSOLE | DATABASE | MCP | MIGRATIONS | SERVER, {"click"}),
        (("bootstrap.identity",), AGENTS | CONSOLE | DATABASE | MCP | MIGRATIONS | SERVER, {"jwt"}),
        (("bootstrap.doctor",), AGENTS | CONSOLE | MCP | MIGRATIONS | SERVER, DATABASE),
        (("bootstrap.serve_stdio",), AGENTS | CONSOLE | MIGRATIONS | {"litestar"}, MCP),
        (("bootstrap.serve", "bootstrap.composition"), AGENTS | CONSOLE | MIGRATIONS, SERVER),
    ],
    ids=["--help", "token", "doctor", "mcp", "serve"],
)
def test_a_command_imports_no_more_than_it_needs(modules: tuple[str, ...], spared: set[str], needed: set[str]) -> None:
    found = imported_by(*modules)

    assert found & spared == set()
    assert found >= needed
