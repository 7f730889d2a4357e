"""Clock offset: a replica whose clock is ahead serves with the database's time."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from msgspec.structs import replace

from latchkey.application.turns.start import StartedTurn, start_turn
from latchkey.bootstrap import core
from latchkey.bootstrap.core import create_core
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.message import NewMessage
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import LIMITS
from tests.support.service import run_service, settings_for
from tests.turns import profiles_of

AHEAD = timedelta(seconds=30)
LEASE = timedelta(seconds=20)


async def test_replica_with_clock_ahead_does_not_expire_a_running_turn(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other replica has written the lease, which is shorter than the clock is ahead."""
    limits = replace(LIMITS, lease=LEASE)
    settings = settings_for(postgresql_url)
    other_replica = create_core(settings)
    fast_clock = partial(SqlUnitsOfWork, now=lambda: datetime.now(UTC) + AHEAD)
    monkeypatch.setattr(core, "SqlUnitsOfWork", fast_clock)
    async with run_service(settings) as service:
        user = service.user()
        started = await other_replica.dispatcher.call(
            Owner(UserId(user.user_id)), start_turn, NewMessage("Hello"), profiles_of(), limits
        )
        assert isinstance(started, StartedTurn)
        turn = (await user.get(f"turns/{started.turn.id}")).json()
        [listed] = await user.list_items(f"conversations/{started.turn.conversation_id}/turns")
        task = await user.create("tasks", title="Buy milk")
    await other_replica.engine.dispose()

    assert (turn["status"], listed["status"]) == ("running", "running")
    assert abs(datetime.fromisoformat(task["created_at"]) - datetime.now(UTC)) < AHEAD / 2
