"""A model's server is found below its base URL, and is told who asks and nothing more."""

import httpx2
import pytest

from latchkey.domain.errors import ModelUnavailable
from latchkey.infrastructure.agents.openai.client import ModelClient


async def asked(base_url: str | None) -> httpx2.Request:
    requests: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(400)

    server = ModelClient("chat/completions", "sk-mine", base_url, httpx2.MockTransport(answer))
    with pytest.raises(ModelUnavailable):
        await anext(server.answer(b"{}"))
    await server.aclose()
    return requests[0]


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://model.test/v1", "http://model.test/v1/chat/completions"),
        ("http://model.test/v1/", "http://model.test/v1/chat/completions"),
        ("http://model.test", "http://model.test/chat/completions"),
        ("http://model.test:8/a%20b/v1?version=2", "http://model.test:8/a%20b/v1/chat/completions?version=2"),
        ("http://model.test/v1/?version=a/b", "http://model.test/v1/chat/completions?version=a/b"),
        (None, "https://api.openai.com/v1/chat/completions"),
    ],
)
async def test_it_is_found_below_its_base_url(monkeypatch: pytest.MonkeyPatch, base_url: str | None, url: str) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    assert str((await asked(base_url)).url) == url


async def test_it_is_told_who_asks_and_nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An organization that is set for OpenAI's client is named as that does."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-ours")
    headers = (await asked("http://model.test/v1")).headers

    assert headers["authorization"] == "Bearer sk-mine"
    assert headers["openai-organization"] == "org-ours"
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"] == "Latchkey"
    assert not [name for name in headers if name.startswith("x-stainless")]
