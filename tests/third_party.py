"""Generates THIRD-PARTY.md from the lock file and the metadata of the installed packages: `make licenses`."""

import re
from importlib.metadata import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "THIRD-PARTY.md"

_LOCKED = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)", re.MULTILINE)
_EXTRA = re.compile(r'^claude = \["(?P<name>[\w.-]+)==(?P<version>[^"]+)"\]', re.MULTILINE)
_OTHER_PLATFORMS = {
    "colorama": "BSD-3-Clause",
    "httpx2-jsfetch": "BSD-3-Clause",
    "pywin32": "PSF-2.0",
    "tzdata": "Apache-2.0",
}
"""Locked packages that are installed on other platforms only, as their metadata there says."""
_IDENTIFIERS = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""SPDX identifiers of the names that older metadata use."""
_HEAD = """\
# Third-party packages

The wheel contains no code of other projects but that of the console, whose npm packages are listed with their licenses
in `licenses.txt` beside its files (`latchkey/interfaces/http/static`). Its installation adds the packages below, each
under its own license. The
list is generated from the lock files and the metadata of the packages (`make licenses`). Latchkey never imports some of
them, which other packages require; `make run` does not install these: {omitted}.

| package | version | license |
|---|---|---|
"""
_PYDANTIC_AI = ("genai-prices", "logfire-api", "pydantic-ai-slim", "pydantic-graph")
"""What the extra `pydantic-ai` installs in addition to what the wheel requires."""
_FOOT = """
The extra `pydantic-ai` also installs {pydantic_ai}.
The extra `claude` also installs {name} {version} ({license}). Its wheel contains the Claude CLI, which is not open
source: Anthropic's terms of service apply to it.
"""


def text() -> str:
    """Return the content of the file."""
    omitted = omitted_packages()
    lock = [*_lock("runtime"), *(entry for entry in _lock("dev") if entry[0] in omitted)]
    rows = "".join(f"| {name} | {version} | {license_of(name)} |\n" for name, version in sorted(lock))
    name, version = _EXTRA.findall((ROOT / "pyproject.toml").read_text())[0]
    head = _HEAD.format(omitted=", ".join(omitted))
    extra = [f"{name} {version} ({license_of(name)})" for name, version in _lock("dev") if name in _PYDANTIC_AI]
    foot = _FOOT.format(name=name, version=version, license=license_of(name), pydantic_ai=", ".join(extra))
    return head + rows + foot


def omitted_packages() -> list[str]:
    """Return the packages that the wheel requires and the lock file of the runtime leaves out."""
    lines = (ROOT / "requirements/omitted.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def _lock(name: str) -> list[tuple[str, str]]:
    return _LOCKED.findall((ROOT / f"requirements/{name}.txt").read_text())


def license_of(name: str) -> str:
    """Return the license of a package as an SPDX expression. Raises `ValueError` if the metadata name none."""
    if name in _OTHER_PLATFORMS:
        return _OTHER_PLATFORMS[name]
    package = metadata(name)
    classifiers = [text.rpartition(" :: ")[2] for text in package.get_all("Classifier", []) if "License :: " in text]
    # The field may hold the whole text of the license, whose first line is its name.
    texts = [text for field in ("License-Expression", "License") for text in package.get_all(field, [])]
    declared = [*(text.partition("\n")[0] for text in texts), *classifiers]
    found: str | None = next((value for value in declared if value), None)
    if found is None:
        raise ValueError(f"The metadata of {name} name no license")
    return _IDENTIFIERS.get(found, found)


if __name__ == "__main__":
    FILE.write_text(text())
