"""`kill -9` at every named point of a turn: what was acknowledged is there, nothing is half done, all goes on."""

import asyncio
import time
from signal import SIGCONT, SIGKILL, SIGSTOP, Signals

import pytest

from tests.chaos.clockwork import Clockwork
from tests.chaos.cluster import Cluster
from tests.chaos.inquest import Inquest
from tests.chaos.picture import Reader
from tests.chaos.points import Point, Traveller, at_their_points
from tests.chaos.talker import SLACK_S
from tests.polling import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("point", list(Point), ids=lambda point: point.name.lower())
async def test_a_turn_that_is_killed_there_is_interrupted_as_it_stands(
    sqlite_cluster: Cluster, model: Clockwork, point: Point
) -> None:
    """Its client tries again with the same key. Killed before it was accepted, it then takes place."""
    traveller = Traveller.to(point, "killed", is_streamed=point is Point.FIRST_DELTA)
    async with at_their_points([traveller], sqlite_cluster, model) as talks:
        await sqlite_cluster.end(0, SIGKILL)
    await sqlite_cluster.start(0)
    await _see_it_end(sqlite_cluster, 0, traveller)
    await asyncio.gather(*talks)

    await _examine(sqlite_cluster, model, traveller)


@pytest.mark.parametrize("weapon", [SIGKILL, SIGSTOP], ids=lambda weapon: weapon.name)
async def test_of_two_replicas_one_shows_at_once_what_became_of_the_turns_of_the_other(
    postgresql_cluster: Cluster, model: Clockwork, weapon: Signals
) -> None:
    """It had one at every point. If it was only stopped, and goes on, it cannot write into them any more."""
    travellers = [Traveller.to(point, weapon.name, is_streamed=True) for point in Point]
    async with at_their_points(travellers, postgresql_cluster, model) as talks:
        await _strike(postgresql_cluster, weapon)
    struck = time.monotonic()
    for traveller in travellers:
        await _see_it_end(postgresql_cluster, 1, traveller)
    seconds = time.monotonic() - struck
    await _recover(postgresql_cluster, weapon)
    await asyncio.gather(*talks)

    assert seconds < postgresql_cluster.lease_s + 10 + SLACK_S
    for traveller in travellers:
        await _examine(postgresql_cluster, model, traveller)


async def _strike(cluster: Cluster, weapon: Signals) -> None:
    if weapon == SIGSTOP:
        cluster.send(0, SIGSTOP)
    else:
        await cluster.end(0, weapon)


async def _recover(cluster: Cluster, weapon: Signals) -> None:
    if weapon == SIGSTOP:
        cluster.send(0, SIGCONT)
    else:
        await cluster.start(0)


async def _see_it_end(cluster: Cluster, nth: int, traveller: Traveller) -> None:
    """At that replica; what is shown there is remembered. There is nothing to see of what was not accepted."""
    if not traveller.point.is_accepted:
        return
    url = cluster.urls[nth]
    assert url is not None
    async with Reader(url, traveller.user, cluster.token(traveller.user)) as reader:

        async def has_ended() -> bool:
            turns = [
                turn
                for one in await reader.items("conversations")
                for turn in await reader.items(f"conversations/{one['id']}/turns")
            ]
            return [turn["status"] for turn in turns] == ["interrupted"]

        await wait_until(has_ended)
        (await reader.picture()).remember_in(traveller.record)


async def _examine(cluster: Cluster, model: Clockwork, traveller: Traveller) -> None:
    """What was accepted is interrupted, as it stood; what was not has taken place since. Nothing else is wrong."""
    inquest = Inquest(cluster, model, traveller.user, traveller.record)
    picture = await inquest.picture()
    own = [title for title in picture.titles.elements() if title.startswith(f"{traveller.user}.")]
    point = traveller.point

    assert inquest.anomalies(picture) == []
    assert model.faults == []
    assert traveller.sent.outcome == ("interrupted" if point.is_accepted else "completed")
    assert own == [f"{traveller.user}.0"] * (point.has_effect or not point.is_accepted)
