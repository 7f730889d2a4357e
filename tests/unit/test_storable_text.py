"""Texts that PostgreSQL cannot store are found in JSON values."""

from typing import Any

import pytest

from latchkey.domain.errors import Invalid
from latchkey.interfaces.errors import check_storable


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("\x00", "$"),
        ({"a": ["b", {"c": "half \ud83d"}]}, "$.a[1].c"),
        ({"a": {"\ud83d": 1}}, "$.a"),
    ],
)
def test_text_with_nul_or_lone_surrogate_is_invalid_at_its_path(value: Any, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_storable(value)

    assert caught.value.detail == f"{path}: Expected text without NUL and without lone surrogates"


def test_storable_text_in_any_depth_is_valid() -> None:
    value: Any = "\\u0000 \ufffd \U0010ffff"
    for _ in range(2_000):
        value = [value]

    check_storable(value)
