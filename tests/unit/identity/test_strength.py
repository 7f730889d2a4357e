"""Secrets that somebody made up are told from those that a machine did."""

import base64
import random
import string
from collections.abc import Callable

import pytest

from latchkey.infrastructure.identity.strength import ENOUGH_BITS, bits_of

MADE_UP = [
    "a secret of thirty-two bytes or more",
    "Correct Horse Battery Staple Correct Horse",
    "PLEASE CHANGE THIS BEFORE PRODUCTION",
    "changemechangemechangemechangeme",
    "00000000000000000000000000000000",
    "01234567890123456789012345678901234567890123456789",
    "0123456789abcdef0123456789abcdef",
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnop",
    "password1234password1234password1234!",
    "ein-geheimnis-das-niemand-erraet",
    "qwertyuiopasdfghjklzxcvbnmqwertyuiop",
]

MACHINES = random.Random(7)  # noqa: S311  # nobody keeps anything with what it makes
"""The same ones in each run: of truncated base64, one in some thousands has words in it by chance."""


@pytest.mark.parametrize("secret", MADE_UP)
def test_what_somebody_made_up_is_weak(secret: str) -> None:
    assert len(secret) >= 32
    assert bits_of(secret.encode()) < ENOUGH_BITS


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(lambda random_bytes: random_bytes.hex(), id="openssl rand -hex 32"),
        pytest.param(lambda random_bytes: random_bytes.hex()[:32], id="32 hexadecimal digits"),
        pytest.param(lambda random_bytes: base64.b64encode(random_bytes).decode(), id="openssl rand -base64 32"),
        pytest.param(lambda random_bytes: base64.urlsafe_b64encode(random_bytes).decode()[:32], id="url-safe"),
        pytest.param(lambda random_bytes: base64.b32encode(random_bytes).decode(), id="base32"),
        pytest.param(lambda random_bytes: random_bytes.decode("latin-1"), id="bytes"),
    ],
)
def test_what_a_machine_made_is_strong(encode: Callable[[bytes], str]) -> None:
    weak = [text for _ in range(1_000) if bits_of((text := encode(MACHINES.randbytes(32))).encode()) < ENOUGH_BITS]

    assert weak == []


def test_so_is_what_a_password_manager_makes() -> None:
    letters = string.ascii_letters + string.digits + string.punctuation
    made = ["".join(MACHINES.choices(letters, k=32)) for _ in range(1_000)]

    assert [text for text in made if bits_of(text.encode()) < ENOUGH_BITS] == []


def test_a_whole_chapter_said_again_counts_once() -> None:
    once = MACHINES.randbytes(16).hex()

    assert bits_of((once * 4).encode()) < bits_of(once.encode()) + 10
