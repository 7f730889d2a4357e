"""OpenAI's Chat Completions API: encodes requests and decodes answers.

Most servers that are not OpenAI's have this API, with differences: reasoning that must be sent back, signatures, tool
calls in pieces. The Agents SDK knows these differences, so its converters do the translation.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from agents import Tool, TResponseInputItem
from openai import AsyncStream
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.model_failures import incomplete_answer, truncated_answer
from latchkey.infrastructure.agents.openai.agents_sdk import FAKE_RESPONSES_ID, ChatCmplStreamHandler, Converter
from latchkey.infrastructure.agents.openai.model import (
    DONE,
    CompletedResponse,
    ModelEvent,
    ParagraphBreak,
    TextEvent,
    decode_json,
    encode_json,
)
from latchkey.infrastructure.agents.openai.model_client import error_event


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
        return encode_json(request)

    async def decode_events(self, chunks: AsyncIterator[list[bytes]]) -> AsyncGenerator[list[ModelEvent], None]:
        completion_chunks = cast("AsyncStream[ChatCompletionChunk]", _completion_chunks(chunks))
        stream = ChatCmplStreamHandler.handle_stream(self._empty_response(), completion_chunks, model=self._model)
        async with aclosing(stream) as events:  # type: ignore[type-var]
            async for event in events:
                yield _model_events(event)

    def _empty_response(self) -> Response:
        """The response that the SDK fills."""
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


def _model_events(event: ResponseStreamEvent) -> list[ModelEvent]:
    match event.type:
        case "response.output_text.delta" | "response.refusal.delta":
            return [TextEvent(event.delta)]
        case "response.output_item.added":
            return [ParagraphBreak()]
        case "response.completed":
            response = event.response
            tokens = response.usage
            usage = Usage(1, tokens.input_tokens, tokens.output_tokens) if tokens else Usage(1)
            return [usage, CompletedResponse(response.output, response.output_text)]
    return []


async def _completion_chunks(chunks: AsyncIterator[list[bytes]]) -> AsyncGenerator[ChatCompletionChunk, None]:
    """Decode and check the chunks for the SDK, which would accept an incomplete stream and an incomplete tool call."""
    is_complete = False
    async for events in chunks:
        for data in events:
            if data.startswith(DONE):
                is_complete = True
                continue
            chunk = decode_json(data, dict[str, Any])
            if error := chunk.get("error"):
                raise error_event(error.get("code") if isinstance(error, dict) else None)
            reasons = {choice.get("finish_reason") for choice in chunk.get("choices") or []}
            if "length" in reasons:
                raise truncated_answer()
            is_complete = is_complete or any(reasons)
            yield ChatCompletionChunk.model_construct(**chunk)
    if not is_complete:
        raise incomplete_answer()
