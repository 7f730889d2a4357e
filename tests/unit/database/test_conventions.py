"""What this project has of its own instead of Advanced Alchemy's is the same."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from advanced_alchemy.base import convention
from advanced_alchemy.types import DateTimeUTC
from sqlalchemy.dialects.sqlite import dialect as sqlite

from latchkey.infrastructure.database.types import NAMES, UtcTime

SQLITE = sqlite()
TIMES = (
    None,
    datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
)


def test_constraints_are_called_what_advanced_alchemy_calls_them() -> None:
    """Otherwise the history of the schema, which was written with its names, would not find them."""
    assert convention == NAMES


@pytest.mark.parametrize("time", TIMES)
def test_a_time_is_kept_as_advanced_alchemy_keeps_it(time: datetime | None) -> None:
    kept = UtcTime().process_bind_param(time, SQLITE)

    assert kept == DateTimeUTC().process_bind_param(time, SQLITE)
    assert kept is None or kept.utcoffset() == timedelta(0)


@pytest.mark.parametrize("time", TIMES)
def test_a_time_comes_back_with_its_zone(time: datetime | None) -> None:
    """SQLite gives it without."""
    kept = time and time.astimezone(UTC).replace(tzinfo=None)

    assert UtcTime().process_result_value(kept, SQLITE) == DateTimeUTC().process_result_value(kept, SQLITE) == time


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(TypeError, match="needs its zone"):
        UtcTime().process_bind_param(datetime(2026, 1, 2), SQLITE)  # noqa: DTZ001  # that is the point
