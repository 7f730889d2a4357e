"""Answers of model servers as they stand on the wire, and what a turn must make of them: see `model_servers/`.

The first lines of a file say where the answers were reported, and what is right: how many tasks the turn has added,
how it ends, and what it says. Lines that begin with `#` describe what bytes cannot.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.model_request import ModelRequest
from tests.fakes.model_script import Reply

_FOLDER = Path(__file__).parent / "model_servers"
_STATUS = re.compile(r"# status (\d+), content-type (\S+)")
_OPEN = "# (the connection stays open)"
_BROKEN = "# (the connection breaks)"


@dataclass(frozen=True)
class ServerCase:
    """`endings` are `completed` or codes of failures; any of them is right. `text` is None if any text is right."""

    name: str
    tasks: int
    endings: frozenset[str]
    text: str | None
    replies: tuple[Reply, ...]

    @property
    def api(self) -> str:
        return "responses" if self.name.startswith("responses") else "chat_completions"


def read_cases() -> list[ServerCase]:
    return [_read(path) for path in sorted(_FOLDER.glob("*.txt"))]


def _read(path: Path) -> ServerCase:
    head, *answers = re.split(r"^### answer \d+\n", path.read_text(), flags=re.MULTILINE)
    rules = dict(rule.strip().split(" ", 1) for rule in head.partition("# right: ")[2].strip().split(";"))
    text = rules.get("says")
    return ServerCase(
        name=path.stem,
        tasks=int(rules["tasks"]),
        endings=frozenset(rules["ends"].split(" or ")),
        text=text.strip("'").encode().decode("unicode_escape") if text else None,
        replies=tuple(map(_reply, answers)),
    )


def _reply(answer: str) -> Reply:
    status, media_type = match.groups() if (match := _STATUS.search(answer)) else ("200", "text/event-stream")
    lines = [line for line in answer.split("\n") if not line.startswith("#")]
    body = "\n".join(lines).encode()
    return Reply(
        int(status),
        body,
        None if media_type == "None" else media_type,
        {"x-should-retry": "false"},
        stays_open=_OPEN in answer,
        breaks=_BROKEN in answer,
    )


def check_strictly(request: ModelRequest) -> None:
    """Fail if a server that checks everything would refuse the conversation of a request."""
    open_calls: set[str] = set()
    all_calls: set[str] = set()
    for line in request.conversation:
        if line[0] == "call":
            _, call_id, name, arguments = line
            assert isinstance(call_id, str), "an id is text"
            assert call_id, "an id is not empty"
            assert call_id not in all_calls, "ids are unique"
            assert name, "a call has a name"
            assert isinstance(json.loads(arguments), dict), "arguments are a JSON object"
            open_calls.add(call_id)
            all_calls.add(call_id)
        elif line[0] == "result":
            assert line[1] in open_calls, "a result belongs to one call before it"
            open_calls.remove(line[1])
        else:
            assert not open_calls, "all results come before other messages"
            assert line[1], "a message has text"
    assert not open_calls, "every call has a result"
    assert not {"store", "include"} & request.body.keys(), "only OpenAI knows these fields"
    assert all("strict" not in tool and "strict" not in tool.get("function", {}) for tool in request.body["tools"])
