"""OpenAI's Chat Completions API: encodes requests and decodes answers.

Most servers that are not OpenAI's have this API, with differences: reasoning that must be sent back, signatures, tool
calls in pieces. `completion_chunks` makes the chunks uniform, and the converters of the Agents SDK do the translation.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from agents import Tool, TResponseInputItem
from openai import AsyncStream
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from latchkey.domain.assistant import NO_OPTIONS, ModelOptions
from latchkey.domain.errors import Failure
from latchkey.infrastructure.agents.openai.agents_sdk import FAKE_RESPONSES_ID, ChatCmplStreamHandler, Converter
from latchkey.infrastructure.agents.openai.completion_chunks import ChatAnswer
from latchkey.infrastructure.agents.openai.model import (
    CompletedResponse,
    ModelEvent,
    ParagraphBreak,
    TextEvent,
    encode_json,
)

END_WAIT_S = 2.0
"""How long to wait for the usage and for `[DONE]` after the server has said why the answer ends: some never close."""


class ChatCompletionsApi:
    """`is_openai` means that the server is OpenAI's own: others refuse fields that only OpenAI knows.

    `options` are sent where they are set; `model` stands for `options.model`.
    """

    path = "chat/completions"

    def __init__(self, model: str, options: ModelOptions = NO_OPTIONS, *, is_openai: bool) -> None:
        self._model = model
        self._options = options
        self._is_openai = is_openai

    def encode_request(
        self, instructions: str | None, conversation: list[TResponseInputItem], tools: list[Tool]
    ) -> bytes:
        messages: list[Any] = [{"role": "system", "content": instructions}] if instructions else []
        request: dict[str, Any] = {
            "model": self._model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": messages + Converter.items_to_messages(conversation, model=self._model),
        }
        if self._is_openai:
            request["store"] = False
        if self._options != NO_OPTIONS:
            request |= self._chosen_options()
        if tools:
            request["tools"] = [self._tool_definition(tool) for tool in tools]
            request["parallel_tool_calls"] = False
        return encode_json(request)

    def _chosen_options(self) -> dict[str, Any]:
        """OpenAI's models that reason refuse `max_tokens`; many other servers know no other name."""
        options = {
            "temperature": self._options.temperature,
            "max_completion_tokens" if self._is_openai else "max_tokens": self._options.max_output_tokens,
            "reasoning_effort": self._options.reasoning_effort,
        }
        return {name: value for name, value in options.items() if value is not None}

    async def decode_events(self, chunks: AsyncIterator[list[bytes]]) -> AsyncGenerator[list[ModelEvent], None]:
        answer = ChatAnswer()
        completion_chunks = cast("AsyncStream[ChatCompletionChunk]", _completion_chunks(chunks, answer))
        stream = ChatCmplStreamHandler.handle_stream(self._empty_response(), completion_chunks, model=self._model)
        try:
            async with aclosing(stream) as events:  # type: ignore[type-var]
                async for event in events:
                    yield _model_events(event, answer)
        except Failure as failure:
            yield [*([answer.model_call] if answer.usage else []), failure]

    def _tool_definition(self, tool: Tool) -> Any:
        definition: Any = Converter.tool_to_openai(tool)
        if not self._is_openai:
            definition["function"].pop("strict", None)
        return definition

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


def _model_events(event: ResponseStreamEvent, answer: ChatAnswer) -> list[ModelEvent]:
    match event.type:
        case "response.output_text.delta" | "response.refusal.delta":
            return [TextEvent(event.delta)]
        case "response.output_item.added":
            return [ParagraphBreak()]
        case "response.completed":
            response = event.response
            return [answer.model_call, CompletedResponse(response.output, response.output_text)]
    return []


async def _completion_chunks(
    chunks: AsyncIterator[list[bytes]], answer: ChatAnswer
) -> AsyncGenerator[ChatCompletionChunk, None]:
    """Add all events to the answer, and yield what the SDK needs of it. The tool calls come last."""
    while (events := await _next_events(chunks, answer)) is not None:
        for data in events:
            if chunk := answer.add(data):
                yield chunk
    if chunk := answer.end():
        yield chunk


async def _next_events(chunks: AsyncIterator[list[bytes]], answer: ChatAnswer) -> list[bytes] | None:
    """The next events; None at the end. A finished answer stays one if the connection hangs or is lost after it."""
    if answer.is_done:
        return None
    if not answer.is_finished:
        return await anext(chunks, None)
    try:
        async with asyncio.timeout(END_WAIT_S):
            return await anext(chunks, None)
    except (TimeoutError, Failure):
        return None
