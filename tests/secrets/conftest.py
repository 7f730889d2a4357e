"""The folder of the service process, and a database login whose password is a canary."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from latchkey.infrastructure.database.sql.postgresql import RUNTIME_ROLE
from latchkey.testing.postgresql import OWNER, PostgreSQL
from tests.secrets.canary import Canary


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def password() -> Canary:
    """Contains characters that a URL encodes."""
    return Canary.create("database password", "pass/word@{}")


@pytest.fixture
def guarded_url(postgresql_server: PostgreSQL, postgresql_url: str, password: Canary) -> Iterator[str]:
    """The migrated database, for its own login with that password."""
    login = f"latchkey_test_{uuid4().hex[:12]}"
    postgresql_server.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{password.text}' IN ROLE {OWNER}, {RUNTIME_ROLE}")
    url = make_url(postgresql_url).set(username=login, password=password.text)
    yield url.render_as_string(hide_password=False)
    name = url.database or ""
    postgresql_server.drop_database(name)
    postgresql_server.execute(f"DROP ROLE {login}")
