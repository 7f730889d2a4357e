"""The committed files of the console are those that its sources build. This test needs npm packages, but no browser."""

from pathlib import Path

from tests.console_build import STATIC, build


def test_console_files_equal_a_new_build(tmp_path: Path) -> None:
    """If this fails, run `make console` and commit the files."""
    build(tmp_path)

    assert files(tmp_path) == files(STATIC)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
