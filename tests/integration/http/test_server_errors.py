"""Internal errors and an unavailable database: the response contains no internals, the log has the details."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from latchkey.infrastructure.database.urls import parse
from latchkey.testing.postgresql import PostgreSQL
from tests.support.captured_log import captured_log
from tests.support.service import Service, run_service, settings_for


@pytest.fixture
async def own_service(database_url: str) -> AsyncIterator[Service]:
    """A service with its own database, which the test may damage."""
    async with run_service(settings_for(database_url)) as service:
        yield service


async def execute(database_url: str, statement: str) -> None:
    url, connect_args = parse(database_url)
    engine = create_async_engine(url, connect_args=connect_args)
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


async def test_internal_error_is_logged_and_its_response_has_no_internals(
    own_service: Service, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    ada = own_service.user()
    await execute(database_url, "ALTER TABLE tasks RENAME COLUMN title TO name")
    failed = await ada.get("tasks", headers={"x-request-id": "trace-42"})
    problem = failed.json()
    (logged,) = [record for record in caplog.records if record.name == "latchkey.http"]

    assert failed.status_code == 500
    assert problem == {
        "type": "urn:latchkey:problem:internal",
        "title": "Internal error",
        "status": 500,
        "detail": "Internal error: report it with the request id.",
        "code": "internal",
        "request_id": "trace-42",
    }
    assert logged.exc_info
    assert "title" in str(logged.exc_info[1])
    assert ada.token not in caplog.text


async def test_health_is_live_and_not_ready_if_the_schema_is_outdated(own_service: Service, database_url: str) -> None:
    await execute(database_url, "DELETE FROM alembic_version")
    ready = await own_service.client.get("/health/ready")

    assert (ready.status_code, ready.json()["code"]) == (503, "unavailable")
    assert "latchkey migrate" in ready.json()["detail"]
    assert (await own_service.client.get("/health/live")).status_code == 200


async def test_database_outage_is_unavailable(postgresql_url: str, postgresql_server: PostgreSQL) -> None:
    """The log has the cause."""
    async with run_service(settings_for(postgresql_url)) as service:
        ada = service.user()
        await ada.create("tasks", title="Buy milk")
        name = postgresql_url.rpartition("/")[2]
        await _as_superuser(postgresql_server, f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        await _as_superuser(
            postgresql_server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        with captured_log() as log:
            gone = [await ada.get("tasks"), await ada.post("tasks", json={"title": "Buy oats"})]
        ready = await service.client.get("/health/ready")
        await _as_superuser(postgresql_server, f"ALTER DATABASE {name} CONNECTION LIMIT -1")
        back = await ada.list_items("tasks")

    assert [(response.status_code, response.json()["code"]) for response in [*gone, ready]] == [
        (503, "unavailable")
    ] * 3
    assert [response.headers["retry-after"] for response in gone] == ["5", "5"]
    logged = [line["cause"] for event in ("http_request", "use_case_call") for line in log.lines(event)]
    assert len(logged) == 4
    assert all("too many connections for database" in cause for cause in logged[1:])
    assert "oats" not in log.stream.getvalue()
    assert [task["title"] for task in back] == ["Buy milk"]


async def _as_superuser(server: PostgreSQL, statement: str) -> None:
    engine = create_async_engine(server.admin.set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()
