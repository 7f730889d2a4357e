"""Arguments as the ledger keeps them."""

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
def test_whatever_comes_in_is_kept_as_strict_json(arguments: dict[str, Any]) -> None:
    """In UTF-8, without the NUL that PostgreSQL cannot store."""
    assert b"\x00" not in encode_arguments(arguments)
    assert isinstance(msgspec.json.decode(encode_arguments(arguments)), dict)


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ({"a": 1, "b": [None, "é"]}, '{"a":1,"b":[null,"é"]}'),
        ({"a": "x\ud800"}, '{"a":"x\ufffd"}'),
        ({"a": "\ud83d\ude00"}, '{"a":"\U0001f600"}'),
    ],
    ids=["as they came", "a lone surrogate", "a pair of surrogates"],
)
def test_they_are_kept_as_they_came_if_they_can_be(arguments: dict[str, Any], kept: str) -> None:
    assert encode_arguments(arguments).decode() == kept


def test_what_is_nested_too_deeply_is_kept_as_null() -> None:
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]

    assert encode_arguments({"a": deep}) == b"null"
