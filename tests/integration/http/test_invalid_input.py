"""Invalid input to every operation: it is refused with an explanation, stores nothing and does not harm the service.

The input is made from the published schema, so a new operation is covered without an edit.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest

from latchkey.infrastructure.database.schema import metadata
from tests.support.operations import OPERATIONS, Operation, create_one_of_each, each_operation
from tests.support.published_schema import DOCUMENT
from tests.support.schema_examples import INVALID_IDS, example, invalid_bodies, invalid_values
from tests.support.service import ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "BREW"]
COUNTED = {"allowances"}
"""Tables that a refused request may change: the count of requests."""


async def rows_of(url: str, user: ApiUser) -> list[str]:
    """All rows of the user, and the number of rows of each table."""
    tables = [table.name for table in metadata.sorted_tables if table.name not in COUNTED]
    whose = f"WHERE user_id = '{user.user_id}'"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(Path(url.partition(":///")[2]))) as file:
            theirs = [f"{name} {row}" for name in tables for row in file.execute(f"SELECT * FROM {name} {whose}")]
            counts = [f"{name} {file.execute(f'SELECT count(*) FROM {name}').fetchone()}" for name in tables]
            return sorted(theirs) + counts
    connection = await asyncpg.connect(url)
    rows = {name: await connection.fetch(f"SELECT t::text FROM {name} AS t {whose}") for name in tables}
    counts = [f"{name} {await connection.fetchval(f'SELECT count(*) FROM {name}')}" for name in tables]
    await connection.close()
    return sorted(f"{name} {row[0]}" for name in tables for row in rows[name]) + counts


async def send(user: ApiUser, operation: Operation, path: str, **given: Any) -> httpx2.Response:
    """Send the operation with valid values for all that `given` does not replace."""
    headers = [*({**operation.headers, **given.pop("replaced", {})}).items(), *given.pop("added", [])]
    authorization = ("authorization", f"Bearer {user.token}")
    content = given.pop("content", operation.content)
    url = user.path(path)
    return await user.client.request(operation.method, url, headers=[authorization, *headers], content=content, **given)


def has_explanation(refused: httpx2.Response) -> bool:
    """Whether the problem has a detail, and each of its errors a path and a message."""
    problem = refused.json()
    return bool(problem["detail"]) and all(fault["path"] and fault["message"] for fault in problem.get("errors", []))


@each_operation(lambda operation: operation.body_schema)
async def test_invalid_body_is_refused_and_stores_nothing(
    service: Service, shared_database_url: str, ada: ApiUser, operation: Operation
) -> None:
    path = operation.path_with(await create_one_of_each(ada))
    before = await rows_of(shared_database_url, ada)
    answers = {
        name: await send(ada, operation, path, content=content)
        for name, content in invalid_bodies(operation.body_schema or {}, DOCUMENT)
    }

    assert len(answers) > 50
    assert {
        name: response.status_code for name, response in answers.items() if response.status_code not in {400, 413, 422}
    } == {}
    assert [name for name, response in answers.items() if not has_explanation(response)] == []
    assert await rows_of(shared_database_url, ada) == before
    assert (await service.client.get("/health/ready")).status_code == 200


@each_operation(lambda operation: operation.body_schema)
async def test_content_type_that_is_wrong_or_duplicate_is_refused(
    shared_database_url: str, ada: ApiUser, operation: Operation
) -> None:
    path = operation.path_with(await create_one_of_each(ada))
    before = await rows_of(shared_database_url, ada)
    kinds = [
        *("", "text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data", "*/*"),
        *("application/json; charset=utf-16", "application/json; charset=latin-1", "application/json, text/plain"),
        *("application/msgpack", "text/json", "application/json+x", "a" * 8000, "application/json\xff", ";", "json"),
    ]
    answers = [await send(ada, operation, path, replaced={"content-type": kind.encode("latin-1")}) for kind in kinds]
    twice = [
        await send(ada, operation, path, added=[("content-type", other)])
        for other in ("text/plain", operation.headers["content-type"])
    ]

    assert [answer.status_code for answer in answers] == [415] * len(kinds)
    assert all("application/" in answer.json()["detail"] for answer in answers)
    assert [(response.status_code, response.json()["errors"][0]["path"]) for response in twice] == [
        (422, "content-type")
    ] * 2
    assert await rows_of(shared_database_url, ada) == before


INVALID_NUMBERS = [
    *("1.0", "1e1", "+1", "1_0", "0x1", "\u0665", "1 ", "-5", str(10**19), "NaN", "1e999", "null", "true"),
]
INVALID_BOOLEANS = ["True", "TRUE", "1", "0", "on", "yes", "t", "null", "true "]


def invalid_queries(operation: Operation) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The name of the invalid parameter, and the query."""
    for name, schema in operation.parameters("query").items():
        wrong = [text for text in invalid_values(schema, DOCUMENT) if isinstance(text, str) and len(text) < 1000]
        if schema.get("type") == "integer":
            wrong = [*INVALID_NUMBERS, str(schema["minimum"] - 1), str(schema["maximum"] + 1)]
        if schema.get("type") == "boolean":
            wrong = INVALID_BOOLEANS
        is_free_text = schema.keys() <= {"type", "minLength", "maxLength", "pattern"}
        for value in (*wrong, "", "\x00", *(() if is_free_text else ("\ud7ff", "NULL"))):
            yield name, [(name, value)]
        value = "true" if schema.get("type") == "boolean" else str(example(schema, DOCUMENT))
        yield name, [(name, value), (name, value)]
        yield name, [(name, value), (name, "")]
        yield f"{name}[]", [(f"{name}[]", value)]
        yield name.upper(), [(name.upper(), value)]
    for name in ("offset", "page", "user_id", "\x00", "x" * 2000, "", "é", "access_token"):
        yield name, [(name, "-5")]


@each_operation()
async def test_invalid_or_duplicate_query_parameter_is_refused_by_name(
    shared_database_url: str, ada: ApiUser, operation: Operation
) -> None:
    """The error names the parameter. An unknown parameter is refused, not ignored."""
    path = operation.path_with(await create_one_of_each(ada))
    before = await rows_of(shared_database_url, ada)
    queries = list(invalid_queries(operation))
    answers = [(name, query, await send(ada, operation, path, params=query)) for name, query in queries]

    assert [(query, response.status_code) for _, query, response in answers if response.status_code != 422] == []
    assert [
        query for name, query, response in answers if not name.startswith(response.json()["errors"][0]["path"])
    ] == []
    assert await rows_of(shared_database_url, ada) == before


INVALID_HEADERS = {
    "If-Match": ["null", "3", '"3', '"1", "2"', "", "W/", "*, *", '"1"x', "\xff", '"\x7f"'],
    "Idempotency-Key": ["", '"', '""', "a b", "é", "x" * 256, '"x', '"x"y', "\xff", '"\\x"', '"a", "b"'],
    "Last-Event-ID": ["", "null", "-1", "1.0", "1e1", "0x1", "x", str(10**19), "1, 2", "\xff", "+1", "1 2"],
}
"""Invalid values by header; a new header needs an entry."""
TWICE = {"If-Match": '"1"', "Idempotency-Key": "key", "Last-Event-ID": "1"}


@each_operation(lambda operation: operation.parameters("header"))
async def test_invalid_or_duplicate_header_is_refused_by_name(
    shared_database_url: str, ada: ApiUser, operation: Operation
) -> None:
    path = operation.path_with(await create_one_of_each(ada))
    before = await rows_of(shared_database_url, ada)
    for name in operation.parameters("header"):
        wrong = [
            await send(ada, operation, path, added=[(name.encode(), value.encode("latin-1"))])
            for value in INVALID_HEADERS[name]
        ]
        twice = await send(ada, operation, path, added=[(name, TWICE[name])] * 2)

        assert {answer.status_code for answer in wrong} <= {400, 412, 422}
        assert all(
            name.lower().replace("-", "") in response.text.lower().replace("-", "").replace("_", "")
            for response in wrong
        )
        assert (twice.status_code, twice.json()["errors"][0]["path"]) == (422, name.lower())
    assert await rows_of(shared_database_url, ada) == before


@each_operation(lambda operation: operation.parameters("path"))
async def test_invalid_path_id_is_not_found(shared_database_url: str, ada: ApiUser, operation: Operation) -> None:
    """Also if it is the id of an existing entity in another notation."""
    ids = await create_one_of_each(ada)
    before = await rows_of(shared_database_url, ada)
    for name in operation.parameters("path"):
        others = [f"{{{ids[name]}}}", f"urn:uuid:{ids[name]}", ids[name].replace("-", ""), ids[name] + "%00"]
        odd = ["%2e%2e", "..%2f..", "%00", "%ff", "%F0%9F%A5%9B", "x" * 5000, "00000000-0000-0000-0000-000000000000"]
        strangers = ["01a1f88f-b877-457a-8488-188f3c989d6d", "*", "me", "%7B%7B7*7%7D%7D", "'%20OR%201=1--"]
        answers = {
            id: await send(ada, operation, operation.path_with({**ids, name: id}))
            for id in [*others, *odd, *strangers, *(invalid for invalid in INVALID_IDS if invalid)]
        }
        assert {id: response.status_code for id, response in answers.items() if response.status_code != 404} == {}
        assert {response.json()["code"] for response in answers.values()} == {"not-found"}
    assert await rows_of(shared_database_url, ada) == before


@each_operation()
async def test_invalid_user_id_in_the_path_reaches_no_data(
    shared_database_url: str, ada: ApiUser, operation: Operation
) -> None:
    """Whatever stands in the place of the user id, no data of any user is reached."""
    ids = await create_one_of_each(ada)
    before = await rows_of(shared_database_url, ada)
    odd = [".", "..", "%2e%2e", "%2F", "%00", "%ff", "null", "*", "undefined", "x" * 129, "x" * 9000, "%F0%9F%A5%9B"]
    near = [f"{ada.user_id}%00", f"{ada.user_id}%20", f"{ada.user_id}%2F..", ada.user_id.upper(), f"%2e/{ada.user_id}"]
    answers = {}
    for whose, path in product([*odd, *near], [operation.path_with(ids)]):
        url = httpx2.URL(f"http://127.0.0.1:8000/api/{whose}/{path}")
        headers = {**operation.headers, "authorization": f"Bearer {ada.token}"}
        answers[whose] = await ada.client.request(operation.method, url, headers=headers, content=operation.content)

    assert {
        whose: response.status_code
        for whose, response in answers.items()
        if response.status_code not in {403, 404, 405}
    } == {}
    assert {response.json()["code"] for response in answers.values()} <= {"wrong-user", "not-found", "invalid"}
    assert await rows_of(shared_database_url, ada) == before


@pytest.mark.parametrize("path", sorted({operation.path for operation in OPERATIONS.values()}))
async def test_method_not_allowed_names_the_allowed_methods(shared_database_url: str, ada: ApiUser, path: str) -> None:
    """A method override header is ignored. `OPTIONS` names all allowed methods."""
    allowed = {operation.method for operation in OPERATIONS.values() if operation.path == path}
    path = next(operation for operation in OPERATIONS.values() if operation.path == path).path_with(
        await create_one_of_each(ada)
    )
    headers = {"authorization": f"Bearer {ada.token}", "content-type": "application/json"}
    before = await rows_of(shared_database_url, ada)
    for method in METHODS:
        if method not in allowed:
            refused = await ada.client.request(method, ada.path(path), headers=headers, content=b"{}")
            assert refused.status_code == 405
            assert set(refused.headers["allow"].split(", ")) == {*allowed, "OPTIONS"}
    for name in ("x-http-method-override", "x-http-method", "x-method-override"):
        for method in allowed & {"GET"}:
            overridden = await ada.client.request(method, ada.path(path), headers={**headers, name: "DELETE"})
            assert overridden.status_code == 200
    options = await ada.client.options(ada.path(path), headers=headers)

    assert (options.status_code, set(options.headers["allow"].split(", "))) == (204, {*allowed, "OPTIONS"})
    assert await rows_of(shared_database_url, ada) == before


@each_operation()
async def test_duplicate_authorization_header_is_unauthenticated(
    shared_database_url: str, ada: ApiUser, bob: ApiUser, operation: Operation
) -> None:
    """A proxy in front could have checked either of them."""
    path = operation.path_with(await create_one_of_each(ada))
    before = await rows_of(shared_database_url, ada)
    others = [bob.token, ada.token, "x"]
    answers = [await send(ada, operation, path, added=[("authorization", f"Bearer {token}")]) for token in others]

    assert [answer.status_code for answer in answers] == [401] * 3
    assert await rows_of(shared_database_url, ada) == before
