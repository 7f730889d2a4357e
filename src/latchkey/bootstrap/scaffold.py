"""`latchkey new`: the folder of a new app, from the templates in the package."""

import keyword
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from click import UsageError

import latchkey
from latchkey.config import ConfigurationError

_TEMPLATE = "shop"
"""The name of the app in the templates."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


def create_app(name: str) -> Iterable[str]:
    """Make the folder. Yields what to do next.

    Raises `UsageError` for a name that no package can have, and `ConfigurationError` if the folder cannot be made.
    """
    _check_name(name)
    target = Path(name)
    if target.exists():
        raise ConfigurationError(f"{target}: exists already; choose another name, or another folder")
    templates = Path(latchkey.__file__).parent / "templates" / _TEMPLATE
    try:
        for template in sorted(templates.rglob("*.template")):
            path = target / _renamed(str(template.relative_to(templates).with_suffix("")), name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_renamed(template.read_text("utf-8"), name), "utf-8")
    except OSError as error:
        raise ConfigurationError(f"{target}: cannot be written: {error.strerror}") from error
    yield f"{target}/ is a small app. Next:"
    yield f"  cd {target}"
    yield "  latchkey serve --dev"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UsageError("NAME must be the name of a Python package: a-z, 0-9 and _, with a letter first.")
    if name in {"latchkey", "tests"} or find_spec(name) is not None:
        raise UsageError(f"NAME must not be that of an installed package, and there is one called {name}.")


def _renamed(text: str, name: str) -> str:
    """Return the text with the name of the app in place of that of the template, in its forms."""
    forms = {_TEMPLATE: name, _TEMPLATE.upper(): name.upper()}
    return re.sub(r"(?<![A-Za-z])(?:shop|SHOP)(?![A-Za-z])", lambda match: forms[match[0]], text)
