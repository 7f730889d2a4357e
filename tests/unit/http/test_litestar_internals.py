"""Undocumented attributes of Litestar stand in one module, and each of them still exists."""

import re
from importlib.metadata import version
from inspect import getsource
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

import latchkey.interfaces.http
from latchkey.interfaces.http import litestar_internals
from latchkey.interfaces.http.requests import JsonBody, LimitQuery

INTERNAL = re.compile(r"\bparsed_\w+|\bresolve_\w+|\bkwarg_definition\b|\bis_di_field\b|\broute_handler_map\b")


@post("/things", tags=["things"])
async def add_thing(limit: LimitQuery, data: JsonBody[dict[str, int]]) -> Response[list[int]]:
    """Add a thing."""
    return Response([limit, *data.values()])


@get("/things")
async def get_thing() -> None:
    """Get nothing."""


@pytest.fixture
def app() -> Litestar:
    return Litestar([add_thing, get_thing], openapi_config=None, logging_config=None)


def examples(app: Litestar) -> dict[str, Any]:
    """Return an object of Litestar for each variable that the module names after its kind."""
    route = next(route for route in app.routes if isinstance(route, HTTPRoute))
    handler = next(each for each in route.route_handlers if each.handler_name == "add_thing")
    assert isinstance(handler, HTTPRouteHandler)
    signature = handler.parsed_fn_signature
    return {
        "app": app,
        "route": route,
        "handler": handler,
        "field": signature.parameters["limit"],
        "returned": signature.return_type,
    }


def test_litestar_internals_still_exist(app: Litestar) -> None:
    known = examples(app)
    used = set(re.findall(r"\b(app|route|handler|field|returned)\.(\w+)", getsource(litestar_internals)))
    missing = sorted(f"{name}.{attribute}" for name, attribute in used if not hasattr(known[name], attribute))

    assert missing == [], f"Litestar {version('litestar')} no longer has these: adapt litestar_internals.py"
    assert {name for name, _ in used} == set(known)


def test_litestar_internals_are_read_as_declared(app: Litestar) -> None:
    add, read = sorted(litestar_internals.operations_of(app), key=lambda operation: operation.handler.handler_name)
    (limit,) = litestar_internals.parameters_of(add.handler)
    body = litestar_internals.body_of(add.handler)

    assert (add.path, add.method, read.method) == ("/things", "POST", "GET")
    assert (limit.name, limit.location.value, limit.annotation, limit.default) == ("limit", "query", int, None)
    assert body is not None
    assert (body.annotation, body.media_type) == (dict[str, int], "application/json")
    assert litestar_internals.response_type_of(add.handler) == list[int]
    assert litestar_internals.response_type_of(read.handler) is None
    assert litestar_internals.tags_of(add.handler) == ["things"]
    assert litestar_internals.methods_of(app, "/things") == ["GET", "OPTIONS", "POST"]


def test_no_other_module_reads_litestar_internals() -> None:
    root = Path(latchkey.interfaces.http.__path__[0])
    sources = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.py")}

    assert [name for name, source in sources.items() if INTERNAL.search(source)] == ["litestar_internals.py"]
