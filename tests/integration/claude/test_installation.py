"""How the CLI is cli, and its version."""

import sys
from pathlib import Path

import pytest

from latchkey.infrastructure.agents.claude.cli import TESTED_VERSION, ClaudeCli, cli_version, find_cli
from tests.integration.claude.claude_harness import fake_cli


def test_bundled_cli_has_the_tested_version() -> None:
    cli = find_cli()

    assert cli
    assert cli.parent.name == "_bundled"
    assert cli_version(cli) == TESTED_VERSION


def test_configured_cli_takes_precedence(tmp_path: Path) -> None:
    configured = fake_cli(tmp_path, "print('3.1.4 (Claude Code)')")

    assert find_cli(configured) == configured
    assert cli_version(configured) == "3.1.4"


def test_missing_configured_cli_is_not_replaced_by_another(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a text").write_text("hello")

    assert [find_cli(tmp_path / name) for name in ("nothing", "a folder", "a text")] == [None, None, None]


def test_cli_on_the_path_is_found_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path = fake_cli(tmp_path, "")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_cli() == on_path

    monkeypatch.setenv("PATH", "")
    assert find_cli() is None


@pytest.mark.parametrize("program", ["print('hello')", "raise SystemExit(3)"])
def test_program_that_prints_no_version_has_none(tmp_path: Path, program: str) -> None:
    assert cli_version(fake_cli(tmp_path, program)) is None
    assert cli_version(tmp_path / "nothing") is None


def test_repr_of_the_cli_has_no_api_key() -> None:
    assert "sk-secret" not in repr(ClaudeCli(path=Path("claude"), api_key="sk-secret"))
