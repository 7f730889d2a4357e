"""What the tests of an app import: the laws that every app must keep, and a user of the served app.

pytest loads the fixtures by itself where there is an app to test, because this distribution registers a plugin:
`latchkey_service`, `latchkey_user`, `latchkey_other_user` and `latchkey_examples`. `__init__.pyi` has the same
names for type checkers. A name is imported when it is first used: pytest imports the plugin in every project.
"""

from importlib import import_module
from typing import Any

_HOME_OF = {"AppLaws": "laws", "Service": "service", "ToolResult": "service", "User": "service"}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'latchkey.testing' has no public name {name!r}")
    return getattr(import_module(f"latchkey.testing.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME_OF)
