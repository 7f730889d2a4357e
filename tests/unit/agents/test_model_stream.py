"""A model's stream passes as it is if it is whole, however the network cuts it into chunks."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchkey.domain.errors import ModelBadResponse
from latchkey.infrastructure.agents import model_stream
from latchkey.infrastructure.agents.model_stream import ModelStream, check_response

CHAT = b'data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\ndata: [DONE]\n\n'
RESPONSES = b'event: x\ndata: {"type": "response.output_text.delta"}\n\ndata: {"type":"response.completed"}\n\n'


class Chunks(httpx2.AsyncByteStream):
    def __init__(self, body: bytes, size: int) -> None:
        self.chunks = [body[start : start + size] for start in range(0, len(body), size)]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            yield chunk


async def read(body: bytes, size: int, media_type: str = "text/event-stream") -> bytes:
    return b"".join([chunk async for chunk in ModelStream(Chunks(body, size), media_type)])


@given(body=st.sampled_from([CHAT, RESPONSES]), size=st.integers(1, 120))
async def test_a_whole_stream_passes_unchanged_in_chunks_of_any_size(body: bytes, size: int) -> None:
    assert await read(body, size) == body


@given(size=st.integers(1, 120), length=st.integers(0, len(CHAT) - 8))
async def test_a_stream_cut_before_its_end_is_a_bad_response(size: int, length: int) -> None:
    with pytest.raises(ModelBadResponse):
        await read(CHAT[:length], size)


async def test_a_stream_without_a_bound_is_a_bad_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_stream, "MAX_STREAM_BYTES", 50)

    with pytest.raises(ModelBadResponse, match="50 bytes"):
        await read(CHAT, 10)


@pytest.mark.parametrize(
    ("retry_after", "verdict"), [("1", None), ("5", None), ("6", "false"), ("tomorrow", "false"), (None, None)]
)
async def test_a_long_wait_is_left_to_whoever_waits_for_the_turn(retry_after: str | None, verdict: str | None) -> None:
    response = httpx2.Response(503, headers={"retry-after": retry_after} if retry_after else {})
    await check_response(response)

    assert response.headers.get("x-should-retry") == verdict
