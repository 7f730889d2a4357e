"""OpenAI's Chat Completions API: how a request is written in it, and how an answer is heard.

It is what most servers speak that are not OpenAI's, each in its own way: thoughts that it wants back, signatures, calls
in pieces. The SDK knows those ways, so the translation is the SDK's, and costs what it costs.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from agents import Tool, TResponseInputItem
from agents.models.chatcmpl_converter import Converter
from agents.models.chatcmpl_stream_handler import ChatCmplStreamHandler
from agents.models.fake_id import FAKE_RESPONSES_ID
from openai import AsyncStream
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.openai.errors import broken_off, cut_short, given_up
from latchkey.infrastructure.agents.openai.model_api import (
    DONE,
    CompletedResponse,
    ModelEvent,
    ParagraphBreak,
    TextEvent,
    read,
    write,
)


class ChatCompletionsApi:
    path = "chat/completions"

    def __init__(self, model: str) -> None:
        self._model = model

    def encode_request(
        self, instructions: str | None, conversation: list[TResponseInputItem], tools: list[Tool]
    ) -> bytes:
        messages: list[Any] = [{"role": "system", "content": instructions}] if instructions else []
        request: dict[str, Any] = {
            "model": self._model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "store": False,
            "messages": messages + Converter.items_to_messages(conversation, model=self._model),
        }
        if tools:
            request["tools"] = [Converter.tool_to_openai(tool) for tool in tools]
            request["parallel_tool_calls"] = False
        return write(request)

    async def decode_events(self, told: AsyncIterator[list[bytes]]) -> AsyncGenerator[list[ModelEvent], None]:
        chunks = cast("AsyncStream[ChatCompletionChunk]", _chunks(told))
        stream = ChatCmplStreamHandler.handle_stream(self._answer(), chunks, model=self._model)
        async with aclosing(stream) as events:  # type: ignore[type-var]
            async for event in events:
                yield _meaning(event)

    def _answer(self) -> Response:
        """What the SDK puts together what it hears in."""
        return Response(
            id=FAKE_RESPONSES_ID,
            created_at=time.time(),
            model=self._model,
            object="response",
            output=[],
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=False,
        )


def _meaning(event: ResponseStreamEvent) -> list[ModelEvent]:
    match event.type:
        case "response.output_text.delta" | "response.refusal.delta":
            return [TextEvent(event.delta)]
        case "response.output_item.added":
            return [ParagraphBreak()]
        case "response.completed":
            answer = event.response
            used = answer.usage
            cost = Usage(1, used.input_tokens, used.output_tokens) if used else Usage(1)
            return [cost, CompletedResponse(answer.output, answer.output_text)]
    return []


async def _chunks(told: AsyncIterator[list[bytes]]) -> AsyncGenerator[ChatCompletionChunk, None]:
    """What the SDK makes an answer of. It would take a stream that breaks off for one, and half a call for a call."""
    is_whole = False
    async for together in told:
        for data in together:
            if data.startswith(DONE):
                is_whole = True
                continue
            chunk = read(data, dict[str, Any])
            if error := chunk.get("error"):
                raise given_up(error.get("code") if isinstance(error, dict) else None)
            reasons = {choice.get("finish_reason") for choice in chunk.get("choices") or []}
            if "length" in reasons:
                raise cut_short()
            is_whole = is_whole or any(reasons)
            yield ChatCompletionChunk.model_construct(**chunk)
    if not is_whole:
        raise broken_off()
