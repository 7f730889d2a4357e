"""The search for canaries finds them in every encoding."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.secrets.canary import Canary, find_leaks

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda text: text,
    "capitals": lambda text: text.upper(),
    "truncated": lambda text: text[:-8] + b"...",
    "hexadecimal": lambda text: text.hex().encode(),
    "a URL": lambda text: b"postgresql://ada:" + quote(text).encode() + b"@db",
    "JSON": lambda text: json.dumps({"key": text.decode()}).encode(),
    "base64": lambda text: b64encode(text + b"!"),
    "base64 after one": lambda text: b64encode(b":" + text + b"!"),
    "base64 after two": lambda text: b64encode(b"a:" + text),
    "base64 after a user": lambda text: b64encode(b"user:" + text),
    "URL-safe base64": lambda text: urlsafe_b64encode(b"\xff\xfe\xff" + text),
    "URL-safe base64 after one": lambda text: urlsafe_b64encode(b"\xff" + text),
    "URL-safe base64 after two": lambda text: urlsafe_b64encode(b"\xff\xfe" + text),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_redaction_search_finds_a_canary_in_every_encoding(encoding: str) -> None:
    canary, other = Canary.create("leaked"), Canary.create("kept")
    output = {"log": b"nothing", "response": b"<<" + ENCODINGS[encoding](canary.text.encode()) + b">>"}

    assert find_leaks([canary, other], output) == {("leaked", "response")}
