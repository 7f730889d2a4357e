"""`latchkey migrate` refuses tables of an app that would not isolate users, and leaves nothing of them behind."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import make_url

from latchkey.infrastructure.database.app_history import FaultyRevision
from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.migrations import create_revision, upgrade
from latchkey.infrastructure.database.startup_checks import IsolationBroken
from latchkey.testing.postgresql import PostgreSQL
from tests.integration.database.conftest import run_sql
from tests.integration.database.test_app_migrations import execute, verify_usable
from tests.integration.database.test_migration_privileges import as_new_owner
from tests.integration.database.test_migrations import tables
from tests.support.shop import shop

SECURE = '    op.secure_entity_table("reservations")\n'
MINE = "user_id = current_setting('app.user_id')"

UNSAFE_ON_BOTH = {
    "primary key": (
        "sa.PrimaryKeyConstraint('user_id', 'id', name=op.f('pk_reservations'))",
        "sa.PrimaryKeyConstraint('id', 'user_id', name=op.f('pk_reservations'))",
        "The primary key of reservations is (id, user_id): it must begin with user_id.",
    ),
    "unique key": (
        "sa.UniqueConstraint('user_id', 'code', name=op.f('uq_reservations_user_id'))",
        "sa.UniqueConstraint('code', name=op.f('uq_reservations_code'))",
        "The unique key uq_reservations_code of reservations is (code): it must begin with user_id",
    ),
    "unique index": (
        "'ix_reservations_age', ['user_id', 'paid_at'], unique=False",
        "'ix_reservations_age', ['paid_at', 'user_id'], unique=True",
        "The unique key ix_reservations_age of reservations is (paid_at, user_id): it must begin with user_id",
    ),
    "foreign key": (
        "sa.ForeignKeyConstraint(['user_id', 'reservation_id'], ['reservations.user_id', 'reservations.id']",
        "sa.ForeignKeyConstraint(['reservation_id', 'user_id'], ['reservations.id', 'reservations.user_id']",
        "The foreign key (reservation_id, user_id) of Bike Rides refers to reservations: it must begin with user_id",
    ),
}
"""Per case: the text of the revision, another one for it, and what is reported."""

UNSAFE_ON_POSTGRESQL = {
    "no policy": ("", "The policy reservations_of_user is missing: add op.secure_entity_table("),
    "row-level security off": (
        "ALTER TABLE reservations DISABLE ROW LEVEL SECURITY",
        "is off for reservations: add op.",
    ),
    "not forced": (
        "ALTER TABLE reservations NO FORCE ROW LEVEL SECURITY",
        "Row-level security is not forced for reservations: add op.",
    ),
    "a changed policy": (
        "ALTER POLICY reservations_of_user ON reservations USING (true)",
        "The policy reservations_of_user has been changed: add op.secure_entity_table(",
    ),
    "another policy": (
        "CREATE POLICY peep ON reservations FOR SELECT USING (true)",
        "reservations has an unknown policy: DROP POLICY peep ON reservations.",
    ),
    "another table of users": (
        "CREATE TABLE drafts (user_id TEXT, note TEXT); GRANT SELECT ON drafts TO latchkey_rt",
        'Row-level security is off for drafts: add op.secure_entity_table("drafts")',
    ),
    "a table of the role's own": (
        "GRANT CREATE ON SCHEMA public TO latchkey_rt; ALTER TABLE bicycles OWNER TO latchkey_rt",
        "latchkey_rt owns bicycles: the owner must be the role that migrates.",
    ),
}
"""Per case: statements of the revision, and what is reported."""


@pytest.fixture
def app(tmp_path: Path) -> AppSchema:
    return shop(tmp_path / "migrations")


def write_revision(url: str, app: AppSchema) -> Path:
    path = create_revision(url, "Reservations", app)
    assert path is not None
    return path


def refusal(url: str, app: AppSchema) -> str:
    with pytest.raises(IsolationBroken) as refused:
        upgrade(url, schema=app)
    return str(refused.value)


@pytest.mark.parametrize("case", UNSAFE_ON_BOTH)
def test_keys_that_do_not_begin_with_user_id_are_refused(database_url: str, app: AppSchema, case: str) -> None:
    before, after, message = UNSAFE_ON_BOTH[case]
    path, existing = write_revision(database_url, app), tables(database_url)
    source = path.read_text()
    assert before in source
    source = source.replace(before, after)
    if case == "foreign key":  # refers to a key of that order
        unique = "sa.UniqueConstraint('id', 'user_id')"
        source = source.replace("sa.UniqueConstraint('user_id'", f"{unique},\n    sa.UniqueConstraint('user_id'")
    path.write_text(source)

    assert message in refusal(database_url, app)
    assert tables(database_url) == existing


@pytest.mark.parametrize("case", UNSAFE_ON_POSTGRESQL)
def test_table_without_row_level_security_is_refused(postgresql_url: str, app: AppSchema, case: str) -> None:
    statements, message = UNSAFE_ON_POSTGRESQL[case]
    path, existing = write_revision(postgresql_url, app), tables(postgresql_url)
    source = path.read_text()
    assert SECURE in source
    executed = "".join(f'    op.execute("{statement}")\n' for statement in statements.split("; ") if statement)
    if case == "no policy":
        source = source.replace(SECURE, "")
    path.write_text(source.replace("    # ### end", f"{executed}    # ### end", 1))

    text = refusal(postgresql_url, app)

    assert text.startswith("The app's migrations were rolled back, because its tables would not isolate users:\n")
    assert message in text
    assert tables(postgresql_url) == existing


def test_migrated_tables_isolate_users(postgresql_url: str, app: AppSchema) -> None:
    """With row-level security alone; its policy needs no name that PostgreSQL accepts without quotes."""
    write_revision(postgresql_url, app)
    upgrade(postgresql_url, schema=app)
    insert = "INSERT INTO \"Bike Rides\" VALUES ('{}', gen_random_uuid(), gen_random_uuid(), NULL, 1, now(), now())"
    as_ada = ("BEGIN", "SET LOCAL ROLE latchkey_rt", "SET LOCAL app.user_id = 'ada'")
    as_bob = (*as_ada[:2], "SET LOCAL app.user_id = 'bob'")
    run_sql(postgresql_url, 'ALTER TABLE "Bike Rides" DROP CONSTRAINT "fk_Bike Rides_user_id_reservations"')
    run_sql(postgresql_url, *as_ada, insert.format("ada"), "COMMIT")

    assert len(run_sql(postgresql_url, *as_ada, 'SELECT * FROM "Bike Rides"')) == 1
    assert run_sql(postgresql_url, *as_bob, 'SELECT * FROM "Bike Rides"') == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        run_sql(postgresql_url, *as_bob, insert.format("ada"))


@pytest.mark.parametrize(
    "statement", ["INSERT INTO bicycles VALUES (gen_random_uuid())", "DELETE FROM bicycles", "TRUNCATE bicycles"]
)
def test_reference_table_is_read_only_for_users(postgresql_url: str, app: AppSchema, statement: str) -> None:
    write_revision(postgresql_url, app)
    upgrade(postgresql_url, schema=app)
    as_ada = ("BEGIN", "SET LOCAL ROLE latchkey_rt", "SET LOCAL app.user_id = 'ada'")

    assert run_sql(postgresql_url, *as_ada, "SELECT * FROM bicycles") == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for table bicycles"):
        run_sql(postgresql_url, *as_ada, statement)


@pytest.mark.parametrize(
    ("weakened", "repair"),
    [
        ("REVOKE DELETE ON reservations FROM latchkey_rt", "GRANT SELECT, INSERT, UPDATE, DELETE ON reservations TO"),
        ("GRANT TRUNCATE ON reservations TO latchkey_rt", "REVOKE TRUNCATE ON reservations FROM latchkey_rt, PUBLIC"),
        ("REVOKE SELECT ON bicycles FROM latchkey_rt", "GRANT SELECT ON bicycles TO latchkey_rt"),
        ("GRANT UPDATE (name) ON bicycles TO latchkey_rt", "REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON bicycles FROM"),
        ("GRANT INSERT ON bicycles TO PUBLIC", "REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON bicycles FROM"),
    ],
)
def test_migrate_at_head_repairs_privileges(postgresql_url: str, app: AppSchema, weakened: str, repair: str) -> None:
    write_revision(postgresql_url, app)
    upgrade(postgresql_url, schema=app)
    run_sql(postgresql_url, weakened)
    with pytest.raises(IsolationBroken, match=repair.partition(" FROM")[0]):
        verify_usable(postgresql_url, app)

    [repaired] = upgrade(postgresql_url, schema=app).repairs

    assert repaired.startswith(repair)
    verify_usable(postgresql_url, app)


def test_service_and_migrate_refuse_a_policy_that_was_dropped_later(postgresql_url: str, app: AppSchema) -> None:
    write_revision(postgresql_url, app)
    upgrade(postgresql_url, schema=app)
    run_sql(postgresql_url, "DROP POLICY reservations_of_user ON reservations")

    with pytest.raises(IsolationBroken, match=r"reservations_of_user is missing: add op\.secure_entity_table"):
        verify_usable(postgresql_url, app)
    assert "reservations_of_user is missing: add op.secure_entity_table" in refusal(postgresql_url, app)

    path = create_revision(postgresql_url, "Secure reservations", app, empty=True)
    assert path is not None
    path.write_text(path.read_text().replace("    pass\n", SECURE, 1))
    upgrade(postgresql_url, schema=app)
    verify_usable(postgresql_url, app)


@pytest.fixture
def database(own_server: PostgreSQL) -> Iterator[str]:
    name = f"latchkey_test_{uuid4().hex[:12]}"
    own_server.create_database(name)
    yield name
    own_server.drop_database(name)


def test_migrate_at_head_grants_a_missing_role_the_tables_of_the_app(
    own_server: PostgreSQL, database: str, app: AppSchema
) -> None:
    """As after a restore into another cluster: the dump contains no roles."""
    url = own_server.url(database)
    upgrade(url)
    write_revision(url, app)
    upgrade(url, schema=app)
    run_sql(own_server.superuser_url(database), "DROP OWNED BY latchkey_rt", "DROP ROLE latchkey_rt")

    repairs = upgrade(url, schema=app).repairs

    assert 'GRANT SELECT, INSERT, UPDATE, DELETE ON "Bike Rides" TO latchkey_rt' in repairs
    assert "GRANT SELECT ON bicycles TO latchkey_rt" in repairs
    verify_usable(url, app)


def test_secure_operation_may_be_repeated(database_url: str, app: AppSchema) -> None:
    path = write_revision(database_url, app)
    path.write_text(path.read_text().replace(SECURE, SECURE * 2))

    upgrade(database_url, schema=app)

    verify_usable(database_url, app)


@pytest.fixture
def url_of_plain_owner(own_server: PostgreSQL, database: str) -> str:
    """Of a login that owns the database, and may not bypass row-level security."""
    url = as_new_owner(own_server, database, "CREATEROLE NOBYPASSRLS")
    # Another test may have made the role with another login, which alone may grant it.
    grant = f"GRANT latchkey_rt TO {make_url(url).username}"
    own_server.execute(f"DO $$ BEGIN {grant}; EXCEPTION WHEN undefined_object THEN NULL; END $$")
    return url


def test_revision_changes_the_rows_of_all_users(
    own_server: PostgreSQL, database: str, url_of_plain_owner: str, app: AppSchema
) -> None:
    write_revision(url_of_plain_owner, app)
    upgrade(url_of_plain_owner, schema=app)
    insert = (
        "INSERT INTO reservations (user_id, id, bicycle_id, code, version, created_at, updated_at)"
        " VALUES ('{}', gen_random_uuid(), '{}', 'old', 1, now(), now())"
    )
    bicycle = str(uuid4())
    run_sql(
        own_server.superuser_url(database),
        f"INSERT INTO bicycles VALUES ('{bicycle}', 'Tandem')",
        *(insert.format(user, bicycle) for user in ("ada", "bob")),
    )
    path = create_revision(url_of_plain_owner, "New codes", app, empty=True)
    assert path is not None
    update = "\"UPDATE reservations SET code = 'new'\""
    frame = path.read_text()

    path.write_text(frame.replace("    pass", f"    op.execute({update})", 1))
    with pytest.raises(FaultyRevision, match=r"0002_new_codes.py:17: .*: use op.execute_for_all_users"):
        upgrade(url_of_plain_owner, schema=app)
    path.write_text(frame.replace("    pass", f'    op.execute_for_all_users({update}, "reservations")', 1))
    upgrade(url_of_plain_owner, schema=app)

    codes = run_sql(own_server.superuser_url(database), "SELECT DISTINCT code FROM reservations")
    assert [row["code"] for row in codes] == ["new"]
    verify_usable(url_of_plain_owner, app)


def test_statement_for_all_users_is_executed_on_sqlite_too(sqlite_url: str, app: AppSchema) -> None:
    write_revision(sqlite_url, app)
    path = create_revision_after(sqlite_url, app)
    statement = "INSERT INTO bicycles SELECT '0', 'Tandem'"
    operation = f'    op.execute_for_all_users("{statement}", "reservations")'
    path.write_text(path.read_text().replace("    pass", operation, 1))

    upgrade(sqlite_url, schema=app)

    assert execute(sqlite_url, "SELECT name FROM bicycles") == [("Tandem",)]


def create_revision_after(url: str, app: AppSchema) -> Path:
    """Migrate, and write an empty revision."""
    upgrade(url, schema=app)
    path = create_revision(url, "Empty", app, empty=True)
    assert path is not None
    return path
