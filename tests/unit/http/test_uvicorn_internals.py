"""Undocumented names of uvicorn stand in one module, and each of them still exists."""

import asyncio
import logging
import re
from importlib.metadata import version
from inspect import getsource, signature
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

import latchkey.interfaces.http
from latchkey.interfaces.http.server import protocol

HOOKS = {
    "connection_made",
    "connection_lost",
    "data_received",
    "on_message_begin",
    "on_headers_complete",
    "on_message_complete",
    "on_response_complete",
    "pause_writing",
    "resume_writing",
    "_unsupported_upgrade_warning",
}
"""The methods of uvicorn's protocol that ours overrides."""


SOURCE = getsource(protocol)


async def unused(scope: Any, receive: Any, send: Any) -> None:
    """An application that is never called."""


def test_uvicorn_protocol_still_has_the_attributes() -> None:
    loop = asyncio.new_event_loop()
    base = HttpToolsProtocol(uvicorn.Config(unused), ServerState(), {}, loop)
    loop.close()
    assigned = re.findall(r"\bself\.(_\w+)(?:: [^=\n]+)? \+?= ", SOURCE)
    own_methods = set(vars(protocol.HttpProtocol)) | set(vars(protocol._CycleTransport))
    own = (own_methods - HOOKS) | set(assigned) | set(dir(asyncio.Transport))
    used = set(re.findall(r"\bself\.(\w+)", SOURCE)) - own
    missing = [name for name in sorted(used | HOOKS) if not hasattr(base, name)]

    assert missing == [], f"HttpToolsProtocol of uvicorn {version('uvicorn')} no longer has these: adapt protocol.py"
    assert {"cycle", "pipeline", "timeout_keep_alive_task"} <= used


def test_uvicorn_request_cycle_still_has_the_attributes() -> None:
    cycle = RequestResponseCycle(**dict.fromkeys(signature(RequestResponseCycle).parameters))  # type: ignore[arg-type]
    used = set(re.findall(r"\bcycle\.(\w+)", SOURCE))
    missing = [name for name in sorted(used) if not hasattr(cycle, name)]

    assert missing == [], f"RequestResponseCycle of uvicorn {version('uvicorn')} no longer has these: adapt protocol.py"
    assert {"response_complete", "disconnected", "transport"} <= used


def test_uvicorn_request_cycle_closes_its_transport_itself() -> None:
    """The lingering close replaces this call."""
    assert "self.transport.close()" in getsource(RequestResponseCycle.send), f"uvicorn {version('uvicorn')}"


def test_uvicorn_closes_the_connection_of_an_incomplete_response() -> None:
    """And logs an error, which is left out of the log."""
    source = getsource(RequestResponseCycle.run_asgi)
    _, text, closing = source.partition(protocol._INCOMPLETE)

    assert (text, "self.transport.close()" in closing) == (protocol._INCOMPLETE, True), f"uvicorn {version('uvicorn')}"
    assert not logging.getLogger("uvicorn.error").filter(logging.makeLogRecord({"msg": text}))


def test_no_other_module_imports_uvicorn_protocols() -> None:
    root = Path(latchkey.interfaces.http.__path__[0])
    sources = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.py")}

    assert [name for name, source in sources.items() if "uvicorn.protocols" in source] == ["server/protocol.py"]
