"""The title that is made from a text."""

import pytest

from latchkey.application.turns.finish import MAX_TITLE_CHARS, title_of

LONG = "word " * 40


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Buy milk", "Buy milk"),
        ("  Buy \t milk \r\nand eggs", "Buy milk"),
        ("\n\n \u2003\nBuy milk\n", "Buy milk"),
        ("x" * 60, "x" * 60),
        (LONG, "word " * 11 + "word…"),
        ("x" * 61, "x" * 59 + "…"),
        ("y" * 59 + " z", "y" * 59 + "…"),
        ("買" * 100, "買" * 59 + "…"),
        (" \n\t", None),
    ],
    ids=[
        "short",
        "white space",
        "blank lines first",
        "just fits",
        "words",
        "one long word",
        "word that just fits",
        "no spaces",
        "blank",
    ],
)
def test_title_is_the_first_line_cut_after_a_word(text: str, title: str | None) -> None:
    actual = title_of(text)

    assert actual == title
    assert actual is None or len(actual) <= MAX_TITLE_CHARS
