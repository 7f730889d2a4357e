"""Each guard is taken out in turn, and something turns red each time: the named tests, and no others of those tried."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.isolation.mutants import MUTANTS
from tests.postgresql import PostgreSQL

ROOT = Path(__file__).parents[2]

STATEMENTS = "tests/unit/database/test_guard.py::test_all_our_own_statements_pass"
REFUSED = "tests/unit/database/test_guard.py::test_what_is_not_pinned_is_refused"
PREPARED = "tests/integration/database/test_guarded_engines.py::test_what_repositories_run_goes_through_it_too"
START = "tests/integration/database/test_isolation.py::test_a_migrated_database_keeps_users_apart"
ROWS = "tests/integration/database/test_row_security.py::test_the_rows_of_others_are_not_there"
ROLE = "tests/integration/database/test_row_security.py::test_a_unit_works_in_a_role_without_power"
COUNTED = "tests/contract/database/test_scope.py::test_pages_and_counts_hold_nothing_of_others"
DEAD = "tests/contract/database/test_credentials.py::test_a_dead_token_opens_nothing"
HTTP_TOKENS = "tests/integration/http/test_context_tokens.py"
IDS = "tests/isolation/test_ids.py::test_what_is_anothers_is_as_if_it_had_never_been"
BOUND = "tests/isolation/test_ids.py::test_so_is_what_belongs_to_another_conversation_than_the_tokens"
LISTED = "tests/isolation/test_cursors.py::test_a_listing_shows_everybody_their_own_and_nothing_else"
CURSORS = "tests/isolation/test_cursors.py::test_a_cursor_of_another_listing_is_none"
KEYS = "tests/isolation/test_keys.py::test_anothers_key_is_as_one_that_was_never_used"
PATHS = "tests/isolation/test_paths.py::test_anothers_path_is_as_that_of_nobody"
TOOLS = "tests/isolation/test_grants.py::test_a_tool_that_is_not_granted_is_as_one_that_does_not_exist"
RESOURCES = "tests/isolation/test_grants.py::test_a_resource_that_is_not_granted_is_as_one_that_does_not_exist"
WALK = "tests/isolation/test_walk.py::test_nobody_is_told_anything_of_anybody_else"


def proof(database: str) -> list[str]:
    """Of isolation, on one database: ids over HTTP and MCP, and listings."""
    doors = ("get_task(task_id)", "tool get_artifact(artifact_id)", "resource conversation(conversation_id)")
    return [*(f"{IDS}[{database}-{door}]" for door in doors), f"{LISTED}[{database}-list_tasks]"]


RED: dict[str, list[str]] = {
    "filter": [f"{STATEMENTS}[tasks _ALL]", f"{COUNTED}[sqlite]", f"{COUNTED}[postgresql]"],
    "statement guard": [f"{REFUSED}[an update]", f"{REFUSED}[text]", f"{START}[sqlite]"],
    "statement guard of what repositories run": [f"{PREPARED}[sqlite-not pinned]", f"{PREPARED}[sqlite-text]"],
    "statement guard of engines": [f"{START}[sqlite]", f"{START}[postgresql]"],
    "row-level security": [f"{START}[postgresql]", f"{ROWS}[owner with BYPASSRLS]"],
    "role": [f"{ROLE}[owner with BYPASSRLS-write]", f"{ROWS}[owner with BYPASSRLS]"],
    "filter and statement guard": [*proof("sqlite"), f"{KEYS}[sqlite-chat]", f"{WALK}[sqlite]"],
    "filter, statement guard and row-level security": [*proof("postgresql"), f"{WALK}[postgresql]"],
    "filter, statement guard and role": proof("postgresql"),
    "grant check": [f"{TOOLS}[sqlite-tasks:read]", f"{RESOURCES}[sqlite-tasks:read]"],
    "tools shown by grant": [f"{TOOLS}[sqlite-tasks:read]"],
    "path check": [f"{PATHS}[sqlite-list_tasks]", f"{PATHS}[sqlite-get_artifact]"],
    "path check, the path believed": [f"{PATHS}[sqlite-list_tasks]", f"{PATHS}[sqlite-get_artifact]"],
    "conversation binding": [
        f"{BOUND}[sqlite-tool get_artifact(artifact_id)]",
        f"{BOUND}[sqlite-resource conversation(conversation_id)]",
    ],
    "cursor tags": [f"{CURSORS}[sqlite-list_tasks]", f"{CURSORS}[sqlite-resources/list]"],
    "revocation": [
        f"{HTTP_TOKENS}::test_a_revoked_one_opens_nothing_from_then_on[sqlite]",
        f"{DEAD}[sqlite-revoked-write]",
    ],
    "expiry": [f"{DEAD}[sqlite-expired-write]"],
}
"""What turns red without it."""

GREEN: dict[str, list[str]] = {
    "statement guard": proof("sqlite"),
    "statement guard of what repositories run": [f"{REFUSED}[an update]"],
    "row-level security": proof("postgresql"),
    "role": proof("postgresql"),
    "filter and statement guard": proof("postgresql"),
    "tools shown by grant": [f"{RESOURCES}[sqlite-tasks:read]"],
    "revocation": [f"{DEAD}[sqlite-expired-write]"],
    "expiry": [f"{DEAD}[sqlite-revoked-write]"],
}
"""What another lock keeps closed meanwhile."""

Try = Callable[[str, list[str]], dict[str, Any]]


@pytest.fixture(scope="module")
def forge(postgresql_server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Try]:
    """Runs tests on a mutant, on the same PostgreSQL server."""
    log = tmp_path_factory.mktemp("mutants") / "log"
    address = postgresql_server.superuser_url("postgres")
    environment = {**os.environ, "TEST_DATABASE_URL": address, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.isolation.forge"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:

        def try_it(mutant: str, tests: list[str]) -> dict[str, Any]:
            assert process.stdin
            assert process.stdout
            print(json.dumps({"mutant": mutant, "tests": tests, "log": str(log)}), file=process.stdin, flush=True)
            found: dict[str, Any] = {**json.loads(process.stdout.readline()), "log": log.read_text()[-4000:]}
            return found

        yield try_it
        if process.stdin:
            process.stdin.close()


@pytest.mark.parametrize("mutant", RED)
def test_without_a_guard_something_turns_red(forge: Try, mutant: str) -> None:
    red, green = RED[mutant], GREEN.get(mutant, [])
    found = forge(mutant, [*red, *green])

    assert found["outcomes"] == {**dict.fromkeys(green, "passed"), **dict.fromkeys(red, "failed")}, found["log"]
    assert found["exit"] == pytest.ExitCode.TESTS_FAILED


def test_with_all_guards_all_of_them_are_green(forge: Try) -> None:
    tests = sorted({test for named in (*RED.values(), *GREEN.values()) for test in named if not test.startswith(WALK)})
    found = forge("none", tests)

    assert found["outcomes"] == dict.fromkeys(tests, "passed"), found["log"]
    assert found["exit"] == pytest.ExitCode.OK


def test_every_guard_is_taken_out() -> None:
    assert RED.keys() == MUTANTS.keys() - {"none"}
