"""Operations of the load generator: requests and expected responses, read from a TOML file."""

import base64
import hmac
import json
import re
import time
import tomllib
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bench.http1 import Connection, Response

ROWS = 50
"""The number of tasks and messages of a reader."""

Values = dict[str, Any]

_numbers = count(1)
_loads = msgspec.json.decode


class Wrong(Exception):
    """A response that is not the expected one."""


class Template:
    """Text with $names. A $name alone keeps the type of its value."""

    def __init__(self, text: Any) -> None:
        self._text = text
        self._parts = re.split(r"\$(\w+)", text) if isinstance(text, str) else []

    def __call__(self, values: Values) -> Any:
        match self._parts:
            case [] | [_]:
                return self._text
            case ["", name, ""]:
                return values[name]
        return "".join(str(values[part]) if index % 2 else part for index, part in enumerate(self._parts))


class Operation:
    """A request with its set-up requests and the expected values of its response."""

    def __init__(self, target: "Target", name: str, spec: dict[str, Any]) -> None:
        self.target, self.name = target, name
        method, path = spec["request"].split(" ", 1)
        self._body = Template(spec.get("body", ""))
        headers = {"host": target.host, "content-type": "application/json", **target.headers, **spec.get("headers", {})}
        lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        self._head = Template(f"{method} {path} HTTP/1.1\r\n{lines}")
        self._user = Template(spec.get("user", "w$worker"))
        self._status = spec.get("status", 200)
        self._expect = [(path, Template(value)) for path, value in spec.get("expect", {}).items()]
        self._capture: dict[str, str] = spec.get("capture", {})
        self._setup = [Operation(target, step, target.spec["setup"][step]) for step in spec.get("setup", ())]
        self.primed: int = spec.get("primed", 0)

    def build(self, values: Values) -> bytes:
        values["n"] = next(_numbers)
        values["title"] = f"task {values['n']}"
        body = str(self._body(values)).encode()
        length = f"content-length: {len(body)}\r\n" if body else ""
        return f"{self._head(values)}{length}\r\n".encode() + body

    def check(self, answer: Response, values: Values) -> None:
        """Raises `Wrong`."""
        if answer.status != self._status:
            raise Wrong(f"status {answer.status}: {answer.body[:200]!r}")
        if not self._expect:
            return
        document = _loads(answer.body)
        for path, wanted in self._expect:
            try:
                got = _pick(document, path)
            except (LookupError, TypeError, ValueError) as error:
                raise Wrong(f"no {path!r} in {answer.body[:200]!r}") from error
            if got != (right := wanted(values)):
                raise Wrong(f"{path!r} is {got!r}, not {right!r}")

    async def once(self, connection: Connection, values: Values) -> None:
        answer = await connection.request(self.build(values))
        self.check(answer, values)
        for name, where in self._capture.items():
            values[name] = _pick(_loads(answer.body), where.removeprefix("body:"))

    async def prepare(self, worker: int, **more: Any) -> tuple[Connection, Values]:
        """Open a connection for that worker. Returns it with the values for its requests."""
        values: Values = {"worker": worker, "rows": ROWS, "listed": ROWS, **more}
        values.setdefault("user", self._user(values))
        values["token"] = self.target.token(values)
        connection = await Connection.open(*self.target.address)
        for step in self._setup:
            await step.once(connection, values)
        return connection, values


class Target:
    """A server at a base URL, with the operations of a TOML file."""

    def __init__(self, path: Path, base_url: str) -> None:
        self.spec = spec = tomllib.loads(path.read_text())
        url = urlsplit(base_url)
        self.host, self.address = url.netloc, (url.hostname or "", url.port or 80)
        self.headers: dict[str, str] = spec.get("headers", {})
        self._secret: bytes = spec["auth"]["secret"].encode()
        self._claims = {key: Template(value) for key, value in spec["auth"]["claims"].items()}
        self.operations = {name: Operation(self, name, op) for name, op in spec["ops"].items()}

    def token(self, values: Values) -> str:
        now = int(time.time())
        claims = {**{key: value(values) for key, value in self._claims.items()}, "iat": now, "exp": now + 86_400}
        signed = _part(b'{"alg":"HS256","typ":"JWT"}') + b"." + _part(json.dumps(claims).encode())
        return (signed + b"." + _part(hmac.digest(self._secret, signed, "sha256"))).decode()


def _part(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _pick(document: Any, path: str) -> Any:
    """The value at a path such as `a.0.b`; a last `#` is the length."""
    for step in path.split("."):
        if step == "#":
            return len(document)
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document
