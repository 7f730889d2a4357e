"""The commands, done with the real parts."""
# ruff: noqa: PLC0415  # here, a command imports what it needs when it is asked for: see `Commands`

import os
from collections.abc import Iterable
from datetime import timedelta

import click

from latchkey.bootstrap.runtime import importing
from latchkey.config import ConfigurationError, Settings
from latchkey.domain.credentials import TokenSecret, parse_user_id
from latchkey.domain.errors import Failure
from latchkey.interfaces.cli import Finding

REFUSALS = (ConfigurationError, Failure)
"""What a command refuses to do, with a text for whoever asked; anything else is a bug."""


class Commands:
    """What `latchkey.interfaces.cli` asks for.

    Everything together takes 1.3 s of CPU to import, and `serve` alone needs most of it: `token` and `--help` take
    a tenth of that, `mcp` half.
    """

    def serve(self, host: str, port: int, workers: int, *, dev: bool, migrate: bool) -> None:
        with importing():
            from latchkey.bootstrap.serve import serve
            from latchkey.interfaces.http.server.listen import ListenAddress
        serve(Settings.read(os.environ, dev=dev), ListenAddress(host, port, workers), migrate=migrate)

    def migrate(self) -> None:
        with importing():
            from latchkey.infrastructure.database.migrations import upgrade
        upgrade(Settings.read(os.environ).database_url)

    def token(self, user: str, ttl: timedelta) -> str:
        user_id = parse_user_id(user)
        if user_id is None:
            raise click.UsageError("USER is 1-128 characters of A-Z a-z 0-9 . _ ~ : @ | - and not . or ..")
        with importing():
            from latchkey.bootstrap.identity import create_signer
        dev = not any(name in os.environ for name in ("LATCHKEY_AUTH_SECRET", "LATCHKEY_AUTH_JWKS_URL"))
        return create_signer(Settings.read(os.environ, dev=dev)).sign(user_id, ttl)

    def mcp(self) -> None:
        with importing():
            from latchkey.bootstrap.serve_stdio import serve
        settings = Settings.read(os.environ)
        if settings.context_token is None:
            raise ConfigurationError("LATCHKEY_CONTEXT_TOKEN: must be set to a context token, which begins with lk_")
        serve(settings, TokenSecret.parse(settings.context_token))

    def doctor(self) -> Iterable[Finding]:
        with importing():
            from latchkey.bootstrap.doctor import examine
        yield from examine(Settings.read(os.environ))
