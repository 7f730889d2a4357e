"""TypeScript clients that are generated from the OpenAPI document compile in strict mode and work with the service."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.interop.check_counter import Checks
from tests.interop.conftest import FOLDER
from tests.interop.service import InteropService, InteropUser
from tests.node import environment, installed, node, npm
from tests.schemas import DOCS

CLIENTS = {"openapi_fetch_client": "openapi-typescript", "hey_api_client": "@hey-api/openapi-ts with zod"}


@pytest.fixture(scope="session")
def compiled_clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both clients, compiled with the published document."""
    folder = copy_sources(tmp_path_factory.mktemp("typescript"), json.loads((DOCS / "openapi.json").read_text()))
    built = build(folder)
    assert built.returncode == 0, built.stdout
    return folder


@pytest.mark.parametrize("client", CLIENTS)
def test_generated_client_chats_and_manages_tasks(
    client: str, compiled_clients: Path, service: InteropService, checks: Checks
) -> None:
    received = run_client(client, compiled_clients, service.new_user())

    expected = {
        "created": "Buy milk",
        "listed": ["Buy milk"],
        "completed": "completed",
        "streamed": received["answer"],
        "problem": [404, "not-found"],
    }
    assert received.pop("answer").startswith("[rehearsal]")
    assert received == expected
    checks.passed(CLIENTS[client], len(expected) + 1)


@pytest.mark.parametrize(
    "due_at", ["2027-01-01T09:00:00.123456Z", "2027-01-01T09:00:00+02:00", "2027-01-01T09:00:00-11:30"]
)
def test_generated_zod_schema_parses_times_that_were_sent_with_any_offset(
    due_at: str, compiled_clients: Path, service: InteropService, checks: Checks
) -> None:
    """`z.iso.datetime()` takes UTC as `Z` only, and so does every generated schema."""
    user = service.new_user()
    user.request("POST", "tasks", json={"title": "Get up", "due_at": due_at})

    assert run_client("hey_api_client", compiled_clients, user)["listed"] == ["Buy milk", "Get up"]
    checks.passed(CLIENTS["hey_api_client"])


def test_response_with_two_media_types_does_not_compile(tmp_path: Path) -> None:
    document = json.loads((DOCS / "openapi.json").read_text())
    content = document["paths"]["/api/{user_id}/chat"]["post"]["responses"]["200"]["content"]
    content["text/event-stream"] = {"schema": {"$ref": "#/components/schemas/EventData"}}

    built = build(copy_sources(tmp_path, document))

    assert built.returncode != 0
    assert "openapi_fetch_client.ts" in built.stdout


def copy_sources(folder: Path, document: dict[str, Any]) -> Path:
    """Copy the sources of the clients to a folder, together with an OpenAPI document."""
    packages = installed(FOLDER / "typescript_clients")
    shutil.copytree(packages, folder, ignore=shutil.ignore_patterns("node_modules", ".installing"), dirs_exist_ok=True)
    (folder / "node_modules").symlink_to(packages / "node_modules")
    (folder / "openapi.json").write_text(json.dumps(document))
    return folder


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    """Generate the clients from the document, and compile them."""
    return subprocess.run(
        npm("run", "build"), cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )


def run_client(name: str, folder: Path, user: InteropUser) -> Any:
    """Run a client and return what it received."""
    service = {"url": user.service.replica.url, "user": user.user_id, "token": user.token}
    done = subprocess.run(
        [node(), folder / "run_client.mjs", name],
        env=environment(SERVICE=json.dumps(service)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
