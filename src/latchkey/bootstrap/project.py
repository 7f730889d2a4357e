"""`[tool.latchkey]` in pyproject.toml of the current folder: which app the commands use there."""

import tomllib
from pathlib import Path

from latchkey.config import ConfigurationError


def app_of_folder() -> str | None:
    """Return the app that pyproject.toml names; None without that file or table.

    Raises `ConfigurationError` for a file that is no TOML, and for a table with anything else.
    """
    file = Path("pyproject.toml")
    try:
        project = tomllib.loads(file.read_text("utf-8"))
    except OSError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: must be TOML: {error}") from error
    tools = project.get("tool")
    table = tools.get("latchkey") if isinstance(tools, dict) else None
    if table is None:
        return None
    if not isinstance(table, dict) or table.keys() != {"app"} or not isinstance(table["app"], str):
        raise ConfigurationError(f'{file}: [tool.latchkey] must have one key: app = "MODULE:NAME"')
    return str(table["app"])
