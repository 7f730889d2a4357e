"""The commands of the command line, with the real adapters."""
# ruff: noqa: PLC0415  # each command imports only what it needs, so that `token` and `--help` start fast

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import click

from latchkey.bootstrap.project import app_of_folder
from latchkey.bootstrap.runtime import gc_paused
from latchkey.config import ConfigurationError, Settings
from latchkey.domain.credentials import USER_ID_RULE, TokenSecret, parse_user_id
from latchkey.domain.errors import Failure
from latchkey.interfaces.cli import Finding, IssuedToken

EXPECTED_ERRORS = (ConfigurationError, Failure)
"""Errors with a text for the user. Any other exception is a bug."""


class Commands:
    """Implements `latchkey.interfaces.cli.Commands`."""

    def __init__(self) -> None:
        self._environ = dict(os.environ)

    def use_app(self, app: str) -> None:
        """Use this app, as if LATCHKEY_APP were set to it."""
        self._environ["LATCHKEY_APP"] = app

    def new(self, name: str) -> Iterable[str]:
        """Make the folder of a new app. Yields what to do next."""
        from latchkey.bootstrap.scaffold import create_app

        yield from create_app(name)

    def _settings(self, *, dev: bool = False) -> Settings:
        """Read the settings. The app is that of the current folder unless one is named."""
        app = None if "LATCHKEY_APP" in self._environ else app_of_folder()
        return Settings.read({**self._environ, **({"LATCHKEY_APP": app} if app else {})}, dev=dev)

    def serve(self, host: str, port: int, workers: int, *, dev: bool, migrate: bool) -> None:
        """Serve HTTP and MCP until the process is stopped."""
        with gc_paused():
            from latchkey.bootstrap.serve import serve
            from latchkey.interfaces.http.server.listen import ListenAddress
        serve(self._settings(dev=dev), ListenAddress(host, port, workers), migrate=migrate)

    def migrate(self) -> Iterable[str]:
        """Migrate the database to the newest schema and repair its roles and policies. Yields what was done."""
        with gc_paused():
            from latchkey.bootstrap.database import migrate_database
        yield from migrate_database(self._settings())

    def revision(self, message: str, *, empty: bool) -> Path | None:
        """Write the next revision of the app. None if there is nothing to write."""
        with gc_paused():
            from latchkey.bootstrap.database import write_revision
        settings = self._settings()
        if settings.app is None:
            raise ConfigurationError(
                "LATCHKEY_APP: must be set, because only an app has revisions to write; or use --app"
            )
        return write_revision(settings, message, empty=empty)

    def token(self, user: str, ttl: timedelta) -> IssuedToken:
        """Sign a JWT for the user with the key of the service."""
        user_id = parse_user_id(user)
        if user_id is None:
            raise click.UsageError(f"USER must be {USER_ID_RULE}.")
        with gc_paused():
            from latchkey.bootstrap.identity import issue_token
        dev = not any(name in self._environ for name in ("LATCHKEY_AUTH_SECRET", "LATCHKEY_AUTH_JWKS_URL"))
        return issue_token(Settings.read(self._environ, dev=dev), user_id, ttl)

    def mcp(self) -> None:
        """Serve MCP over standard input and output."""
        with gc_paused():
            from latchkey.bootstrap.serve_stdio import serve
        settings = self._settings()
        if settings.context_token is None:
            raise ConfigurationError("LATCHKEY_CONTEXT_TOKEN: must be set to a context token, which begins with lk_")
        serve(settings, TokenSecret.parse(settings.context_token))

    def doctor(self) -> Iterable[Finding]:
        """Check the configuration and the connected systems."""
        with gc_paused():
            from latchkey.bootstrap.doctor import examine
        yield from examine(self._settings())
