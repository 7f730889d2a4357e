"""A model that tells what it says and what it costs while it answers."""

import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from agents import Model, ModelResponse
from agents import Usage as ModelUsage
from openai.types.responses import Response, ResponseStreamEvent

from latchkey.domain.agent import AgentEvent, TextDelta
from latchkey.domain.errors import Failure, ModelBadResponse, ModelUnavailable, RateLimited
from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.model_failures import told_as_failures

MAX_ANSWER_CHARS = 1024 * 1024

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_MALFORMED = (ValueError, TypeError, AttributeError, LookupError)

Tell = Callable[[AgentEvent], Awaitable[None]]


class NarratedModel(Model):
    """Answers a whole response, as the runner wants it, and tells its text as it streams in. Made for one turn."""

    def __init__(self, model: Model, tell: Tell) -> None:
        self._model = model
        self._tell = tell
        self._size = 0
        self._has_spoken = False
        self._is_silent = True
        self._is_new_paragraph = False

    async def get_response(self, *request: Any, **options: Any) -> ModelResponse:
        """Raises the `TurnFailed` that says what is wrong with the model or its answer."""
        self._is_silent = self._is_new_paragraph = True
        with told_as_failures():
            try:
                response = await self._listen(*request, **options)
            except _MALFORMED as error:
                raise ModelBadResponse("The model's answer has an unknown shape.") from error
        return ModelResponse(output=response.output, usage=ModelUsage(), response_id=None)

    def stream_response(self, *request: Any, **options: Any) -> Any:
        """The model's own stream, of which nothing is told."""
        return self._model.stream_response(*request, **options)

    async def _listen(self, *request: Any, **options: Any) -> Response:
        answer: Response | None = None
        async with aclosing(self._model.stream_response(*request, **options)) as events:  # type: ignore[type-var]
            async for event in events:
                answer = await self._hear(event) or answer
        if answer is None:
            raise ModelBadResponse("The model's answer broke off before its end.")
        if self._is_silent:
            await self._say(answer.output_text)
        if self._is_silent and not any(item.type == "function_call" for item in answer.output):
            raise ModelBadResponse("The model answered nothing: no text and no tool call.")
        return answer

    async def _hear(self, event: ResponseStreamEvent) -> Response | None:
        match event.type:
            case "response.output_text.delta" | "response.refusal.delta":
                await self._say(event.delta)
            case "response.output_item.added":
                self._is_new_paragraph = True
            case "response.completed":
                await self._count(event.response)
                return event.response
            case "response.incomplete":
                await self._count(event.response)
                raise ModelBadResponse("The model's answer was cut short: it or the conversation is too long.")
            case "response.failed":
                await self._count(event.response)
                raise _failed(event.response.error.code if event.response.error else None)
            case "error":
                raise _failed(event.code)
        return None

    async def _say(self, text: str) -> None:
        if not text:
            return
        self._measure(text)
        if self._is_new_paragraph and self._has_spoken:
            await self._tell(TextDelta("\n\n"))
        self._is_silent = self._is_new_paragraph = False
        self._has_spoken = True
        await self._tell(TextDelta(_UNSTORABLE.sub("\ufffd", text)))

    def _measure(self, text: str) -> None:
        self._size += len(text)
        if self._size > MAX_ANSWER_CHARS:
            raise ModelBadResponse(f"The model's answer is longer than {MAX_ANSWER_CHARS} characters.")

    async def _count(self, response: Response) -> None:
        used = response.usage
        await self._tell(Usage(1, used.input_tokens, used.output_tokens) if used else Usage(1))


def _failed(code: str | None) -> Failure:
    if code == "rate_limit_exceeded":
        return RateLimited("The model's provider asks to slow down: try again later.")
    return ModelUnavailable("The model's server reported an error in the middle of its answer.")
