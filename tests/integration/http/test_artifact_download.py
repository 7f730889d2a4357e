"""Download of an artifact: content, media type, and a safe file name (RFC 6266)."""

import re
from email.message import Message

import httpx2
import pytest

from tests.support.service import ApiUser

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAMES: dict[str, tuple[str, str, str]] = {
    "plain": ("Plan", "Plan.md", "Plan.md"),
    "spaces": ("  My  plan\t\n", "My-plan.md", "My plan.md"),
    "a file name already": ("plan.md", "plan.md", "plan.md"),
    "Latin": ("Résumé für Zoë", "Resume-fur-Zoe.md", "Résumé für Zoë.md"),
    "Japanese": ("牛乳を買う", "artifact.md", "牛乳を買う.md"),
    "Arabic": ("قائمة 2026", "2026.md", "قائمة 2026.md"),
    "emoji": ("Milk 🥛", "Milk.md", "Milk 🥛.md"),
    "quotes": ('The "best" plan', "The-best-plan.md", "The best plan.md"),
    "syntax of the header": (
        "a\"; filename=evil.exe; x='b",
        "a-filename-evil.exe-x-b.md",
        "a ; filename=evil.exe; x='b.md",
    ),
    "percent": ("100%41", "100-41.md", "100%41.md"),
    "a path to a parent folder": ("../../etc/passwd", "etc-passwd.md", "etc passwd.md"),
    "backslashes": ("C:\\Windows\\system.ini", "C-Windows-system.ini.md", "C Windows system.ini.md"),
    "full-width slashes": ("a\uff0fb", "a-b.md", "a\uff0fb.md"),
    "a header injection": ("Plan\r\nSet-Cookie: a=b", "Plan-Set-Cookie-a-b.md", "Plan Set-Cookie a=b.md"),
    "controls": ("a\x01\x7f\x80\u2028b", "a-b.md", "a b.md"),
    "a right-to-left override": ("plan\u202edm.exe", "plan-dm.exe.md", "plan dm.exe.md"),
    "invisible characters": ("a\u200b\ufeff\u2066b", "a-b.md", "a b.md"),
    "only dots": ("...", "artifact.md", "artifact.md"),
    "hidden": (".profile", "profile.md", "profile.md"),
    "only what is forbidden": ('/\\:*?"<>|', "artifact.md", "artifact.md"),
    "beyond Unicode's letters": ("a\ufffe\U0010ffffb", "a-b.md", "a\ufffe\U0010ffffb.md"),
}


# Stricter than RFC 6266 and RFC 8187: no escapes in the quoted name, and percent-encoding of all reserved bytes.
HEADER = re.compile(
    r"""attachment; (filename="[ !#-\[\]-~]+"); (filename\*=UTF-8''(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})+)"""
)


def names(response: httpx2.Response) -> tuple[str, str]:
    """The `filename` and `filename*` parameters, read by an independent parser."""
    match = HEADER.fullmatch(response.headers["content-disposition"])
    assert match is not None
    return parsed(match[1]), parsed(match[2])


def parsed(parameter: str) -> str:
    header = Message()
    header["content-disposition"] = f"attachment; {parameter}"
    return header.get_filename("")


async def downloaded(ada: ApiUser, title: str) -> httpx2.Response:
    made = await ada.create("artifacts", title=title, content_markdown="# Milk 🥛\r\n")
    return await ada.get(f"artifacts/{made['id']}/content")


async def test_download_returns_the_exact_bytes_as_attachment(ada: ApiUser) -> None:
    """As Markdown in UTF-8, as an attachment: a browser must not render it."""
    response = await downloaded(ada, "Plan")

    assert response.status_code == 200
    assert response.content == "# Milk 🥛\r\n".encode()
    assert response.headers.get_list("content-type") == ["text/markdown; charset=utf-8"]
    assert response.headers["content-length"] == str(len(response.content))
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["etag"] == '"1"'


@pytest.mark.parametrize(("title", "plain", "name"), NAMES.values(), ids=NAMES)
async def test_download_file_name_is_derived_from_the_title(ada: ApiUser, title: str, plain: str, name: str) -> None:
    """In Unicode, and in ASCII for old clients."""
    response = await downloaded(ada, title)

    assert names(response) == (plain, name)
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("letter", ["a", "é", "牛", "🥛"], ids=["1 byte", "2 bytes", "3 bytes", "4 bytes"])
async def test_download_file_name_has_at_most_255_bytes(ada: ApiUser, letter: str) -> None:
    """File systems count bytes; no character is cut."""
    _, name = names(await downloaded(ada, letter * 200))

    assert name == letter * (200 // len(letter.encode())) + ".md"


async def test_download_of_an_earlier_version_has_its_title_of_that_time(ada: ApiUser) -> None:
    made = await ada.create("artifacts", title="Plan", content_markdown="1")
    path = f"artifacts/{made['id']}"
    await ada.put(path, json={"title": "Plan B", "content_markdown": "2"})
    newest, earlier = await ada.get(f"{path}/content"), await ada.get(f"{path}/content", params={"version": 1})

    assert [(response.text, response.headers["etag"], names(response)[1]) for response in (newest, earlier)] == [
        ("2", '"2"', "Plan B.md"),
        ("1", '"1"', "Plan.md"),
    ]


@pytest.mark.parametrize(("version", "status"), [("2", 404), ("0", 422), ("-1", 422), ("x", 422), ("9" * 20, 422)])
async def test_download_of_an_invalid_version_is_refused(ada: ApiUser, version: str, status: int) -> None:
    made = await ada.create("artifacts", title="Plan", content_markdown="1")
    refused = await ada.get(f"artifacts/{made['id']}/content", params={"version": version})

    assert refused.status_code == status
    assert refused.headers["content-type"] == "application/problem+json"
