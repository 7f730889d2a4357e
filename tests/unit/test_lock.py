"""The lock is what pyproject.toml asks for."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]
DEV = [*RUNTIME, *PROJECT["dependency-groups"]["dev"], *PROJECT["build-system"]["requires"]]
INTEROP = PROJECT["dependency-groups"]["interop"]
BENCH = PROJECT["dependency-groups"]["bench"]
LOCKS = {"runtime.txt": RUNTIME, "dev.txt": DEV, "interop.txt": INTEROP, "bench.txt": BENCH}
LOCKED = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>\S+).*\\\n(?P<hashes>(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def locked(file: str) -> dict[str, str]:
    """Name and version of all that the file locks by hash."""
    text = (ROOT / "requirements" / file).read_text()
    return {canonicalize_name(entry["name"]): entry["version"] for entry in LOCKED.finditer(text)}


@pytest.mark.parametrize(("file", "wanted"), LOCKS.items(), ids=LOCKS)
def test_everything_asked_for_is_locked_in_a_version_that_will_do(file: str, wanted: list[str]) -> None:
    """Where this fails, `make lock` was forgotten."""
    versions = locked(file)
    requirements = [Requirement(text) for text in wanted]

    assert [
        str(one)
        for one in requirements
        if not one.specifier.contains(versions.get(canonicalize_name(one.name), "0"), prereleases=True)
    ] == []


def test_the_lock_holds_names_versions_and_hashes_and_nothing_else() -> None:
    for file in LOCKS:
        assert LOCKED.sub("", (ROOT / "requirements" / file).read_text()) == ""


def test_development_runs_the_versions_that_production_does() -> None:
    assert locked("runtime.txt").items() <= locked("dev.txt").items()


def test_tools_to_measure_with_move_no_version_of_what_they_measure() -> None:
    """They are installed beside it."""
    versions = locked("dev.txt")

    assert {name: versions[name] for name in locked("bench.txt") if name in versions} == {
        name: version for name, version in locked("bench.txt").items() if name in versions
    }


def test_a_client_in_an_environment_of_its_own_shares_the_versions_of_what_both_have() -> None:
    """So that it is the client that makes the difference, and not the libraries beneath."""
    versions = locked("dev.txt")
    shared = {name: version for name, version in locked("interop.txt").items() if name in versions}

    assert "mcp" in shared
    assert {name: versions[name] for name in shared} == shared
