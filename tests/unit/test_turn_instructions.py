"""The end of a system prompt: the date and time where the user is."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from latchkey.application.turns.runner import build_instructions
from latchkey.domain.message import NewMessage


@pytest.mark.parametrize(
    ("moment", "zone", "local_time", "example"),
    [
        ((2026, 11, 28, 22, 43), "Europe/Berlin", "Saturday, 2026-11-28 23:43", "2026-11-28T23:00:00+01:00"),
        ((2026, 11, 28, 22, 43), "Asia/Tokyo", "Sunday, 2026-11-29 07:43", "2026-11-29T07:00:00+09:00"),
        ((2026, 11, 28, 22, 43), "UTC", "Saturday, 2026-11-28 22:43", "2026-11-28T22:00:00+00:00"),
        ((2026, 3, 29, 0, 59), "Europe/Berlin", "Sunday, 2026-03-29 01:59", "2026-03-29T01:00:00+01:00"),
        ((2026, 3, 29, 1, 0), "Europe/Berlin", "Sunday, 2026-03-29 03:00", "2026-03-29T03:00:00+02:00"),
        ((2026, 7, 1, 12, 0), "America/St_Johns", "Wednesday, 2026-07-01 09:30", "2026-07-01T09:00:00-02:30"),
    ],
)
def test_instructions_name_the_local_time_and_the_offset_that_applies_then(
    moment: tuple[int, int, int, int, int], zone: str, local_time: str, example: str
) -> None:
    text = build_instructions("Be brief.", datetime(*moment, tzinfo=UTC), ZoneInfo(zone))

    assert text.startswith("Be brief.\n\n")
    assert f"It is {local_time} in {zone} (UTC{example[-6:]})." in text
    assert text.endswith(f"such as {example}.")


def test_message_without_timezone_is_encoded_as_in_earlier_releases() -> None:
    """Its idempotency key keeps its fingerprint in a rolling upgrade."""
    encoded = msgspec.json.encode(NewMessage("Hi"))

    assert encoded == b'{"message":"Hi","conversation_id":null,"artifact_generation":false}'
