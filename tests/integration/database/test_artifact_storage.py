"""Artifacts in a database that a newer release has written, or without the content column."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Raw

from latchkey.application.artifacts import (
    add_artifact,
    find_artifacts,
    get_artifact,
    list_artifacts,
    list_versions,
    revise_artifact,
)
from latchkey.application.dispatcher import Dispatcher
from latchkey.application.turns.read import get_turn
from latchkey.domain.artifact import ArtifactReference, ArtifactRevision, NewArtifact
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.page import Window
from latchkey.infrastructure.database.sql.engine import create_engine
from latchkey.infrastructure.database.unit_of_work import SqlUnitsOfWork
from tests.builders import a_tool_call
from tests.integration.database.conftest import run_sql_async
from tests.turns import started_turn

ME = Owner(UserId("me"))
HIDE_CONTENT = "ALTER TABLE artifact_versions RENAME COLUMN content TO hidden"
FROM_A_NEWER_RELEASE = "UPDATE artifacts SET artifact_type = 'hologram'"


@pytest.fixture
async def units(database_url: str) -> AsyncIterator[SqlUnitsOfWork]:
    engine = create_engine(database_url)
    yield SqlUnitsOfWork(engine)
    await engine.dispose()


@pytest.fixture
def app(units: SqlUnitsOfWork) -> Dispatcher:
    return Dispatcher(units, lambda _call: None)


async def alter(url: str, statement: str) -> None:
    """Change the database without the service."""
    if not url.startswith("sqlite"):
        await run_sql_async(url, statement)
        return
    with closing(sqlite3.connect(Path(url.partition(":///")[2]))) as file, file:
        file.execute(statement)


async def test_artifact_listings_do_not_read_content(app: Dispatcher, database_url: str) -> None:
    """Listings work without the content column; only reading a content fails."""
    made = await app.call(ME, add_artifact, NewArtifact("Plan", "1"))
    revised = await app.call(ME, revise_artifact, made.id, ArtifactRevision("2"))
    await alter(database_url, HIDE_CONTENT)

    for listed in (
        await app.call(ME, list_artifacts),
        await app.call(ME, find_artifacts, None, "generated_file", Window(1)),
    ):
        assert [(one.id, one.version) for one in listed.items] == [(made.id, revised.version)]
    assert [one.version for one in (await app.call(ME, list_versions, made.id, Window())).items] == [2, 1]
    with pytest.raises(Exception, match="content"):
        await app.call(ME, get_artifact, made.id)


async def test_artifact_type_of_newer_release_is_read(app: Dispatcher, database_url: str) -> None:
    """A write of this release keeps it."""
    made = await app.call(ME, add_artifact, NewArtifact("Plan", "1"))
    await alter(database_url, FROM_A_NEWER_RELEASE)
    revised = await app.call(ME, revise_artifact, made.id, ArtifactRevision("2"))

    assert revised.artifact_type == "hologram"
    assert await app.call(ME, get_artifact, made.id) == revised
    assert (await app.call(ME, get_artifact, made.id, 1)).content_markdown == "1"
    assert [one.artifact_type for one in (await app.call(ME, list_artifacts)).items] == ["hologram"]
    versions = (await app.call(ME, list_versions, made.id, Window())).items
    assert [one.artifact_type for one in versions] == ["hologram", "hologram"]
    assert (await app.call(ME, find_artifacts, None, "generated_file", Window())).items == []


async def test_turn_of_newer_release_lists_its_artifacts(app: Dispatcher, units: SqlUnitsOfWork) -> None:
    """Also if the tool's result has fields unknown to this release."""
    turn = (await started_turn(app, ME)).turn
    made = await app.call(ME, add_artifact, NewArtifact("Plan", ""))
    said = b'{"id":"%s","artifact_type":"hologram","title":"Plan","version":1,"depth":3}' % str(made.id).encode()
    async with units.open(ME, "write") as uow:
        await uow.tool_calls.add(a_tool_call("save_artifact", result=Raw(said)), turn.id)
        await uow.commit()

    published = await app.call(ME, get_turn, turn.id)
    assert published.artifacts == [ArtifactReference(made.id, "hologram", "Plan", 1)]
