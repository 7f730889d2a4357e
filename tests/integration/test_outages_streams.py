"""An event stream during a database outage: it sends keep-alives, and continues afterwards."""

from typing import Any

import pytest
from sqlalchemy import make_url

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns import subscription
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.ports import LogEntry
from latchkey.domain.turn import Usage
from latchkey.infrastructure.database.event_bus import LocalEventBus
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.integration.database.tcp_proxy import proxy_to
from tests.integration.outage import url_through
from tests.turns import started_turn

ADA = Owner(UserId("ada"))


async def test_stream_sends_keepalives_while_database_is_frozen(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while it waits for the response of the database."""
    monkeypatch.setattr(subscription, "KEEPALIVE_S", 0.05)
    monkeypatch.setattr(subscription, "LEASE_CHECK_S", 0.05)
    async with proxy_to(make_url(postgresql_url).port or 5432) as proxy:
        frozen, elsewhere = create_engine(url_through(proxy, postgresql_url)), create_engine(postgresql_url)
        app = Dispatcher(SqlUnitsOfWork(elsewhere), lambda _call: None)
        event_bus = LocalEventBus()
        reads: list[LogEntry] = []
        subscriptions = subscription.TurnSubscriptions(
            Dispatcher(SqlUnitsOfWork(frozen, event_bus), reads.append), event_bus
        )
        turn_id = (await started_turn(app, ADA)).turn.id
        batches = subscriptions.follow(ADA, turn_id, 0)
        received: list[Any] = [await anext(batches)]
        proxy.freeze()
        reads_before = len(reads)
        quiet = [await anext(batches) for _ in range(5)]
        reads_while_frozen = len(reads) - reads_before
        await app.call(ADA, finish_turn, turn_id, TurnOutcome("completed", Usage(), "Done."))
        await proxy.restore()
        received += [batch async for batch in batches]
        await frozen.dispose()
        await elsewhere.dispose()

    assert (quiet, reads_while_frozen) == ([[]] * 5, 0)
    assert [event.name for batch in received for event in batch] == ["turn.started", "message.delta", "turn.completed"]
