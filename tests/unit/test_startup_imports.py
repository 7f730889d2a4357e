"""The packages that each command imports: every package delays its start."""

import subprocess
import sys

import pytest

AGENTS = {"agents", "griffe", "openai", "pydantic_ai"}
MIGRATIONS = {"alembic", "mako"}
LOGGING = {"rich", "structlog"}
DATABASE = {"advanced_alchemy", "asyncpg", "sqlalchemy"}
SERVER = {"litestar", "pydantic", "uvicorn"}
MCP = {"mcp", "mcp_types"}

PROGRAM = """
import sys
from importlib import import_module
from latchkey.__main__ import main
from latchkey.bootstrap.runtime import gc_paused
with gc_paused():
    for name in sys.argv[1:]:
        import_module(f"latchkey.{name}")
print(*{name.partition(".")[0] for name in sys.modules})
"""


def imported_packages(*modules: str) -> set[str]:
    command = [sys.executable, "-c", PROGRAM, *modules]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(process.stdout.split())


@pytest.mark.parametrize(
    ("modules", "unneeded", "needed"),
    [
        ((), AGENTS | DATABASE | LOGGING | MCP | MIGRATIONS | SERVER, {"click"}),
        (("bootstrap.identity",), AGENTS | DATABASE | MCP | MIGRATIONS | SERVER, {"jwt"}),
        (("bootstrap.doctor",), AGENTS | MIGRATIONS | {"mcp", "uvicorn"}, DATABASE),
        (("bootstrap.serve_stdio",), AGENTS | MIGRATIONS, DATABASE | MCP),
        (("bootstrap.serve", "bootstrap.composition"), AGENTS | MIGRATIONS, SERVER),
    ],
    ids=["--help", "token", "doctor", "mcp", "serve"],
)
def test_command_imports_only_the_packages_that_it_needs(
    modules: tuple[str, ...], unneeded: set[str], needed: set[str]
) -> None:
    """Beyond our control: structlog imports rich, and Litestar and advanced-alchemy each other, where installed."""
    imported = imported_packages(*modules)

    assert imported & unneeded == set()
    assert imported >= needed
