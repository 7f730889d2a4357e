"""Arguments of tool calls as they are recorded: strict JSON that every database can store."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchkey.domain.tool_call import encode_arguments

TEXT = st.text(st.characters(exclude_categories=()))
LEAF = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT
JSON: st.SearchStrategy[Any] = st.recursive(LEAF, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner))


@given(st.dictionaries(TEXT, JSON))
def test_encoded_arguments_any_input_is_strict_json(arguments: dict[str, Any]) -> None:
    """UTF-8 without NUL, which PostgreSQL cannot store."""
    assert b"\x00" not in encode_arguments(arguments)
    assert isinstance(msgspec.json.decode(encode_arguments(arguments)), dict)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"a": 1, "b": [None, "é"]}, '{"a":1,"b":[null,"é"]}'),
        ({"a": "x\ud800"}, '{"a":"x\ufffd"}'),
        ({"a": "\ud83d\ude00"}, '{"a":"\U0001f600"}'),
    ],
    ids=["valid text", "lone surrogate", "surrogate pair"],
)
def test_encoded_arguments_valid_text_is_unchanged_and_surrogates_are_replaced(
    arguments: dict[str, Any], expected: str
) -> None:
    assert encode_arguments(arguments).decode() == expected


def test_encoded_arguments_nested_too_deeply_are_null() -> None:
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]

    assert encode_arguments({"a": deep}) == b"null"
