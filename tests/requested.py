"""Tests that run only if the command line of pytest names them."""

from pathlib import Path

import pytest


def is_requested(config: pytest.Config, folder: Path) -> bool:
    """Whether the command line names the folder, or something in it."""
    paths = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    return any(path.is_relative_to(folder) for path in paths)
