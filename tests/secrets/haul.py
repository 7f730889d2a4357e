"""All that somebody can see who watches a service from every side: what it answers, writes, starts, stores and asks."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from tests.e2e.service_process import Replica
from tests.fakes.model_request import ModelRequest


class Haul(dict[str, bytes]):
    """What was seen, by the place where it was."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: set[int] = set()

    def put(self, place: str, *seen: bytes) -> None:
        self[place] = b"\n".join([*([self[place]] if place in self else []), *seen])

    async def ask(self, replica: Replica, method: str, path: str, token: str = "", **given: Any) -> httpx2.Response:
        """One request, whose answer is kept, head and all."""
        answer = await asyncio.to_thread(replica.request, method, path, token, **given)
        self.statuses.add(answer.status_code)
        head = [b"%s: %s" % pair for pair in answer.headers.raw]
        self.put(f"answer to {method} {path}", *head, answer.content)
        return answer

    def subscriptions(self, processes: list[int], folder: Path) -> None:
        """What processes were started with, and what is in files there now."""
        for process in processes:
            self.put("arguments", Path(f"/proc/{process}/cmdline").read_bytes())
            self.put("environment", Path(f"/proc/{process}/environ").read_bytes())
        self.look_through(folder)

    def look_through(self, folder: Path) -> None:
        for path in folder.rglob("*"):
            self.put("names of files", bytes(path))
            if path.is_file():
                self.put("files", path.read_bytes())

    def overhear(self, requests: list[ModelRequest], credential: str) -> None:
        """What the model was sent, but for the header that is its own credential."""
        for request in requests:
            headers = [f"{name}: {value}".encode() for name, value in request.headers.items() if name != credential]
            self.put("model", request.raw, *headers)

    async def dump(self, address: str) -> None:
        """Every row of every table, as text."""
        connection = await asyncpg.connect(address)
        try:
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            for (table,) in tables:
                for (row,) in await connection.fetch(f'SELECT t::text FROM "{table}" t'):
                    self.put(f"table {table}", row.encode())
        finally:
            await connection.close()
