"""The baseline: raw ASGI, the database driver, msgspec, and nothing else.

Not a design to copy: it has no validation messages, no limits, no isolation and no proper errors. It shows the minimum
cost of a request with this machine, ASGI server, driver and database. `DATABASE_URL`, `AUTH_SECRET` and
`OPENAI_BASE_URL` tell it where it is: `uvicorn bench.limit:app`.
"""

import asyncio
import hmac
import os
import time
from base64 import urlsafe_b64decode
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.json import Decoder, encode

from bench.http1 import Pool
from bench.limit_store import ADD, CONVERSATIONS, LIST, MESSAGES, OPEN, SAY, store_at

SECRET = os.environ["AUTH_SECRET"].encode()
MODEL = urlsplit(os.environ["OPENAI_BASE_URL"])


class NewTask(Struct):
    title: str
    description: str | None = None


class Task(Struct):
    id: int
    user_id: str
    title: str
    description: str | None
    completed: bool
    created_at: datetime | str
    updated_at: datetime | str


class Message(Struct):
    id: int
    role: str
    content: str
    created_at: datetime | str


class Params(Struct, frozen=True):
    name: str = ""
    arguments: dict[str, Any] = {}


class Rpc(Struct):
    method: str
    id: int | str | None = None
    params: Params = Params()


class Chat(Struct):
    message: str
    conversation_id: int | None = None


class Claims(Struct):
    sub: str
    exp: float


class Output(Struct):
    type: str
    name: str = ""
    arguments: str = ""
    call_id: str = ""
    content: list[dict[str, Any]] = []


class Answer(Struct):
    output: list[Output]


_new_task, _rpc, _chat = Decoder(NewTask).decode, Decoder(Rpc).decode, Decoder(Chat).decode
_claims, _arguments, _answer = Decoder(Claims).decode, Decoder(dict[str, Any]).decode, Decoder(Answer).decode

_db = store_at(os.environ["DATABASE_URL"])
_model = Pool(MODEL.hostname or "127.0.0.1", MODEL.port or 80)


async def _add(user: str, new: NewTask) -> Task:
    return _tasks(await _db(ADD, user, new.title, new.description))[0]


def _tasks(rows: Any) -> list[Task]:
    return [Task(*row[:4], bool(row[4]), *row[5:]) for row in rows]  # type: ignore[call-arg]  # there are seven


_STRING = {"type": "string"}
_TITLE = {"type": "object", "properties": {"title": _STRING, "description": _STRING}, "required": ["title"]}
_NOTHING = {"type": "object", "properties": {}}
_TOOLS = [
    {"type": "function", "name": "add_task", "description": "Create a task.", "parameters": _TITLE},
    {"type": "function", "name": "list_tasks", "description": "List the tasks.", "parameters": _NOTHING},
]


async def _call_tool(user: str, name: str, given: dict[str, Any]) -> Any:
    if name == "add_task":
        return await _add(user, NewTask(given["title"], given.get("description")))
    if name == "list_tasks":
        return {"result": _tasks(await _db(LIST, user))}
    raise ValueError(name)


async def _run(user: str, turn: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """Run the tool loop. Returns the final text of the model and the tool calls."""
    calls: list[dict[str, Any]] = []
    asked = {"model": "m", "instructions": "You manage the user's tasks.", "tools": _TOOLS, "stream": False}
    while True:
        body = encode({**asked, "input": turn})
        head = f"POST {MODEL.path}/responses HTTP/1.1\r\nhost: model\r\ncontent-length: {len(body)}\r\n\r\n"
        output = _answer((await _model.request(head.encode() + body)).body).output
        wanted = [item for item in output if item.type == "function_call"]
        if not wanted:
            return output[0].content[0]["text"], calls
        given = [_arguments(item.arguments) for item in wanted]
        results = await asyncio.gather(*(_call_tool(user, w.name, g) for w, g in zip(wanted, given, strict=True)))
        for item, arguments, result in zip(wanted, given, results, strict=True):
            call = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
            calls.append({"tool": item.name, "arguments": arguments})
            turn.append({"type": "function_call", **call})
            turn.append({"type": "function_call_output", "call_id": item.call_id, "output": encode(result).decode()})


async def _turn(user: str, body: bytes) -> dict[str, Any]:
    asked = _chat(body)
    conversation, turn = asked.conversation_id, []
    if conversation is None:
        conversation = (await _db(OPEN, user))[0][0]
    else:
        rows = await _db(MESSAGES, conversation, user)
        turn = [{"role": row[1], "content": row[2]} for row in reversed(rows)]
    turn.append({"role": "user", "content": asked.message})
    await _db(SAY, conversation, "user", asked.message)
    text, calls = await _run(user, turn)
    await _db(SAY, conversation, "assistant", text)
    return {"conversation_id": conversation, "response": text, "tool_calls": calls}


def _user(scope: Any) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            signed, _, signature = value[7:].rpartition(b".")
            if hmac.compare_digest(urlsafe_b64decode(signature + b"=="), hmac.digest(SECRET, signed, "sha256")):
                claims = _claims(urlsafe_b64decode(signed.partition(b".")[2] + b"=="))
                return claims.sub if claims.exp > time.time() else None
    return None


async def _answered(scope: Any, body: bytes) -> tuple[int, bytes]:  # noqa: PLR0911 - one for each route
    """Status and body. A path is "", "api", user, noun, and so on."""
    user, path = _user(scope), scope["path"].split("/")
    if user is None:
        return 401, b""
    if path[1] == "mcp":
        call = _rpc(body)
        result = await _call_tool(user, call.params.name, call.params.arguments)
        content = [{"type": "text", "text": encode(result).decode()}]
        result = {"content": content, "structuredContent": result, "isError": False}
        return 200, encode({"jsonrpc": "2.0", "id": call.id, "result": result})
    if path[2] != user:
        return 403, b""
    if path[3] == "tasks":
        if scope["method"] == "POST":
            return 201, encode(await _add(user, _new_task(body)))
        return 200, encode(_tasks(await _db(LIST, user)))
    if path[3] == "chat":
        return 200, encode(await _turn(user, body))
    if len(path) > 4:  # noqa: PLR2004 - conversations/{id}/messages
        rows = await _db(MESSAGES, int(path[4]), user)
        return 200, encode([Message(*row) for row in reversed(rows)])
    return 200, encode([{"id": row[0]} for row in await _db(CONVERSATIONS, user)])


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return await _live(receive, send)
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body")
    try:
        status, payload = await _answered(scope, body)
    except Exception as error:  # noqa: BLE001 - the load generator reports the error
        status, payload = 500, encode({"error": repr(error)})
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(payload))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": payload})
    return None


async def _live(receive: Any, send: Any) -> None:
    while (kind := (await receive())["type"]) == "lifespan.startup":
        await _db.start()
        await send({"type": f"{kind}.complete"})
    await send({"type": f"{kind}.complete"})
