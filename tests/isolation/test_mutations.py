"""Removes each safeguard in turn: the tests in `FAILING` must fail, those in `PASSING` must still pass."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from latchkey.testing.postgresql import PostgreSQL
from tests.isolation.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]

STATEMENTS = "tests/unit/database/test_tenant_guard.py::test_every_statement_of_the_repositories_passes"
REFUSED = "tests/unit/database/test_tenant_guard.py::test_unpinned_statement_is_refused"
PREPARED = "tests/integration/database/test_statement_guard.py::test_session_refuses_unscoped_statement"
START = "tests/integration/database/test_startup_checks.py::test_migrated_database_passes_isolation_checks"
ROWS = "tests/integration/database/test_row_level_security.py::test_row_level_security_hides_rows_of_other_users"
ROLE = "tests/integration/database/test_row_level_security.py::test_unit_of_work_runs_in_unprivileged_role"
COUNTED = "tests/contract/database/test_tenant_isolation.py::test_tenant_isolation_of_pages_and_counts"
DEAD = "tests/contract/database/test_credentials.py::test_expired_or_revoked_token_is_unauthenticated"
HTTP_TOKENS = "tests/integration/http/test_context_tokens.py"
LIMITED = "tests/contract/database/test_assistants.py::test_token_of_an_assistants_turn_may_run_only_its_tools"
IDS = "tests/isolation/test_ids.py::test_foreign_id_responds_like_absent_id"
BOUND = "tests/isolation/test_ids.py::test_id_outside_bound_conversation_responds_like_absent_id"
LISTED = "tests/isolation/test_cursors.py::test_list_returns_own_entities_only"
CURSORS = "tests/isolation/test_cursors.py::test_cursor_of_another_list_responds_like_malformed_cursor"
KEYS = "tests/isolation/test_idempotency_keys.py::test_foreign_idempotency_key_responds_like_unused_key"
PATHS = "tests/isolation/test_paths.py::test_foreign_path_responds_like_path_of_unknown_user"
TOOLS = "tests/isolation/test_grants.py::test_tool_without_grant_responds_like_unknown_tool"
RESOURCES = "tests/isolation/test_grants.py::test_resource_without_grant_responds_like_absent_resource"
RECOVERY = "tests/contract/database/test_turn_recovery.py"
APPROVALS = "tests/contract/database/test_approvals.py"
EXTERNAL = "tests/contract/database/test_approved_external_calls.py"
RANDOM = "tests/isolation/test_random_operations.py::test_random_operations_leak_nothing"


def isolation_tests(database: str) -> list[str]:
    """Tests of isolation on one database: foreign ids over HTTP and MCP, and lists."""
    endpoints = ("get_task(task_id)", "tool get_artifact(artifact_id)", "resource conversation(conversation_id)")
    return [*(f"{IDS}[{database}-{endpoint}]" for endpoint in endpoints), f"{LISTED}[{database}-list_tasks]"]


FAILING: dict[str, list[str]] = {
    "filter": [f"{STATEMENTS}[tasks _SELECT]", f"{COUNTED}[sqlite]", f"{COUNTED}[postgresql]"],
    "tenant guard": [f"{REFUSED}[an update]", f"{REFUSED}[text]", f"{START}[sqlite]"],
    "tenant guard of prepared statements": [f"{PREPARED}[sqlite-not pinned]", f"{PREPARED}[sqlite-text]"],
    "tenant guard of engines": [f"{START}[sqlite]", f"{START}[postgresql]"],
    "row-level security": [f"{START}[postgresql]", f"{ROWS}[owner with BYPASSRLS]"],
    "role": [f"{ROLE}[owner with BYPASSRLS-write]", f"{ROWS}[owner with BYPASSRLS]"],
    "filter and tenant guard": [*isolation_tests("sqlite"), f"{KEYS}[sqlite-chat]", f"{RANDOM}[sqlite]"],
    "filter, tenant guard and row-level security": [*isolation_tests("postgresql"), f"{RANDOM}[postgresql]"],
    "filter, tenant guard and role": isolation_tests("postgresql"),
    "grant check": [f"{TOOLS}[sqlite-tasks:read]", f"{RESOURCES}[sqlite-tasks:read]"],
    "tools listed by grant": [f"{TOOLS}[sqlite-tasks:read]"],
    "path check": [f"{PATHS}[sqlite-list_tasks]", f"{PATHS}[sqlite-get_artifact]"],
    "path check, path trusted": [f"{PATHS}[sqlite-list_tasks]", f"{PATHS}[sqlite-get_artifact]"],
    "conversation binding": [
        f"{BOUND}[sqlite-tool get_artifact(artifact_id)]",
        f"{BOUND}[sqlite-resource conversation(conversation_id)]",
    ],
    "tools of a token": [f"{LIMITED}[sqlite]"],
    "cursor tags": [f"{CURSORS}[sqlite-list_tasks]", f"{CURSORS}[sqlite-resources/list]"],
    "revocation": [
        f"{HTTP_TOKENS}::test_context_token_revoke_takes_effect_at_once[sqlite]",
        f"{DEAD}[sqlite-revoked-write]",
    ],
    "expiry": [f"{DEAD}[sqlite-expired-write]"],
    "attempt of a writer": [f"{RECOVERY}::test_former_attempt_writes_nothing[sqlite]"],
    "attempt check": [f"{RECOVERY}::test_former_attempt_writes_nothing[sqlite]"],
    "revocation of a former attempt's token": [f"{RECOVERY}::test_token_of_a_released_attempt_is_revoked[sqlite]"],
    "steps of former attempts": [f"{RECOVERY}::test_turn_goes_on_after_the_last_recorded_tool_call[sqlite]"],
    "limit of attempts": [f"{RECOVERY}::test_turn_after_its_last_attempt_is_interrupted[sqlite]"],
    "lease": [f"{RECOVERY}::test_concurrent_recoveries_start_one_attempt[sqlite]"],
    "questions": [f"{APPROVALS}::test_call_that_asks_has_no_effect_and_is_listed[sqlite]"],
    "decision once": [f"{APPROVALS}::test_opposite_decision_is_refused[sqlite]"],
    "expiry of questions": [f"{APPROVALS}::test_expired_question_cannot_be_approved[sqlite]"],
    "wait after a crash": [f"{APPROVALS}::test_turn_whose_process_died_after_it_asked_waits[sqlite]"],
    "end of a wait": [f"{APPROVALS}::test_turn_goes_on_after_the_decision_with_the_result[sqlite]"],
    "renewal of a wait": [
        f"{EXTERNAL}::test_external_call_approved_while_the_step_runs_keeps_its_turn_waiting[sqlite]"
    ],
}
"""The tests that fail without the safeguard."""

PASSING: dict[str, list[str]] = {
    "tenant guard": isolation_tests("sqlite"),
    "tenant guard of prepared statements": [f"{REFUSED}[an update]"],
    "row-level security": isolation_tests("postgresql"),
    "role": isolation_tests("postgresql"),
    "filter and tenant guard": isolation_tests("postgresql"),
    "tools listed by grant": [f"{RESOURCES}[sqlite-tasks:read]"],
    "revocation": [f"{DEAD}[sqlite-expired-write]"],
    "expiry": [f"{DEAD}[sqlite-revoked-write]"],
}
"""The tests that pass without the safeguard, because another one still protects the data."""

RunTests = Callable[[str, list[str]], dict[str, Any]]


@pytest.fixture(scope="module")
def run_tests(postgresql_server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunTests]:
    """Runs tests against a mutation, on the same PostgreSQL server."""
    log = tmp_path_factory.mktemp("mutations") / "log"
    address = postgresql_server.superuser_url("postgres")
    environment = {**os.environ, "TEST_DATABASE_URL": address, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.isolation.mutation_runner"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:

        def run(mutation: str, tests: list[str]) -> dict[str, Any]:
            assert process.stdin
            assert process.stdout
            print(json.dumps({"mutation": mutation, "tests": tests, "log": str(log)}), file=process.stdin, flush=True)
            result: dict[str, Any] = {**json.loads(process.stdout.readline()), "log": log.read_text()[-4000:]}
            return result

        yield run
        if process.stdin:
            process.stdin.close()


@pytest.mark.parametrize("mutation", FAILING)
def test_isolation_tests_without_a_safeguard_fail(run_tests: RunTests, mutation: str) -> None:
    failing, passing = FAILING[mutation], PASSING.get(mutation, [])
    result = run_tests(mutation, [*failing, *passing])

    assert result["outcomes"] == {**dict.fromkeys(passing, "passed"), **dict.fromkeys(failing, "failed")}, result["log"]
    assert result["exit"] == pytest.ExitCode.TESTS_FAILED


def test_isolation_tests_with_all_safeguards_pass(run_tests: RunTests) -> None:
    named = {test for tests in (*FAILING.values(), *PASSING.values()) for test in tests}
    tests = sorted(test for test in named if not test.startswith(RANDOM))
    result = run_tests("none", tests)

    assert result["outcomes"] == dict.fromkeys(tests, "passed"), result["log"]
    assert result["exit"] == pytest.ExitCode.OK


def test_mutations_all_have_failing_tests() -> None:
    assert FAILING.keys() == MUTATIONS.keys() - {"none"}
