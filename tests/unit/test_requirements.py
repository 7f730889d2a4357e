"""The requirements files lock what pyproject.toml requires."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.third_party import omitted_packages

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]
GROUPS = PROJECT["dependency-groups"]
BUILD = GROUPS["build"]
DEV = [*RUNTIME, *BUILD, *(entry for entry in GROUPS["dev"] if isinstance(entry, str))]
LOCKS = {
    "runtime.txt": RUNTIME,
    "build.txt": BUILD,
    "dev.txt": DEV,
    **{f"{group}.txt": required for group, required in GROUPS.items() if group not in {"build", "dev"}},
}
LOCKED = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>\S+).*\\\n(?P<hashes>(?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def locked(file: str) -> dict[str, str]:
    """Return name and version of every package that the file locks by hash."""
    text = (ROOT / "requirements" / file).read_text()
    return {canonicalize_name(entry["name"]): entry["version"] for entry in LOCKED.finditer(text)}


@pytest.mark.parametrize(("file", "required"), LOCKS.items(), ids=LOCKS)
def test_locked_versions_satisfy_requirements(file: str, required: list[str]) -> None:
    """If this fails, run `make lock`."""
    versions = locked(file)
    requirements = [Requirement(text) for text in required]

    assert [
        str(requirement)
        for requirement in requirements
        if not requirement.specifier.contains(versions.get(canonicalize_name(requirement.name), "0"), prereleases=True)
    ] == []


def test_lock_files_contain_only_names_versions_and_hashes() -> None:
    for file in LOCKS:
        assert LOCKED.sub("", (ROOT / "requirements" / file).read_text()) == ""


def test_lock_for_development_contains_the_runtime_and_build_versions() -> None:
    assert locked("runtime.txt").items() <= locked("dev.txt").items()
    assert locked("build.txt").items() <= locked("dev.txt").items()


def test_lock_for_the_runtime_leaves_out_what_is_never_imported() -> None:
    """`tests/integration/test_wheel.py` runs the commands without these packages."""
    omitted = set(omitted_packages())

    assert omitted
    assert omitted & locked("runtime.txt").keys() == set()
    assert omitted <= locked("dev.txt").keys()


def test_lock_for_building_is_that_of_the_build_system() -> None:
    """The editable installation uses it without build isolation."""
    assert PROJECT["build-system"]["requires"] == BUILD


def test_lock_for_benchmarks_changes_no_measured_version() -> None:
    """The benchmark tools are installed into the same environment."""
    versions = locked("dev.txt")

    assert {name: versions[name] for name in locked("bench.txt") if name in versions} == {
        name: version for name, version in locked("bench.txt").items() if name in versions
    }


def test_lock_for_interoperability_shares_versions_with_development() -> None:
    """Differences between clients must not come from their libraries."""
    versions = locked("dev.txt")
    shared = {name: version for name, version in locked("interop.txt").items() if name in versions}

    assert "mcp" in shared
    assert {name: versions[name] for name in shared} == shared
