"""Faulty revisions of an app: each is reported in one sentence with file and line."""

from pathlib import Path

import pytest

from latchkey.infrastructure.database.app_history import FaultyRevision, next_number
from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.revision import app_history

REVISION = '''"""A revision."""

revision = "{number}"
down_revision = {before!r}
compatible_with = "0001"


def upgrade() -> None:
    pass
'''
FIRST = REVISION.format(number="0001", before=None)
SECOND = REVISION.format(number="0002", before="0001")

FAULTY = {
    "another name": ("helpers.py", "", "1: this is no revision: name it like 0001_subject.py"),
    "no Python": ("0002_second.py", "def upgrade(:\n", "1: the file is no valid Python"),
    "another encoding": ("0002_second.py", 'a = "\udcff"', "1: the file"),
    "NUL": ("0002_second.py", "a = 1\0", "1: the file"),
    "two heads": (
        "0002_second.py",
        SECOND.replace("'0001'", "None"),
        "4: `down_revision` is None: it must be '0001', the revision before this one.",
    ),
    "the same number": ("0001_second.py", FIRST, "1: 0001_first.py has the same number, which makes two heads"),
    "no down_revision": (
        "0002_second.py",
        SECOND.replace("down_revision", "down_to"),
        "1: `down_revision` is missing: it must be '0001', the revision before this one.",
    ),
    "no literal": (
        "0002_second.py",
        SECOND.replace("'0001'", "before()"),
        "4: `down_revision` is 'before()': it must be '0001'",
    ),
    "another number": (
        "0003_second.py",
        SECOND,
        "3: `revision` is '0002': it must be '0003', the number in the file's name.",
    ),
    "compatible with a later release": (
        "0002_second.py",
        SECOND.replace('compatible_with = "0001"', 'compatible_with = "0003"'),
        "5: `compatible_with` is '0003': it must be the number of this or of an earlier revision",
    ),
    "no upgrade": ("0002_second.py", SECOND.replace("upgrade", "update"), "1: the function `upgrade` is missing."),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_faulty_revision_is_refused_with_file_and_line(tmp_path: Path, fault: str) -> None:
    name, text, message = FAULTY[fault]
    (tmp_path / "0001_first.py").write_text(FIRST)
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(FaultyRevision) as refused:
        app_history(AppSchema(migrations=tmp_path))

    assert str(refused.value).startswith(f"{tmp_path / name}:{message}")


def test_chain_of_revisions_has_one_head(tmp_path: Path) -> None:
    """Numbers may be left out, as after a revision that was never released."""
    (tmp_path / "__init__.py").touch()
    (tmp_path / "0001_first.py").write_text(FIRST)
    (tmp_path / "0003_third.py").write_text(REVISION.format(number="0003", before="0001"))

    history = app_history(AppSchema(migrations=tmp_path))

    assert history is not None
    assert history.head == "0003"
    assert next_number(tmp_path) == "0004"


def test_missing_folder_has_no_revision(tmp_path: Path) -> None:
    history = app_history(AppSchema(migrations=tmp_path / "migrations"))

    assert history is not None
    assert history.head is None
    assert next_number(tmp_path / "migrations") == "0001"


def test_app_without_folder_has_no_history() -> None:
    assert app_history(AppSchema()) is None
