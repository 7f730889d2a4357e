"""The URL and the headers of a request to a model's server."""

import httpx2
import pytest

from latchkey.domain.errors import ModelUnavailable
from latchkey.infrastructure.agents.openai.model_client import ModelClient


async def send(base_url: str | None, *, count: int = 1) -> httpx2.Request:
    """The last of `count` requests of one client."""
    requests: list[httpx2.Request] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(400, headers={"set-cookie": "session=1"})

    client = ModelClient("chat/completions", "sk-mine", base_url, httpx2.MockTransport(respond))
    for _ in range(count):
        with pytest.raises(ModelUnavailable):
            await anext(client.stream(b"{}"))
    await client.aclose()
    return requests[-1]


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
async def test_request_url_is_below_the_base_url(
    monkeypatch: pytest.MonkeyPatch, base_url: str | None, url: str
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)

    assert str((await send(base_url)).url) == url


@pytest.mark.parametrize(
    ("base_url", "is_openai"),
    [
        (None, True),
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://openai.example.com/v1", False),
        ("https://api.openai.com.example.com/v1", False),
        ("http://127.0.0.1:11434/v1", False),
    ],
)
async def test_client_recognizes_the_host_of_openai(
    monkeypatch: pytest.MonkeyPatch, base_url: str | None, *, is_openai: bool
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    client = ModelClient("responses", "sk-mine", base_url, None)

    assert client.is_openai is is_openai
    await client.aclose()


async def test_request_headers_identify_the_account_and_not_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The organization is the one that is configured for OpenAI's client."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org-ours")
    headers = (await send("http://model.test/v1")).headers

    assert headers["authorization"] == "Bearer sk-mine"
    assert headers["openai-organization"] == "org-ours"
    assert headers["content-type"] == "application/json"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"] == "Latchkey"
    assert not [name for name in headers if name.startswith("x-stainless")]


async def test_cookies_are_not_sent_back() -> None:
    """The turns of different users share one client."""
    assert "cookie" not in (await send("http://model.test/v1", count=2)).headers
