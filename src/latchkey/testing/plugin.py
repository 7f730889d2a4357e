"""The pytest plugin: loads the fixtures where there is an app to test, and imports nothing heavy elsewhere."""

import os

import pytest

from latchkey.bootstrap.project import app_of_folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--latchkey-app", metavar="MODULE:NAME", help="The app to test, instead of that of the folder.")


def pytest_configure(config: pytest.Config) -> None:
    if app_under_test(config):
        config.pluginmanager.import_plugin("latchkey.testing.fixtures")


def app_under_test(config: pytest.Config) -> str | None:
    """Return the app: of the option, of LATCHKEY_APP, or of pyproject.toml in the current folder."""
    return config.getoption("--latchkey-app") or os.environ.get("LATCHKEY_APP") or app_of_folder()
