"""Artifacts over HTTP: versions, and conditional writes by ETag."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.integration.http.test_unicode_text import TEXTS
from tests.support.service import ApiUser

pytestmark = pytest.mark.asyncio(loop_scope="session")

MEBIBYTE = 1024 * 1024
PLAN = {"title": "Plan", "content_markdown": "# Plan"}


def without_content(artifact: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in artifact.items() if name != "content_markdown"}


async def test_artifact_created_is_readable_at_its_location(ada: ApiUser) -> None:
    created = await ada.post("artifacts", json=PLAN)
    artifact = created.json()
    read = await ada.client.get(created.headers["location"], headers={"authorization": f"Bearer {ada.token}"})

    assert (created.status_code, read.status_code) == (201, 200)
    assert read.content == created.content
    assert read.headers["etag"] == created.headers["etag"] == '"1"'
    assert UUID(artifact.pop("id")).version == 7
    assert artifact.pop("created_at") == artifact.pop("updated_at")
    assert artifact == {
        **PLAN,
        "conversation_id": None,
        "turn_id": None,
        "artifact_type": "generated_file",
        "version": 1,
    }


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_artifact_text_in_any_script_is_returned_unchanged(ada: ApiUser, text: str) -> None:
    created = await ada.create("artifacts", title=text, content_markdown=text * 20)
    content = await ada.get(f"artifacts/{created['id']}/content")

    assert (created["title"], created["content_markdown"]) == (text, text * 20)
    assert (await ada.get(f"artifacts/{created['id']}")).json() == created
    assert await ada.list_items("artifacts") == [without_content(created)]
    assert content.content == (text * 20).encode()


async def test_artifact_listing_filters_by_conversation_and_type_without_content(ada: ApiUser) -> None:
    """Newest activity first."""
    where = (await ada.create("conversations"))["id"]
    brief = await ada.create("artifacts", **PLAN, artifact_type="brd", conversation_id=where)
    other = await ada.create("artifacts", **PLAN, artifact_type="brd")
    file = await ada.create("artifacts", **PLAN, conversation_id=where)
    brief, other, file = map(without_content, (brief, other, file))

    assert await ada.list_items("artifacts") == [file, other, brief]
    assert await ada.list_items("artifacts", conversation_id=where) == [file, brief]
    assert await ada.list_items("artifacts", artifact_type="brd") == [other, brief]
    assert await ada.list_items("artifacts", conversation_id=where, artifact_type="brd") == [brief]
    assert await ada.list_items("artifacts", conversation_id=str(uuid4())) == []
    first = (await ada.get("artifacts", params={"limit": 2})).json()
    assert first["items"] + await ada.list_items("artifacts", cursor=first["next_cursor"]) == [file, other, brief]


@pytest.mark.parametrize(
    ("params", "path"),
    [({"artifact_type": "hologram"}, "artifact_type"), ({"conversation_id": "1"}, "conversation_id")],
)
async def test_artifact_listing_with_invalid_filter_is_invalid(ada: ApiUser, params: dict[str, str], path: str) -> None:
    refused = await ada.get("artifacts", params=params)

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert [fault["path"] for fault in refused.json()["errors"]] == [path]


async def test_artifact_listing_by_conversation_of_another_user_is_like_absent_conversation(
    ada: ApiUser, bob: ApiUser
) -> None:
    theirs = (await bob.create("conversations"))["id"]
    await bob.create("artifacts", **PLAN, conversation_id=theirs)
    foreign, absent = [await ada.get("artifacts", params={"conversation_id": id}) for id in (theirs, str(uuid4()))]

    assert (foreign.status_code, foreign.content) == (absent.status_code, absent.content)


@pytest.mark.parametrize("headers", [{}, {"if-match": '"1"'}, {"if-match": "*"}], ids=["none", "the tag", "any"])
async def test_artifact_revision_creates_a_version(ada: ApiUser, headers: dict[str, str]) -> None:
    """An omitted title is unchanged, and the previous version stays readable."""
    created = await ada.create("artifacts", **PLAN)
    path = f"artifacts/{created['id']}"
    put = await ada.put(path, json={"content_markdown": "Other"}, headers=headers)
    renamed = await ada.put(path, json={"content_markdown": "", "title": "Plan B"})
    revised = put.json()

    assert (put.status_code, put.headers["etag"]) == (200, '"2"')
    assert revised == {**created, "version": 2, "content_markdown": "Other", "updated_at": revised["updated_at"]}
    assert revised["updated_at"] > created["updated_at"]
    assert (renamed.json()["title"], renamed.json()["content_markdown"]) == ("Plan B", "")
    versions = [without_content(version) for version in (renamed.json(), revised, created)]
    assert await ada.list_items(f"{path}/versions") == versions
    first = (await ada.get(f"{path}/versions", params={"limit": 1})).json()
    assert first["items"] + await ada.list_items(f"{path}/versions", cursor=first["next_cursor"]) == versions
    assert [(await ada.get(f"{path}/content", params={"version": n})).text for n in (1, 2, 3)] == [
        "# Plan",
        "Other",
        "",
    ]


@pytest.mark.parametrize("tag", ['"2"', '"0"', '"one"', 'W/"1"', '""'])
async def test_artifact_write_with_stale_etag_is_a_conflict(ada: ApiUser, tag: str) -> None:
    created = await ada.create("artifacts", **PLAN)
    path, headers = f"artifacts/{created['id']}", {"if-match": tag}
    refused = [
        await ada.put(path, json={"content_markdown": "Other"}, headers=headers),
        await ada.delete(path, headers=headers),
    ]

    assert [(response.status_code, response.json()["code"]) for response in refused] == [(412, "stale-version")] * 2
    assert (await ada.get(path)).json() == created
    assert len(await ada.list_items(f"{path}/versions")) == 1


async def test_artifact_concurrent_writes_with_the_same_etag_accept_one(ada: ApiUser) -> None:
    path = f"artifacts/{(await ada.create('artifacts', **PLAN))['id']}"
    answers = await asyncio.gather(
        *(ada.put(path, json={"content_markdown": text}, headers={"if-match": '"1"'}) for text in ("one", "two"))
    )
    won, lost = sorted(answers, key=lambda response: response.status_code)

    assert (won.status_code, lost.status_code) == (200, 412)
    assert (await ada.get(path)).content == won.content


async def test_artifact_delete_removes_all_versions(ada: ApiUser) -> None:
    path = f"artifacts/{(await ada.create('artifacts', **PLAN))['id']}"
    await ada.put(path, json={"content_markdown": "Other"})
    deleted = await ada.delete(path, headers={"if-match": '"2"'})
    gone = [path, f"{path}/versions", f"{path}/content", f"{path}/content?version=1"]

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert [(await ada.get(path)).status_code for path in gone] == [404] * 4
    assert await ada.list_items("artifacts") == []


async def test_conversation_delete_removes_its_artifacts(ada: ApiUser) -> None:
    where = (await ada.create("conversations"))["id"]
    inside = await ada.create("artifacts", **PLAN, conversation_id=where)
    outside = await ada.create("artifacts", **PLAN)
    await ada.delete(f"conversations/{where}")

    assert await ada.list_items("artifacts") == [without_content(outside)]
    assert (await ada.get(f"artifacts/{inside['id']}/content?version=1")).status_code == 404


@pytest.mark.parametrize("letter", ["a", "é", "牛", "🥛"], ids=["1 byte", "2 bytes", "3 bytes", "4 bytes"])
async def test_artifact_content_limit_is_one_mebibyte_of_utf_8(ada: ApiUser, letter: str) -> None:
    """Independent of the number of characters and of JSON escapes. The error names the limit."""
    count, rest = divmod(MEBIBYTE, len(letter.encode()))
    largest = letter * count + "a" * rest
    created = await ada.create("artifacts", title="Largest", content_markdown=largest)
    path = f"artifacts/{created['id']}"
    refused = [
        await ada.post("artifacts", json={"title": "Too large", "content_markdown": largest + "a"}),
        await ada.put(path, json={"content_markdown": largest + "a"}),
    ]

    assert [(response.status_code, response.json()["code"]) for response in refused] == [(413, "too-large")] * 2
    assert all(f"{MEBIBYTE}" in response.json()["detail"] for response in refused)
    assert (await ada.get(f"{path}/content")).content == largest.encode()
    assert await ada.list_items("artifacts") == [without_content(created)]


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"title": " "}, "$.title"),
        ({"title": "a" * 201}, "$.title"),
        ({"content_markdown": "a\x00b"}, "$.content_markdown"),
        ({"content_markdown": None}, "$.content_markdown"),
        ({"artifact_type": "hologram"}, "$.artifact_type"),
        ({"conversation_id": "1"}, "$.conversation_id"),
        ({"version": 7}, "$"),
    ],
)
async def test_artifact_invalid_body_names_the_path_of_the_error(
    ada: ApiUser, wrong: dict[str, Any], path: str
) -> None:
    refused = await ada.post("artifacts", json={**PLAN, **wrong})

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")
    assert [fault["path"] for fault in refused.json()["errors"]] == [path]
    assert await ada.list_items("artifacts") == []
