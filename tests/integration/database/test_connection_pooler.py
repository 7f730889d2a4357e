"""Units of work and migrations behind PgBouncer in transaction mode, as on Neon's pooled hosts."""

import asyncio

import asyncpg
import pytest

from latchkey.application.context_tokens import mint_context_token, revoke_context_token
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task
from latchkey.domain.credentials import TASKS_WRITE, NewContextToken, Owner, UserId
from latchkey.domain.errors import Unauthenticated
from latchkey.domain.task import NewTask
from latchkey.infrastructure.database.migrations import check, upgrade
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.contract.database.entities.orm_shop import SCHEMA, Base, Booking, Bookings
from tests.contract.database.entities.shop import create_tables
from tests.user_data import ROW_COUNT, UserData


@pytest.fixture
def url(pgbouncer_url: str) -> str:
    return f"{pgbouncer_url}?statement_cache_size=0"


async def statements_left(url: str) -> int:
    """Return the number of prepared statements on PgBouncer's two server connections."""
    clients = [await asyncpg.connect(url.partition("?")[0], statement_cache_size=0) for _ in range(2)]
    for client in clients:
        await client.execute("BEGIN")
    servers = {await client.fetchval("SELECT pg_backend_pid()") for client in clients}
    left = [await client.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") for client in clients]
    for client in clients:
        await client.execute("ROLLBACK")
        await client.close()
    assert len(servers) == 2
    return sum(left)


async def test_users_on_pooled_connections_are_isolated(url: str) -> None:
    """Sixty concurrent users on two connections; no prepared statement is left on them."""
    engine = create_engine(url)
    units = SqlUnitsOfWork(engine)

    async def live(owner: Owner) -> None:
        belongings = UserData()
        await belongings.store(units, owner)
        assert len(await belongings.read_all(units, owner)) == ROW_COUNT

    await asyncio.gather(*(live(Owner(UserId(f"user-{n}"))) for n in range(60)))
    assert await statements_left(url) == 0
    await engine.dispose()


async def test_revoked_token_is_refused_behind_pooler(url: str) -> None:
    engine = create_engine(url)
    app = Dispatcher(SqlUnitsOfWork(engine), lambda _call: None)
    me = Owner(UserId("me"))
    minted = await app.call(me, mint_context_token, NewContextToken([TASKS_WRITE]))
    await asyncio.gather(*(app.call(minted.secret, add_task, NewTask(f"{n}")) for n in range(20)))

    await app.call(me, revoke_context_token, minted.token.id)

    with pytest.raises(Unauthenticated):
        await app.call(minted.secret, add_task, NewTask("Too late"))
    await engine.dispose()


def test_upgrade_through_pooler_succeeds(url: str) -> None:
    upgrade(url)
    check(url)


async def test_orm_leaves_no_prepared_statement_on_pooled_connections(url: str, postgresql_url: str) -> None:
    await create_tables(postgresql_url, Base.metadata)
    engine = create_engine(url)
    units = SqlUnitsOfWork(engine, schema=SCHEMA)

    async def store_and_read(owner: Owner) -> None:
        for comment in ("Blue", "Red", "Green"):
            async with units.open(owner, "write") as uow:
                await uow.repository(Bookings).add(Booking(comment=comment))
                await uow.commit()
        async with units.open(owner, "read") as uow:
            assert len((await uow.repository(Bookings).page()).items) == 3

    await asyncio.gather(*(store_and_read(Owner(UserId(f"user-{n}"))) for n in range(30)))
    assert await statements_left(url) == 0
    await engine.dispose()
    assert await statements_left(url) == 0
    await engine.dispose()
