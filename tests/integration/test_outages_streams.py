"""An event stream during a database outage: it sends keep-alives, and continues afterwards."""

from typing import Any

import pytest
from sqlalchemy import make_url

from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns import subscription as watching
from latchkey.application.turns.finish import TurnOutcome, finish_turn
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.ports import TurnReport, UseCaseCall
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
    monkeypatch.setattr(watching, "KEEPALIVE_S", 0.05)
    monkeypatch.setattr(watching, "LEASE_CHECK_S", 0.05)
    async with proxy_to(make_url(postgresql_url).port or 5432) as proxy:
        frozen, elsewhere = create_engine(url_through(proxy, postgresql_url)), create_engine(postgresql_url)
        app = Dispatcher(SqlUnitsOfWork(elsewhere), lambda _call: None)
        event_bus = LocalEventBus()
        looks: list[UseCaseCall | TurnReport] = []
        subscriptions = watching.TurnSubscriptions(
            Dispatcher(SqlUnitsOfWork(frozen, event_bus), looks.append), event_bus
        )
        turn_id = (await started_turn(app, ADA)).turn.id
        batches = subscriptions.follow(ADA, turn_id, 0)
        heard: list[Any] = [await anext(batches)]
        proxy.freeze()
        before = len(looks)
        quiet = [await anext(batches) for _ in range(5)]
        looked = len(looks) - before
        await app.call(ADA, finish_turn, turn_id, TurnOutcome("completed", Usage(), "Done."))
        await proxy.restore()
        heard += [batch async for batch in batches]
        await frozen.dispose()
        await elsewhere.dispose()

    assert (quiet, looked) == ([[]] * 5, 0)
    assert [event.name for batch in heard for event in batch] == ["turn.started", "message.delta", "turn.completed"]
