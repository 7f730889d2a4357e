"""`latchkey revision`, `migrate`, `doctor` and `serve` with an app that has tables."""

import shutil
from pathlib import Path

import pytest

from tests.e2e.service_process import BASE_SETTINGS, CommandResult, Environment, run_command, running_service

APP = '''"""A shop."""

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ForeignKeyConstraint, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped

from latchkey import App, entity_table, reference_table
from latchkey.infrastructure.database.entity_model import Entity

bicycles = reference_table("bicycles", Column("name", Text(), primary_key=True))
letters = entity_table("letters", Column("body", Text(), nullable=False))


class Size(Enum):
    S = "s"
    L = "l"


class Reservation(Entity):
    __tablename__ = "reservations"
    __table_args__ = (
        UniqueConstraint("user_id", "code"),
        Index("ix_reservations_start", "user_id", "start"),
        ForeignKeyConstraint(["bicycle"], ["bicycles.name"]),
    )

    bicycle: Mapped[str]
    code: Mapped[str]
    start: Mapped[datetime | None]
    price: Mapped[Decimal]
    weight: Mapped[float]
    count: Mapped[int]
    size: Mapped[Size]
    is_paid: Mapped[bool]
    invoice_id: Mapped[UUID | None]
    details: Mapped[dict[str, Any]]


app = App(name="shop", entities=[Reservation, letters], reference_tables=[bicycles], migrations="migrations")
'''
ENVIRONMENT: Environment = {**BASE_SETTINGS, "LATCHKEY_APP": "shop:app"}


@pytest.fixture
def shop(home: Path) -> Path:
    """The folder of an app without revisions."""
    (home / "shop.py").write_text(APP)
    return home


@pytest.fixture(params=["sqlite", "postgresql"])
def environment(request: pytest.FixtureRequest, shop: Path) -> Environment:
    url = request.getfixturevalue(f"empty_{request.param}_url")
    return {**ENVIRONMENT, "LATCHKEY_DATABASE_URL": url}


def run(shop: Path, environment: Environment, *arguments: str) -> CommandResult:
    return run_command(*arguments, home=shop, environment=environment)


def database_line(result: CommandResult) -> str:
    return next(line for line in result.stdout.splitlines() if line[5:].startswith("database: "))


def test_commands_write_and_migrate_the_revisions_of_an_app(shop: Path, environment: Environment) -> None:
    path = shop / "migrations" / "0001_reservations.py"

    for command in ("serve", "migrate"):
        missing = run(shop, environment, command)
        assert (missing.exit_code, missing.stdout) == (1, "")
        assert "the folder migrations, which is `migrations` of the app, does not exist" in missing.stderr

    written = run(shop, environment, "revision", "-m", "Reservations")
    assert (written.exit_code, written.stdout, written.stderr) == (0, f"wrote {path}\n", "")
    assert path.exists()

    behind = run(shop, environment, "serve")
    assert (behind.exit_code, behind.stdout) == (1, "")
    assert "run `latchkey migrate`" in behind.stderr

    migrated = run(shop, environment, "migrate")
    assert migrated.exit_code == 0, migrated.stderr
    assert "the schema of the app was migrated from revision none to 0001" in migrated.stdout

    again = run(shop, environment, "revision", "-m", "Reservations")
    assert (again.exit_code, again.stdout) == (0, "nothing to do: the app's tables are those of the database\n")
    assert "up to date, and isolates users" in database_line(run(shop, environment, "doctor"))
    with running_service(home=shop, environment=environment) as replica:
        assert replica.request("GET", "/health/ready").status_code == 200


def test_serve_migrates_the_app_on_request(shop: Path, environment: Environment) -> None:
    run(shop, environment, "revision", "-m", "Reservations")

    with running_service("--migrate", home=shop, environment=environment) as replica:
        assert replica.request("GET", "/health/ready").status_code == 200


def test_previous_release_of_an_app_goes_on_and_starts_on_the_schema_of_the_next(
    shop: Path, environment: Environment
) -> None:
    """A rolling upgrade, and a rollback."""
    run(shop, environment, "revision", "-m", "Reservations")
    run(shop, environment, "migrate")
    next_shop = Path(shutil.copytree(shop, shop.parent / "next"))
    (next_shop / "shop.py").write_text(
        APP.replace("    code: Mapped[str]\n", "    code: Mapped[str]\n    note: Mapped[str | None]\n")
    )

    with running_service(home=shop, environment=environment) as replica:
        assert run(next_shop, environment, "revision", "-m", "A note").exit_code == 0
        migrated = run(next_shop, environment, "migrate")
        assert "the schema of the app was migrated from revision 0001 to 0002" in migrated.stdout
        assert replica.request("GET", "/health/ready").status_code == 200
    with running_service(home=shop, environment=environment) as replica:
        assert replica.request("GET", "/health/ready").status_code == 200
    assert "is at revision 0002 of a newer release" in run(shop, environment, "migrate").stdout


def test_serve_dev_without_a_revision_names_the_command(shop: Path) -> None:
    (shop / "migrations").mkdir()

    result = run(shop, {"LATCHKEY_APP": "shop:app"}, "serve", "--dev")

    assert result.exit_code == 1
    assert 'The table reservations is missing: run `latchkey migrate`, or `latchkey revision -m "…"` first' in (
        result.stderr
    )


def test_faulty_revision_stops_commands_with_file_and_line(shop: Path, environment: Environment) -> None:
    path = shop / "migrations" / "0001_reservations.py"
    run(shop, environment, "revision", "-m", "Reservations")
    path.write_text(path.read_text().replace('revision = "0001"', 'revision = "0002"', 1))
    text = f"{path}:8: `revision` is '0002': it must be '0001', the number in the file's name."

    for arguments in (["migrate"], ["serve"], ["revision", "-m", "Again"]):
        result = run(shop, environment, *arguments)
        assert (result.exit_code, result.stderr.strip()) == (1, f"latchkey: {text}"), arguments
    assert text in database_line(run(shop, environment, "doctor"))


def test_doctor_reports_a_missing_policy_of_the_app(shop: Path, environment: Environment) -> None:
    """On SQLite there are no policies; there it reports a table that no revision creates."""
    path = shop / "migrations" / "0001_reservations.py"
    run(shop, environment, "revision", "-m", "Reservations")
    text = path.read_text()
    without_policy = text.replace('    op.secure_entity_table("reservations")\n', "")
    path.write_text(without_policy)

    migrated = run(shop, environment, "migrate")

    if "sqlite" in environment["LATCHKEY_DATABASE_URL"]:
        assert migrated.exit_code == 0
    else:
        assert migrated.exit_code == 1
        assert "The policy reservations_of_user is missing: add op.secure_entity_table(" in migrated.stderr
        assert "not up to date" in database_line(run(shop, environment, "doctor"))


def test_revision_without_an_app_is_refused(home: Path) -> None:
    result = run_command("revision", "-m", "Nothing", home=home, environment=BASE_SETTINGS)

    assert result.exit_code == 1
    assert "LATCHKEY_APP: must be set" in result.stderr
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["-m", "…"], ["-m", ""]])
def test_revision_without_a_message_is_wrong_usage(shop: Path, arguments: list[str]) -> None:
    assert run(shop, ENVIRONMENT, "revision", *arguments).exit_code == 2
