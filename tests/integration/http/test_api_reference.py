"""`GET /docs`: the API reference as one page."""

import re
from base64 import b64encode
from copy import deepcopy
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest

from latchkey.interfaces.http.reference import render
from tests.support.operations import OPERATIONS
from tests.support.published_schema import DOCUMENT
from tests.support.service import Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

EMPTY = {"meta", "link", "br", "hr", "img"}


class Page(HTMLParser):
    """The parts of a page. Raises `AssertionError` if its elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def values(self, attribute: str) -> list[str]:
        """The values of an attribute, in order."""
        return [value for _, attributes in self.elements if (value := attributes.get(attribute)) is not None]


async def test_reference_is_one_page_with_every_operation_and_schema(service: Service) -> None:
    response = await service.client.get("/docs")
    schema = (await service.client.get("/schema/openapi.json")).json()
    page = Page(response.text)
    ids = page.values("id")
    links = {link.removeprefix("#") for link in page.values("href") if link.startswith("#")}

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert len(ids) == len(set(ids))
    assert set(OPERATIONS) | set(schema["components"]["schemas"]) <= set(ids)
    assert links - set(ids) == set()


async def test_reference_needs_nothing_from_elsewhere(service: Service) -> None:
    """It has no script and one style, whose digest is in the policy; its only address is that of the schema."""
    response = await service.client.get("/docs")
    page = Page(response.text)
    style = re.findall("<style>(.*?)</style>", response.text, re.DOTALL)
    (directive,) = (part for part in response.headers["content-security-policy"].split("; ") if "style-src" in part)

    assert {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "form", "object"} == set()
    assert [b64encode(sha256(text.encode()).digest()).decode() for text in style] == [
        directive[len("style-src 'sha256-") : -1]
    ]
    assert "url(" not in style[0]
    assert {link for link in page.values("href") if not link.startswith("#")} == {"/schema/openapi.json"}
    assert page.values("src") == page.values("style") == []
    assert [name for _, attributes in page.elements for name in attributes if name.startswith("on")] == []


async def test_reference_is_not_sent_again_with_its_etag(service: Service) -> None:
    first = await service.client.get("/docs")
    again = await service.client.get("/docs", headers={"if-none-match": first.headers["etag"]})

    assert (first.headers["cache-control"], again.status_code, again.content) == ("no-cache", 304, b"")
    assert again.headers["etag"] == first.headers["etag"]


@pytest.mark.parametrize("path", ["/docs", "/schema/openapi.json"])
async def test_published_document_is_compressed_if_the_client_accepts_that(service: Service, path: str) -> None:
    compressed = await service.client.get(path, headers={"accept-encoding": "gzip"})
    plain = await service.client.get(path, headers={"accept-encoding": "identity"})
    refused = await service.client.get(path, headers={"accept-encoding": "gzip;q=0"})

    assert compressed.content == plain.content == refused.content
    assert [each.headers.get("content-encoding") for each in (compressed, plain, refused)] == ["gzip", None, None]
    assert int(compressed.headers["content-length"]) * 5 < len(plain.content)
    assert compressed.headers["etag"] != plain.headers["etag"]
    assert compressed.headers["vary"] == "Accept-Encoding"


async def test_reference_shows_a_request_and_a_response_of_each_operation(service: Service) -> None:
    text = (await service.client.get("/docs")).text
    sections = dict(re.findall(r'<section aria-labelledby="(\w+)">(.*?)</section>', text, re.DOTALL))

    for name, operation in OPERATIONS.items():
        assert "<h4>Request</h4>" in sections[name]
        assert re.search(rf"{operation.method} /api/me/[^ ]+ HTTP/1\.1", sections[name])
        assert ("HTTP/1.1 20" in sections[name]) or ("<strong>204</strong>" in sections[name])
    assert "event: turn.completed" in sections["follow_turn"]


async def test_texts_of_an_app_are_escaped() -> None:
    document: dict[str, Any] = deepcopy(DOCUMENT)
    chat = document["paths"]["/api/{user_id}/chat"]["post"]
    hostile = "</section><script>alert(1)</script> `<img src=x>` &amp;"
    chat["summary"] = chat["description"] = document["components"]["schemas"]["Task"]["description"] = hostile
    chat["responses"]["200"]["content"]["application/json"]["example"] = {hostile: hostile}

    page = Page(render(document))

    assert {"script", "img"} & {tag for tag, _ in page.elements} == set()
