"""A real Better Auth server in a process of its own, and users who sign up with it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx2

from latchkey.testing.processes import Account, supervised
from tests.node import installed, node
from tests.support.service import BASE_URL

PROGRAM = Path(__file__).parents[2] / "fakes" / "better_auth"
READY = "Better Auth is at "

_numbers = count(1)


@dataclass(frozen=True)
class SignedUpUser:
    """A user who has signed up, with the browser session."""

    user_id: str
    browser: httpx2.AsyncClient

    async def token(self) -> str:
        """A new JWT."""
        answer = await self.browser.get("/api/auth/token")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])


@dataclass(frozen=True)
class BetterAuth:
    url: str

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/api/auth/jwks"

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of a service that trusts it, as in docs/identity-providers.md."""
        return {
            "LATCHKEY_AUTH_SECRET": "",
            "LATCHKEY_AUTH_JWKS_URL": self.jwks_url,
            "LATCHKEY_AUTH_ISSUER": self.url,
            "LATCHKEY_AUTH_AUDIENCE": self.url,
        }

    async def sign_up(self, browser: httpx2.AsyncClient) -> SignedUpUser:
        """Sign up a new user."""
        name = f"user-{next(_numbers)}"
        account = {"name": name, "email": f"{name}@example.com", "password": f"the password of {name}"}
        answer = await browser.post("/api/auth/sign-up/email", json=account)
        assert answer.status_code == 200, answer.text
        return SignedUpUser(answer.json()["user"]["id"], browser)

    def browser(self) -> httpx2.AsyncClient:
        """A new browser session."""
        return httpx2.AsyncClient(base_url=self.url, headers={"origin": self.url})

    async def fetches(self) -> int:
        """The number of JWKS requests so far."""
        return int(await self._get("/fetches"))

    async def rotate(self) -> None:
        """Advance the server's time so that it signs with a new key."""
        await self._get("/age")

    async def _get(self, path: str) -> str:
        async with self.browser() as browser:
            answer = await browser.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text


@contextmanager
def better_auth(log: Path) -> Iterator[BetterAuth]:
    """Start a server without users, and stop it."""
    command = [str(node()), str(installed(PROGRAM) / "server.js"), "0", f"{BASE_URL}/mcp"]
    folder = Path(tempfile.mkdtemp(prefix="latchkey-"))
    with supervised(command, folder, log, ready=READY, signal="TERM", account=Account()):
        line = next(line for line in log.read_text().splitlines() if READY in line)
        yield BetterAuth(line.partition(READY)[2])
