"""The OpenAPI document and the API reference of operations that an app may have, with unusual types."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from jsonschema import Draft202012Validator
from litestar import Litestar, get, post
from litestar.params import FromPath
from msgspec import Meta, Struct

from latchkey.domain.credentials import RegisteredGrants
from latchkey.interfaces.http import openapi
from latchkey.interfaces.http.reference import render
from latchkey.interfaces.http.requests import JsonBody


class Comment(Struct):
    """A type that contains itself."""

    text: Annotated[str, Meta(examples=["Nice."])]
    replies: list["Comment"]
    parent: "Comment | None"


class Circle(Struct, tag=True):
    radius: float


class Square(Struct, tag=True):
    side: float


class Drawing(Struct):
    shape: Circle | Square
    position: tuple[int, int]
    layers: dict[str, list[Any]]
    tags: set[str]
    kind: Literal["draft", "final"]
    made_at: Annotated[datetime, Meta(tz=True)]
    rest: Any = None


@get("/comments/{comment_id:uuid}/{section:str}")
async def get_comment(comment_id: FromPath[UUID], section: FromPath[str]) -> Comment:
    raise NotImplementedError


@post("/drawings", example={"kind": "final"})
async def add_drawing(data: JsonBody[Drawing]) -> Drawing:
    raise NotImplementedError


def published() -> dict[str, Any]:
    app = Litestar([get_comment, add_drawing], openapi_config=None)
    document: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(openapi.document(app, RegisteredGrants(), ["own"]))
    )
    return document


def test_examples_of_unusual_types_are_valid() -> None:
    document = published()
    body = document["paths"]["/drawings"]["post"]["requestBody"]["content"]["application/json"]
    comment = document["paths"]["/comments/{comment_id}/{section}"]["get"]["responses"]["200"]["content"]

    for content in (body, *comment.values()):
        schema = {**content["schema"], "components": document["components"]}
        Draft202012Validator(schema).validate(content["example"])
    assert body["example"]["position"] == [1, 1]
    assert body["example"]["shape"]["type"] == "Circle"


def test_type_of_a_request_and_a_response_requires_only_what_a_request_must_have() -> None:
    schema = published()["components"]["schemas"]["Drawing"]

    assert set(schema["properties"]) - set(schema["required"]) == {"rest"}


def test_example_of_an_operation_overrides_fields_of_its_response() -> None:
    drawing = published()["paths"]["/drawings"]["post"]

    assert drawing["responses"]["201"]["content"]["application/json"]["example"]["kind"] == "final"
    assert drawing["requestBody"]["content"]["application/json"]["example"]["kind"] == "draft"


def test_reference_shows_operations_without_tags_and_docstrings() -> None:
    page = render(published())

    assert '<h2 id="section-other">Other</h2>' in page
    assert "POST /drawings HTTP/1.1" in page
    assert "GET /comments/01a22770-5b1a-7c4e-9a3f-0d6c7e9b2f10/text HTTP/1.1" in page
    assert "array of integer, integer" in page
