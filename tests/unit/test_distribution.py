"""The distribution: its name, its license, the licenses of its dependencies, and what `make` installs."""

import re
import shutil
import subprocess
import tomllib
from hashlib import sha256
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.licenses import canonicalize_license_expression
from packaging.utils import canonicalize_name

from tests import third_party
from tests.unit.test_requirements import locked

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGE = (ROOT / PROJECT["readme"]).read_text()

APACHE_2_0 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
"""SHA-256 of the text as the Apache Software Foundation publishes it."""
PERMISSIVE = {
    "Apache-2.0",
    "Apache-2.0 OR BSD-3-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT AND PSF-2.0",
    "MIT OR Apache-2.0",
    "MIT-0",
    "MPL-2.0",  # of certifi: its list of certificates, unchanged
    "PSF-2.0",
}
OTHER_PROGRAM = re.compile(
    r"\b(?:install|add|download|inject|run|tool|uvx)\b(?: +-\S+)* +['\"]?latchkey(?![\w-])(?! +[a-z])"
)
"""An installer with the name `latchkey`, which is another program on the package index."""
NPM_LICENSE = re.compile(r"^## (\S+) - \S+ \((.+)\)$", re.MULTILINE)
IMPORT = re.compile(r"^\s*(?:import|from) +(\w+)", re.MULTILINE)


def test_license_is_the_text_of_apache_2_0() -> None:
    assert sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_0
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE", third_party.FILE.name]


def test_third_party_list_is_up_to_date() -> None:
    """If this fails, run `make licenses`."""
    assert third_party.FILE.read_text() == third_party.text()


@pytest.mark.parametrize("name", [*locked("runtime.txt"), *third_party.omitted_packages()])
def test_licenses_of_dependencies_are_permissive(name: str) -> None:
    license = third_party.license_of(name)

    assert license in PERMISSIVE
    assert canonicalize_license_expression(license) == license


def test_licenses_of_npm_packages_in_the_console_are_permissive() -> None:
    """If this fails after an update of `console/package-lock.json`, look at the new package."""
    text = (ROOT / "src/latchkey/interfaces/http/static/licenses.txt").read_text()
    licenses = dict(NPM_LICENSE.findall(text))

    assert {"ai", "react", "react-dom"} <= licenses.keys()
    assert {name: license for name, license in licenses.items() if license not in PERMISSIVE} == {}


def test_no_instruction_installs_the_other_program_called_latchkey() -> None:
    files = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "src").rglob("*.py"),
        *(ROOT / "bench").glob("*.md"),
        ROOT / "Makefile",
    ]
    matches = [(file.name, match[0]) for file in files for match in OTHER_PROGRAM.finditer(file.read_text())]

    assert matches == []


@pytest.mark.parametrize(
    ("command", "is_other"),
    [
        ("pip install latchkey", True),
        ("pip install -U 'latchkey[claude]'", True),
        ("uv tool install latchkey==0.1.0", True),
        ("uvx latchkey", True),
        ("pip install 'latchkey-server[claude]'", False),
        ("pip install dist/latchkey_server-0.1.0-py3-none-any.whl", False),
        ("uv run latchkey serve", False),
    ],
)
def test_instruction_pattern_finds_the_other_program(command: str, is_other: bool) -> None:  # noqa: FBT001
    assert bool(OTHER_PROGRAM.search(command)) == is_other


def test_package_page_has_no_links_into_the_repository() -> None:
    """The package index shows it alone."""
    assert re.findall(r"\]\((?!https://)[^)]*\)", PAGE) == []
    assert f"pip install {PROJECT['name']}\n" in PAGE


def test_service_imports_only_the_distributions_that_it_requires() -> None:
    """`make run` and the wheel install no others. The packages that need an extra import more."""
    files = {path for path in (ROOT / "src").rglob("*.py") if not {"pydantic_ai", "testing"} & {*path.parts}}
    modules = {name for path in files for name in IMPORT.findall(path.read_text())}
    modules |= {name for path in (ROOT / "migrations").rglob("*.py") for name in IMPORT.findall(path.read_text())}
    distributions = {
        module: {canonicalize_name(name) for name in names} for module, names in packages_distributions().items()
    }
    third = {module: distributions[module] for module in modules & distributions.keys() - {"latchkey"}}

    assert len(third) > 10
    assert {module for module, names in third.items() if not names & locked("runtime.txt").keys()} == set()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the files that `make` looks at."""
    for name in ("Makefile", "pyproject.toml", "requirements"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    return tmp_path


def locks_installed_by(target: str, checkout: Path) -> list[str]:
    """The lock files that `make` would install from, without installing them."""
    command = ["make", "--dry-run", "--no-print-directory", target]
    recipe = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout
    return re.findall(r"-r requirements/(\w+)\.txt", recipe)


def finish(checkout: Path, *stamps: str) -> None:
    for stamp in stamps:
        (checkout / ".venv" / stamp).touch()


@pytest.mark.parametrize("target", ["setup", "test", "check"])
def test_make_run_installs_the_runtime_and_other_targets_everything(checkout: Path, target: str) -> None:
    assert locks_installed_by("run", checkout) == ["runtime", "build"]
    assert locks_installed_by(target, checkout)[:3] == ["runtime", "build", "dev"]


def test_make_test_after_make_run_installs_the_rest(checkout: Path) -> None:
    finish(checkout, "installed")

    assert locks_installed_by("run", checkout) == []
    assert locks_installed_by("test", checkout) == ["dev"]


def test_make_run_after_make_test_installs_nothing(checkout: Path) -> None:
    finish(checkout, "installed", "dev-installed")

    assert locks_installed_by("test", checkout) == []
    assert locks_installed_by("run", checkout) == []
