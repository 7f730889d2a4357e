"""Generates docs/openapi.json and docs/mcp.json: `make schemas`. A test fails while they are out of date.

With `--types` it also generates the types of the TypeScript client, which needs its npm packages.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2

from latchkey.bootstrap.composition import create_asgi
from latchkey.bootstrap.registry import BUILT_IN, Registry
from latchkey.config import Settings
from tests.node import environment, installed, npm

DOCS = Path(__file__).parents[1] / "docs"
BASE_URL = "http://127.0.0.1:8000"
SETTINGS = {
    "LATCHKEY_AUTH_JWKS_URL": f"{BASE_URL}/api/auth/jwks",
    "LATCHKEY_AUTH_ISSUER": BASE_URL,
    "LATCHKEY_AUTH_AUDIENCE": BASE_URL,
}
"""With an identity provider, so that the document includes the resource metadata."""


async def openapi() -> dict[str, Any]:
    """Return the document that the service publishes."""
    asgi: Any = create_asgi(Settings.read(SETTINGS), "127.0.0.1", 8000)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=asgi), base_url=BASE_URL) as client:
        schema: dict[str, Any] = (await client.get("/schema/openapi.json")).json()
    return schema


def mcp() -> dict[str, Any]:
    """Return all tools as `tools/list` shows them to a credential with every grant."""
    return {"tools": [tool.listing for tool in Registry.of(*BUILT_IN).tools.values()]}


def text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def published() -> dict[str, str]:
    """Return the generated content of each file by name."""
    return {"openapi.json": text(asyncio.run(openapi())), "mcp.json": text(mcp())}


if __name__ == "__main__":
    for name, content in published().items():
        (DOCS / name).write_text(content)
    if "--types" in sys.argv:
        folder = installed(DOCS.parent / "clients/typescript")
        subprocess.run(npm("run", "generate"), cwd=folder, env=environment(), check=True)
