"""What a person has used, as the database has it, for every process that serves them."""

from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from latchkey.domain.allowance import Allowance, Quota
from latchkey.domain.ports import UnitOfWork

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Draft(Struct, frozen=True):
    """So many requests were taken, and more may be in `wait_s` seconds; what is stored may be due to be counted."""

    requests: int
    wait_s: int
    stored_bytes: int
    wants_counting: bool
    count_s: int


async def draw(work: UnitOfWork, quota: Quota, requests: int, written: int) -> Draft:
    """Take requests, as many as there are of those wanted, and report the bytes that were written meanwhile."""
    now = work.now
    allowance = await work.allowances.get() or await work.allowances.add(Allowance(now, 0, _NEVER))
    allowance, taken = allowance.take(quota, requests, now)
    allowance = replace(allowance, stored_bytes=allowance.stored_bytes + written)
    await work.allowances.replace(allowance)
    return Draft(
        requests=taken,
        wait_s=allowance.wait_s(quota, now),
        stored_bytes=allowance.stored_bytes,
        wants_counting=allowance.wants_counting(quota, now),
        count_s=allowance.count_s(now),
    )


async def note_size(work: UnitOfWork, stored_bytes: int) -> int:
    """In how many seconds it may be counted again.

    It was counted just now, in a unit of its own: nobody waits for that but whoever wants to store something.
    """
    allowance = await work.allowances.get() or await work.allowances.add(Allowance(work.now, 0, _NEVER))
    counted = replace(allowance, stored_bytes=stored_bytes, counted_at=work.now)
    await work.allowances.replace(counted)
    return counted.count_s(work.now)
