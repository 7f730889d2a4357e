"""Stored context tokens: the database has what is needed to recognise a token, and not what is needed to use one."""

import os
import subprocess
import sys
from pathlib import Path

from latchkey.application.context_tokens import MintedToken, mint_context_token, revoke_context_token
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.credentials import TASKS_WRITE, NewContextToken, Owner, TokenSecret, UserId
from latchkey.infrastructure.database.schema import metadata
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.integration.database.conftest import run_sql_async
from tests.turns import started_turn

ME = Owner(UserId("me"))

OTHER_PROCESS = """
import asyncio, os, sys
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.tasks import add_task
from latchkey.domain.errors import Unauthenticated
from latchkey.domain.credentials import TokenSecret
from latchkey.domain.task import NewTask
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork

async def main():
    engine = create_engine(sys.argv[1])
    app = Dispatcher(SqlUnitsOfWork(engine), lambda call: None)
    try:
        print((await app.call(TokenSecret.parse(os.environ["TOKEN"]), add_task, NewTask("From elsewhere"))).title)
    except Unauthenticated as refused:
        print(refused.code)
    await engine.dispose()

asyncio.run(main())
"""


def use_elsewhere(url: str, secret: TokenSecret) -> str:
    """Return the output of another process that uses the token."""
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TOKEN": secret.text},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


async def test_context_token_is_valid_in_other_process_until_revoked(database_url: str) -> None:
    """Nothing about the token is held in memory: the other process has never seen it or its user."""
    engine = create_engine(database_url)
    app = Dispatcher(SqlUnitsOfWork(engine), lambda _call: None)
    minted: MintedToken = await app.call(ME, mint_context_token, NewContextToken([TASKS_WRITE]))
    turn = await started_turn(app, ME)

    assert use_elsewhere(database_url, minted.secret) == "From elsewhere"
    assert use_elsewhere(database_url, turn.secret) == "From elsewhere"
    assert use_elsewhere(database_url, TokenSecret.mint(ME.user_id)) == "unauthenticated"
    await app.call(ME, revoke_context_token, minted.token.id)
    assert use_elsewhere(database_url, minted.secret) == "unauthenticated"
    await engine.dispose()


async def everything_stored(url: str) -> str:
    """Return the bytes of the SQLite files, or every row of every PostgreSQL table."""
    if url.startswith("sqlite"):
        path = Path(url.partition(":///")[2])
        return "".join(part.read_bytes().decode("latin-1") for part in path.parent.glob(f"{path.name}*"))
    rows = [
        row
        for table in metadata.sorted_tables
        for row in await run_sql_async(url, f"SELECT t::text FROM {table.name} AS t")
    ]
    return "\n".join(row[0] for row in rows)


async def test_context_token_is_stored_only_as_digest(database_url: str) -> None:
    """Neither the secret nor a part of it is stored. The digest is, which shows that the search works."""
    engine = create_engine(database_url)
    app = Dispatcher(SqlUnitsOfWork(engine), lambda _call: None)
    minted = await app.call(ME, mint_context_token, NewContextToken([TASKS_WRITE]))
    turn = await started_turn(app, ME)
    stored = await everything_stored(database_url)
    await engine.dispose()

    for secret in (minted.secret, turn.secret):
        assert secret.digest in stored
        assert not any(secret.text[start : start + 10] in stored for start in range(3, 36))
