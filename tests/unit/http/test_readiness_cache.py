"""Readiness checks are shared by all probes, so that probes cannot load the database."""

import asyncio

import pytest

from latchkey.domain.errors import Unavailable
from latchkey.interfaces.http.routes import health
from latchkey.interfaces.http.routes.health import ReadinessCache


class Database:
    """Counts the checks. Answers once `is_open` is set."""

    def __init__(self) -> None:
        self.checks = 0
        self.is_up = True
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def check(self) -> None:
        self.checks += 1
        await self.is_open.wait()
        if not self.is_up:
            raise Unavailable("down")


async def test_concurrent_probes_share_one_check() -> None:
    database = Database()
    database.is_open.clear()
    cache = ReadinessCache(database.check)
    probes = [asyncio.create_task(cache.check()) for _ in range(100)]
    await asyncio.sleep(0)
    probes.pop().cancel()
    database.is_open.set()

    assert await asyncio.gather(*probes) == [None] * 99
    assert database.checks == 1


@pytest.mark.parametrize("is_up", [True, False])
async def test_later_probes_get_the_cached_result_until_it_expires(
    is_up: bool,  # noqa: FBT001 # a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(health, "monotonic", lambda: now)
    database = Database()
    database.is_up = is_up
    cache = ReadinessCache(database.check)

    first = await asyncio.gather(*(cache.check() for _ in range(3)), return_exceptions=True)
    database.is_up = not is_up
    now += health.MAX_AGE_S / 2
    cached = await asyncio.gather(cache.check(), return_exceptions=True)
    now += health.MAX_AGE_S
    later = await asyncio.gather(cache.check(), return_exceptions=True)

    assert [outcome is None for outcome in [*first, *cached, *later]] == [is_up] * 4 + [not is_up]
    assert database.checks == 2
