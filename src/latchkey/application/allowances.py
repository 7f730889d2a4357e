"""What a person has used, as the database has it, for every process that serves them."""

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from latchkey.domain.allowance import Allowance, Quota
from latchkey.domain.ports import UnitOfWork


class Draft(Struct, frozen=True):
    """So many requests were taken, and more may be in `wait_s` seconds; `is_full` for `full_s` at least."""

    requests: int
    wait_s: int
    stored_bytes: int
    full_s: int


async def draw(work: UnitOfWork, quota: Quota, requests: int, written: int) -> Draft:
    """Take requests, as many as there are of those wanted, and report the bytes that were written meanwhile."""
    now = work.now
    allowance = await work.allowances.get() or await _first(work)
    allowance, taken = allowance.take(quota, requests, now)
    allowance = replace(allowance, stored_bytes=allowance.stored_bytes + written)
    if allowance.wants_counting(quota, now):
        allowance = await _counted(work, allowance, now)
    await work.allowances.replace(allowance)
    return Draft(taken, allowance.wait_s(quota, now), allowance.stored_bytes, allowance.count_s(now))


async def _first(work: UnitOfWork) -> Allowance:
    return await work.allowances.add(await _counted(work, Allowance(work.now, 0, work.now), work.now))


async def _counted(work: UnitOfWork, allowance: Allowance, now: datetime) -> Allowance:
    return replace(allowance, stored_bytes=await work.allowances.measure(), counted_at=now)
