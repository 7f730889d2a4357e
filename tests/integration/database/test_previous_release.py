"""The previous release's own contract suite, with its own code, on the schema of this release."""

import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

import latchkey

PREVIOUS_RELEASE = "703af836bc99569af909317d2f4e023e54bad12c"
"""The commit of the previous release. A new release sets it to the one before."""
SUITE = "tests/contract/database"
SOURCES = Path(latchkey.__file__).parent.parent
REPOSITORY = Path(__file__).parents[3]
TIMEOUT_S = 540
PLUGIN = """
import os
import subprocess
import sys
from pathlib import Path

import latchkey
from latchkey.infrastructure.database import migrations

COMMAND = "import sys; from latchkey.infrastructure.database.migrations import upgrade; upgrade(sys.argv[1])"


def upgrade(url, revision="head"):
    environment = {**os.environ, "PYTHONPATH": os.environ["NEXT_RELEASE"]}
    subprocess.run([sys.executable, "-c", COMMAND, url], check=True, env=environment)


assert Path(latchkey.__file__).is_relative_to(Path.cwd()), latchkey.__file__
migrations.upgrade = upgrade
"""
"""Lets this release make the databases of the tests; everything else is the previous release."""


@pytest.fixture
def previous_release(tmp_path: Path) -> Path:
    archive = subprocess.run(
        ["git", "archive", PREVIOUS_RELEASE], cwd=REPOSITORY, capture_output=True, check=False, timeout=60
    )
    if archive.returncode:
        pytest.skip(f"no git history with the previous release, {PREVIOUS_RELEASE[:7]}")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(tmp_path / "release", filter="data")
    return tmp_path / "release"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_previous_release_passes_its_contract_suite_on_the_newest_schema(
    previous_release: Path, tmp_path: Path, kind: str
) -> None:
    """A rolling upgrade needs this, and so does a rollback.

    The previous release would refuse to start on a newer schema unless it is declared to be compatible; its suite asks
    nothing of the kind.
    """
    (tmp_path / "newest_schema.py").write_text(PLUGIN)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "LATCHKEY_"))},
        "PYTHONPATH": os.pathsep.join([str(previous_release / "src"), str(tmp_path)]),
        "NEXT_RELEASE": str(SOURCES),
    }
    # The entry point `latchkey` of pytest is this release's: the previous release may have no such module.
    plugins = [argument for name in ("newest_schema", "no:latchkey", "no:cacheprovider") for argument in ("-p", name)]
    command = [sys.executable, "-m", "pytest", *plugins, "-q", "-n", "0"]

    suite = subprocess.run(
        [*command, "-k", kind, SUITE],
        cwd=previous_release,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )

    assert suite.returncode == 0, suite.stdout[-5000:] + suite.stderr[-2000:]
