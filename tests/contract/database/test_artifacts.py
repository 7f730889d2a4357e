"""Contract of the artifact repository and use cases: no version is lost, and a listing loads no content."""

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from latchkey.application.artifacts import add_artifact, get_artifact, list_versions, revise_artifact
from latchkey.application.dispatcher import Dispatcher
from latchkey.domain.artifact import MAX_BYTES, Artifact, ArtifactId, ArtifactRevision, ArtifactWithContent, NewArtifact
from latchkey.domain.credentials import Owner, TokenSecret
from latchkey.domain.errors import NotFound, StaleVersion, TooLarge
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitsOfWork
from tests.builders import NOW, a_context_token, a_conversation, a_task, a_turn, an_artifact
from tests.contract.database.conftest import Replica
from tests.contract.database.pagination import assert_pages, assert_refuses
from tests.contract.database.test_tasks import TEXTS

EVERY = Window(200)
LARGEST = {"one byte each": "a" * MAX_BYTES, "three": "牛" * (MAX_BYTES // 3) + "a", "four": "🥛" * (MAX_BYTES // 4)}


async def add(units: UnitsOfWork, owner: Owner, *artifacts: Artifact) -> None:
    async with units.open(owner, "write") as uow:
        for artifact in artifacts:
            await uow.artifacts.add(artifact, f"# {artifact.title}")
        await uow.commit()


async def numbers(dispatcher: Dispatcher, owner: Owner, id: ArtifactId) -> list[int]:
    return [version.version for version in (await dispatcher.call(owner, list_versions, id, EVERY)).items]


async def versions(dispatcher: Dispatcher, owner: Owner, id: ArtifactId) -> list[ArtifactWithContent]:
    """Return the versions with their contents, newest first."""
    return [await dispatcher.call(owner, get_artifact, id, number) for number in await numbers(dispatcher, owner, id)]


@pytest.mark.parametrize("text", [*TEXTS.values(), ""], ids=[*TEXTS, "nothing"])
async def test_artifact_round_trip_preserves_content(units: UnitsOfWork, me: Owner, text: str) -> None:
    """Byte for byte, with every method that reads it."""
    conversation = a_conversation()
    turn = a_turn(conversation)
    artifact = an_artifact(text or "Empty", conversation_id=conversation.id, turn_id=turn.id)
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.turns.add(turn)
        await uow.artifacts.add(artifact, text)
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert await uow.artifacts.get(artifact.id) == artifact
        assert (await uow.artifacts.page(None, None, EVERY)).items == [artifact]
        assert (await uow.artifacts.list_versions(artifact.id, EVERY)).items == [artifact]
        assert await uow.artifacts.get_content(artifact.id, None) == artifact.with_content(text)
        assert await uow.artifacts.get_content(artifact.id, 1) == artifact.with_content(text)


async def test_artifact_earlier_versions_stay_unchanged(units: UnitsOfWork, me: Owner) -> None:
    """Each version keeps its title, time and content."""
    first = an_artifact("Plan")
    second = replace(first, title="Plan B", version=2, updated_at=NOW + timedelta(seconds=1))
    await add(units, me, first)
    async with units.open(me, "write") as uow:
        await uow.artifacts.add_version(second, "Other")
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert await uow.artifacts.get_content(first.id, 1) == first.with_content("# Plan")
        assert await uow.artifacts.get_content(first.id, 2) == second.with_content("Other")
        assert await uow.artifacts.get_content(first.id, None) == second.with_content("Other")
        assert await uow.artifacts.get(first.id) == second
        assert (await uow.artifacts.page(None, None, EVERY)).items == [second]
        await assert_pages(lambda window: uow.artifacts.list_versions(first.id, window), [second, first])
        for absent in (0, 3, 2**31 - 1):
            with pytest.raises(NotFound, match=r"There is no such artifact\."):
                await uow.artifacts.get_content(first.id, absent)


async def test_artifact_revision_without_title_keeps_title(dispatcher: Dispatcher, me: Owner) -> None:
    made = await dispatcher.call(me, add_artifact, NewArtifact("Plan", "1"))
    kept = await dispatcher.call(me, revise_artifact, made.id, ArtifactRevision("2"))
    changed = await dispatcher.call(me, revise_artifact, made.id, ArtifactRevision("3", "Plan B"))

    assert [one.title for one in (made, kept, changed)] == ["Plan", "Plan", "Plan B"]
    assert await dispatcher.call(me, get_artifact, made.id) == changed
    assert await dispatcher.call(me, get_artifact, made.id, 1) == made


async def test_concurrent_revisions_are_all_stored(replica: Replica, me: Owner) -> None:
    """In two processes: each revision is a version, and the numbers have no gap."""
    dispatchers = [Dispatcher(replica(), lambda _call: None) for _ in range(2)]
    made = await dispatchers[0].call(me, add_artifact, NewArtifact("Plan", "0"))

    revised = await asyncio.gather(
        *(
            dispatchers[n % 2].call(me, revise_artifact, made.id, ArtifactRevision(f"{n}", f"Plan {n}"))
            for n in range(20)
        )
    )

    assert await numbers(dispatchers[0], me, made.id) == list(range(21, 0, -1))
    assert [await dispatchers[1].call(me, get_artifact, made.id, one.version) for one in revised] == revised
    assert {one.content_markdown for one in revised} == {f"{n}" for n in range(20)}


async def test_concurrent_revisions_of_same_version_only_first_succeeds(replica: Replica, me: Owner) -> None:
    dispatchers = [Dispatcher(replica(), lambda _call: None) for _ in range(2)]
    made = await dispatchers[0].call(me, add_artifact, NewArtifact("Plan", "0"))
    outcomes = await asyncio.gather(
        *(
            dispatchers[n % 2].call(me, revise_artifact, made.id, ArtifactRevision(f"{n}"), version=1)
            for n in range(10)
        ),
        return_exceptions=True,
    )
    (won,) = [one for one in outcomes if not isinstance(one, StaleVersion)]

    assert {one.detail for one in outcomes if isinstance(one, StaleVersion)} == {
        "The artifact is at version 2, not 1: read it again."
    }
    assert await versions(dispatchers[0], me, made.id) == [won, made]


async def test_artifact_pagination_newest_activity_first(units: UnitsOfWork, me: Owner) -> None:
    """All artifacts, and those filtered by conversation, type or both."""
    conversation = a_conversation()
    made = [
        an_artifact(
            f"{n}",
            updated_at=NOW - timedelta(microseconds=age),
            conversation_id=conversation.id if n % 2 else None,
            artifact_type="brd" if n % 3 else "generated_file",
        )
        for n, age in enumerate([3, 1, 1, 1, 2, 0, 0, 5, 5])
    ]
    async with units.open(me, "write") as uow:
        await uow.conversations.add(conversation)
        await uow.commit()
    await add(units, me, *made)
    newest_first = sorted(made, key=lambda one: (one.updated_at, one.id), reverse=True)

    async with units.open(me, "read") as uow:
        page = uow.artifacts.page
        there = [one for one in newest_first if one.conversation_id]
        briefs = [one for one in newest_first if one.artifact_type == "brd"]
        await assert_pages(lambda window: page(None, None, window), newest_first)
        await assert_pages(lambda window: page(conversation.id, None, window), there)
        await assert_pages(lambda window: page(None, "brd", window), briefs)
        await assert_pages(lambda window: page(conversation.id, "brd", window), [one for one in there if one in briefs])
        assert (await page(a_conversation().id, None, EVERY)).items == []


async def test_artifact_revision_moves_it_to_front_of_list(
    dispatcher: Dispatcher, units: UnitsOfWork, me: Owner
) -> None:
    old, new = an_artifact("Old"), an_artifact("New")
    await add(units, me, old, new)
    await dispatcher.call(me, revise_artifact, old.id, ArtifactRevision("Again"))

    async with units.open(me, "read") as uow:
        assert [one.title for one in (await uow.artifacts.page(None, None, EVERY)).items] == ["Old", "New"]


async def test_artifact_cursor_of_another_listing_is_refused(
    dispatcher: Dispatcher, units: UnitsOfWork, me: Owner
) -> None:
    """Including a cursor of the versions for the artifacts, and the reverse."""
    made = [await dispatcher.call(me, add_artifact, NewArtifact("Plan", "")) for _ in range(2)]
    await dispatcher.call(me, revise_artifact, made[0].id, ArtifactRevision("Again"))
    async with units.open(me, "write") as uow:
        for _ in range(2):
            await uow.tasks.add(a_task())
            await uow.conversations.add(a_conversation())
        foreign = [
            (await uow.conversations.page(Window(1))).next_cursor,
            (await uow.tasks.page(None, Window(1))).next_cursor,
        ]
        of_artifacts = (await uow.artifacts.page(None, None, Window(1))).next_cursor
        of_versions = (await uow.artifacts.list_versions(made[0].id, Window(1))).next_cursor

        await assert_refuses(lambda window: uow.artifacts.page(None, None, window), *foreign, of_versions)
        await assert_refuses(lambda window: uow.artifacts.list_versions(made[0].id, window), *foreign, of_artifacts)


async def test_conversation_token_isolation_of_artifacts(units: UnitsOfWork, me: Owner) -> None:
    here, there = a_conversation(), a_conversation()
    inside, elsewhere = an_artifact(conversation_id=here.id), an_artifact(conversation_id=there.id)
    nowhere = an_artifact()
    secret = TokenSecret.mint(me.user_id)
    async with units.open(me, "write") as uow:
        await uow.conversations.add(here)
        await uow.conversations.add(there)
        await uow.context_tokens.add(a_context_token(conversation_id=here.id), secret)
        await uow.commit()
    await add(units, me, inside, elsewhere, nowhere)

    async with units.open(secret, "write") as uow:
        assert (await uow.artifacts.page(None, None, EVERY)).items == [inside]
        assert (await uow.artifacts.page(here.id, "generated_file", EVERY)).items == [inside]
        assert await uow.artifacts.get(inside.id) == inside
        await uow.artifacts.add_version(replace(inside, version=2), "Changed")
        with pytest.raises(NotFound, match="conversation"):
            await uow.artifacts.page(there.id, None, EVERY)
        for hidden in (elsewhere, nowhere):
            for attempt in (
                uow.artifacts.get(hidden.id),
                uow.artifacts.get(hidden.id, for_update=True),
                uow.artifacts.get_content(hidden.id, None),
                uow.artifacts.get_content(hidden.id, 1),
                uow.artifacts.list_versions(hidden.id, EVERY),
                uow.artifacts.add_version(replace(hidden, version=2), "Mine now"),
                uow.artifacts.delete(hidden.id, NOW),
                uow.artifacts.add(an_artifact(conversation_id=hidden.conversation_id), "Mine now"),
            ):
                with pytest.raises(NotFound, match=r"There is no such artifact\."):
                    await attempt
        await uow.commit()

    async with units.open(me, "read") as uow:
        assert (await uow.artifacts.get_content(inside.id, None)).content_markdown == "Changed"
        assert len((await uow.artifacts.page(None, None, EVERY)).items) == 3
        assert await uow.artifacts.get(elsewhere.id) == elsewhere
        assert await uow.artifacts.get(nowhere.id) == nowhere


@pytest.mark.parametrize("content", LARGEST.values(), ids=LARGEST)
async def test_artifact_larger_than_one_mebibyte_is_too_large(dispatcher: Dispatcher, me: Owner, content: str) -> None:
    """The limit counts bytes, not characters; the failure names it."""
    made = await dispatcher.call(me, add_artifact, NewArtifact("Largest", content))
    with pytest.raises(TooLarge, match="1048577 bytes in UTF-8: the limit is 1048576 bytes"):
        await dispatcher.call(me, add_artifact, NewArtifact("Too large", content + "a"))
    with pytest.raises(TooLarge, match="1048576"):
        await dispatcher.call(me, revise_artifact, made.id, ArtifactRevision(content + "a"))

    assert await versions(dispatcher, me, made.id) == [made]
    assert (await dispatcher.call(me, get_artifact, made.id)).content_markdown == content


async def test_deleted_artifact_is_gone_with_all_versions(
    dispatcher: Dispatcher, units: UnitsOfWork, me: Owner
) -> None:
    artifact = an_artifact()
    await add(units, me, artifact)
    await dispatcher.call(me, revise_artifact, artifact.id, ArtifactRevision("Again"))
    async with units.open(me, "write") as uow:
        await uow.artifacts.delete(artifact.id, uow.now)
        await uow.commit()

    async with units.open(me, "write") as uow:
        assert (await uow.artifacts.page(None, None, EVERY)).items == []
        for again in (
            uow.artifacts.get(artifact.id),
            uow.artifacts.get_content(artifact.id, 1),
            uow.artifacts.list_versions(artifact.id, EVERY),
            uow.artifacts.add_version(artifact, ""),
            uow.artifacts.delete(artifact.id, uow.now),
        ):
            with pytest.raises(NotFound, match=r"There is no such artifact\."):
                await again
        assert not await uow.deletions.remove_part(100)
        await uow.artifacts.add(artifact, "Under the same id")
        assert (await uow.artifacts.list_versions(artifact.id, EVERY)).items == [artifact]
