"""Rolling upgrade and rollback: this release goes on, and starts, on the schema of the next release."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from latchkey.infrastructure.database import migrations
from latchkey.infrastructure.database.migrations import upgrade
from latchkey.infrastructure.database.revision import RevisionHistory, head, migrations_folder
from tests.e2e.service_process import Environment, Replica, run_command, running_service

NEXT = "9999"
REVISION = '''"""The revision of a next release."""

import sqlalchemy as sa
from alembic import op

revision = "{next}"
down_revision = "{head}"
branch_labels = None
depends_on = None
compatible_with = "{compatible_with}"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("due_zone", sa.Text()))
    op.add_column("turns", sa.Column("timezone", sa.Text()))
    op.add_column("messages", sa.Column("importance", sa.Integer(), nullable=False, server_default="1"))
    op.create_table("approvals", sa.Column("user_id", sa.String(128), primary_key=True), sa.Column("reason", sa.Text()))
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE approvals ENABLE ROW LEVEL SECURITY")
        op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON approvals TO latchkey_rt")


def downgrade() -> None:
    raise NotImplementedError
'''


class NextRelease:
    """Migrates as the next release does: with one revision more."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._patch = patch

    def migrate(self, url: str, *, compatible_with: str) -> None:
        text = REVISION.format(next=NEXT, head=head(), compatible_with=compatible_with)
        shutil.copytree(migrations_folder(), self._folder)
        (self._folder / "versions" / f"{NEXT}_next.py").write_text(text)
        with self._patch.context() as patch:
            patch.setattr(migrations, "migrations_folder", lambda: self._folder)
            history = RevisionHistory(self._folder / "versions", "alembic_version", NEXT)
            patch.setattr(migrations, "built_in_history", lambda: history)
            upgraded = upgrade(url)
        assert upgraded.own.after == NEXT


@pytest.fixture
def next_release(tmp_path: Path) -> Iterator[NextRelease]:
    with pytest.MonkeyPatch.context() as patch:
        yield NextRelease(tmp_path / "migrations", patch)


def use_service(replica: Replica, token: str) -> None:
    """Read and write all that both releases know: a task, a chat turn with a tool call, its messages and events."""
    assert replica.request("GET", "/health/ready").status_code == 200
    assert replica.request("POST", "/api/ada/tasks", token, json={"title": "Buy milk"}).status_code == 201
    body = {"message": '/add_task {"title": "Call Mum"}'}
    turn = replica.request("POST", "/api/ada/chat", token, json=body)
    assert turn.status_code == 200, turn.text
    conversation_id, turn_id = turn.json()["conversation_id"], turn.json()["turn_id"]
    messages = replica.request("GET", f"/api/ada/conversations/{conversation_id}/messages", token).json()["items"]
    assert len(messages) == 2
    events = replica.request("GET", f"/api/ada/turns/{turn_id}/events", token)
    assert "turn.completed" in events.text
    tasks = replica.request("GET", "/api/ada/tasks", token).json()["items"]
    assert {task["title"] for task in tasks} == {"Buy milk", "Call Mum"}
    assert replica.request("DELETE", f"/api/ada/conversations/{conversation_id}", token).status_code == 204
    for task in tasks:
        assert replica.request("DELETE", f"/api/ada/tasks/{task['id']}", token).status_code == 204


def test_release_goes_on_and_starts_on_compatible_schema_of_next_release(
    home: Path, configured: Environment, token: str, next_release: NextRelease
) -> None:
    """A replica that runs during the migration, and one that starts after it, as in a rollback."""
    with running_service(home=home, environment=configured) as replica:
        use_service(replica, token)
        next_release.migrate(configured["LATCHKEY_DATABASE_URL"], compatible_with=head())
        use_service(replica, token)
    with running_service("--migrate", home=home, environment=configured) as replica:
        use_service(replica, token)
    migrated = run_command("migrate", home=home, environment=configured)
    examined = run_command("doctor", home=home, environment=configured)

    assert (migrated.exit_code, examined.exit_code) == (0, 0), migrated.stderr + examined.stdout
    assert (
        f"the schema is at revision {NEXT} of a newer release, which this release ({head()}) can use" in migrated.stdout
    )


def test_release_stops_on_incompatible_schema_of_next_release(
    home: Path, configured: Environment, next_release: NextRelease
) -> None:
    """A running replica is no longer ready, and none starts."""
    with running_service(home=home, environment=configured) as replica:
        next_release.migrate(configured["LATCHKEY_DATABASE_URL"], compatible_with=NEXT)
        not_ready = replica.request("GET", "/health/ready")
    refused = run_command("serve", home=home, environment=configured)
    text = f"schema revision {NEXT} of a newer release, and this release supports revisions up to {head()}"

    assert not_ready.status_code == 503
    assert text in not_ready.json()["detail"]
    assert refused.exit_code == 1
    assert text in refused.stderr.splitlines()[-1]
