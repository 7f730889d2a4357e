"""Which failed requests to a model's server are retried, how often, and after which wait."""

from collections.abc import AsyncIterator, Callable

import anyio
import httpx2
import pytest

from latchkey.domain.errors import ModelUnavailable, RateLimited, TurnFailed
from latchkey.infrastructure.agents.openai.model_client import ModelClient

Respond = Callable[[httpx2.Request], httpx2.Response]

EVENT_STREAM = {"content-type": "text/event-stream"}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long OpenAI's client waits before each retry. It does not wait in the test."""
    recorded: list[float] = []

    async def record(delay: float) -> None:
        recorded.append(delay)

    monkeypatch.setattr(anyio, "sleep", record)
    return recorded


def response(status: int, headers: dict[str, str]) -> httpx2.Response:
    return httpx2.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def send(respond: Respond) -> list[list[bytes]]:
    client = ModelClient("responses", "sk-mine", "http://model.test/v1", httpx2.MockTransport(respond))
    try:
        return [events async for events in client.stream(b"{}")]
    finally:
        await client.aclose()


async def failure(status: int, **headers: str) -> TurnFailed:
    with pytest.raises(TurnFailed) as raised:
        await send(lambda _: response(status, headers))
    return raised.value


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
async def test_transient_status_is_retried_twice_with_increasing_wait(waits: list[float], status: int) -> None:
    await failure(status)
    first, second = waits

    assert 0.375 <= first <= 0.5
    assert 0.75 <= second <= 1


async def test_retry_returns_the_answer_of_the_next_attempt(waits: list[float]) -> None:
    responses = [response(503, {}), httpx2.Response(200, headers=EVENT_STREAM, content=b"data: hello\n\n")]

    assert await send(lambda _: responses.pop(0)) == [[b"hello"]]
    assert len(waits) == 1


async def test_connection_error_is_retried_twice(waits: list[float]) -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    with pytest.raises(ModelUnavailable, match="OPENAI_BASE_URL"):
        await send(refuse)
    assert len(waits) == 2


async def test_timeout_is_retried_twice(waits: list[float]) -> None:
    def time_out(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("late", request=request)

    with pytest.raises(ModelUnavailable, match="in time"):
        await send(time_out)
    assert len(waits) == 2


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 422])
async def test_permanent_status_is_not_retried(waits: list[float], status: int) -> None:
    assert isinstance(await failure(status), ModelUnavailable)
    assert waits == []


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry_after": "1"}, 1),
        ({"retry_after": "5"}, 5),
        ({"retry_after_ms": "20"}, 0.02),
        ({"retry_after_ms": "20", "retry_after": "3"}, 0.02),
    ],
)
async def test_retry_waits_as_long_as_retry_after_demands(
    waits: list[float], headers: dict[str, str], wait: float
) -> None:
    await failure(503, **headers)

    assert waits == [wait, wait]


@pytest.mark.parametrize(
    "headers",
    [
        {"retry_after": "6"},
        {"retry_after": "tomorrow"},
        {"retry_after": "Wed, 21 Oct 2099 07:28:00 GMT"},
        {"retry_after": "nan"},
        {"retry_after_ms": "60000"},
        {"retry_after": "60", "x_should_retry": "true"},
    ],
    ids=str,
)
async def test_long_retry_after_is_not_retried(waits: list[float], headers: dict[str, str]) -> None:
    """The client of the turn can decide better what to do meanwhile."""
    assert isinstance(await failure(429, **headers), RateLimited)
    assert waits == []


@pytest.mark.parametrize("retry_after", ["0", "-1"])
async def test_retry_after_of_zero_or_less_still_waits(waits: list[float], retry_after: str) -> None:
    await failure(429, retry_after=retry_after)

    assert all(wait >= 0.375 for wait in waits)
    assert len(waits) == 2


@pytest.mark.parametrize(("status", "x_should_retry", "retries"), [(500, "false", 0), (400, "true", 2)])
async def test_x_should_retry_header_overrides_the_status(
    waits: list[float], status: int, x_should_retry: str, retries: int
) -> None:
    await failure(status, x_should_retry=x_should_retry)

    assert len(waits) == retries


async def test_body_of_an_error_is_read_up_to_its_limit() -> None:
    """It can have any size."""
    chunks_read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal chunks_read
        while True:
            chunks_read += 1
            yield b"error" * 100

    with pytest.raises(ModelUnavailable):
        await send(lambda _: httpx2.Response(400, content=body()))
    assert chunks_read == 5
