"""Captures everything that leaves a service: responses, logs, files, process arguments, rows and model requests."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from tests.e2e.service_process import Replica
from tests.fakes.model_request import ModelRequest


class CapturedOutput(dict[str, bytes]):
    """Captured bytes by place."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: set[int] = set()

    def put(self, place: str, *captured: bytes) -> None:
        self[place] = b"\n".join([*([self[place]] if place in self else []), *captured])

    async def send(self, replica: Replica, method: str, path: str, token: str = "", **given: Any) -> httpx2.Response:
        """Send a request and capture the response with its headers."""
        answer = await asyncio.to_thread(replica.request, method, path, token, **given)
        self.statuses.add(answer.status_code)
        head = [b"%s: %s" % pair for pair in answer.headers.raw]
        self.put(f"response to {method} {path}", *head, answer.content)
        return answer

    def capture_processes(self, processes: list[int], folder: Path) -> None:
        """Capture the arguments and environment of the processes, and the files in the folder."""
        for process in processes:
            self.put("arguments", Path(f"/proc/{process}/cmdline").read_bytes())
            self.put("environment", Path(f"/proc/{process}/environ").read_bytes())
        self.capture_files(folder)

    def capture_files(self, folder: Path) -> None:
        for path in folder.rglob("*"):
            self.put("names of files", bytes(path))
            if path.is_file():
                self.put("files", path.read_bytes())

    def capture_model_requests(self, requests: list[ModelRequest], credential: str) -> None:
        """Capture the model requests without the header that carries the model's own API key."""
        for request in requests:
            headers = [f"{name}: {value}".encode() for name, value in request.headers.items() if name != credential]
            self.put("model", request.raw, *headers)

    async def capture_tables(self, address: str) -> None:
        """Capture each row of each table as text."""
        connection = await asyncpg.connect(address)
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            for (table,) in tables:
                for (row,) in await connection.fetch(f'SELECT t::text FROM "{table}" t'):
                    self.put(f"table {table}", row.encode())
        finally:
            await connection.close()
