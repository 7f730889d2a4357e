"""Normalizes the chunks of a Chat Completions answer for the Agents SDK.

Servers number and name the parts of an answer in many ways. The SDK expects those of OpenAI: one choice with index 0,
and tool calls with an index, an id and arguments as text.
"""

from typing import Any

from msgspec import Struct
from openai.types.chat import ChatCompletionChunk

from latchkey.domain.agent import ModelCall
from latchkey.domain.errors import Failure
from latchkey.domain.turn import Usage
from latchkey.infrastructure.agents.model_failures import (
    aborted_answer,
    incomplete_answer,
    malformed_answer,
    truncated_answer,
    withheld_answer,
)
from latchkey.infrastructure.agents.openai.model import (
    argument_text,
    cached_tokens_of,
    decode_json,
    is_end,
    text_of,
    usage_of,
)
from latchkey.infrastructure.agents.openai.server_errors import error_event, is_error
from latchkey.infrastructure.agents.toolset import parse_object
from latchkey.infrastructure.agents.turn_tasks import model_name

_CALL_REASONS = {"tool_calls", "tool_call", "tool_use", "function_call"}
_WHOLE = _CALL_REASONS | {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed"}
_TRUNCATED = {"length", "max_tokens", "model_length", "max_output_tokens", "context_length"}
_WITHHELD = {"content_filter", "safety", "recitation", "refusal"}


class _PartialCall(Struct):
    """A tool call whose parts arrive in several chunks. The id is None until the server sends a usable one."""

    index: int | None
    id: str | None = None
    name: str = ""
    arguments: str = ""
    extra: dict[str, Any] = {}
    is_cumulative: bool = False

    @property
    def is_whole(self) -> bool:
        return bool(self.arguments.strip()) and parse_object(self.arguments) is not None

    @property
    def delta(self) -> dict[str, Any]:
        return {
            "id": self.id or "",
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
            **self.extra,
        }

    def add(self, part: "_PartialCall") -> None:
        """Join the next part of this call."""
        self.id = self.id or part.id
        self.extra = {**self.extra, **part.extra}
        if part.name and part.name != self.name:
            self.name = part.name if part.name.startswith(self.name) else self.name + part.name
        self._add_arguments(part.arguments)

    def _add_arguments(self, text: str) -> None:
        """Append the next piece of the arguments; some servers repeat all earlier pieces before it."""
        repeats_all = self.arguments.startswith("{") and text.startswith(self.arguments)
        if repeats_all and len(text) > len(self.arguments) and not self.is_whole:
            self.arguments, self.is_cumulative = text, True
        elif not (self.is_cumulative and text == self.arguments):
            self.arguments += text


class ChatAnswer:
    """One answer while its chunks arrive. `usage` and `model` are None until the server reports them."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model: object = None
        self._cached_tokens = 0
        self.is_done = False
        self._has_text = False
        self._calls: list[_PartialCall] = []
        self._choice: int | None = None
        self._only_choice: int | None = None
        self._reason: str | None = None
        self._goes_on_after_reason = False
        self._last_chunk: dict[str, Any] = {}

    @property
    def model_call(self) -> ModelCall:
        return ModelCall(self.usage or Usage(1), model_name(self.model), self._cached_tokens)

    @property
    def is_finished(self) -> bool:
        """Whether the server has said why the answer ends. The usage may still arrive."""
        return self._reason is not None

    def add(self, data: bytes) -> ChatCompletionChunk | None:
        """Add the data of one event, and return the text in it for the SDK. Raises the failure that it reports."""
        self.is_done = self.is_done or is_end(data)
        chunk = None if self.is_done else decode_json(data, object)
        if any(isinstance(part, dict) and is_error(part) for part in _listed(chunk)):
            raise error_event(chunk)
        if not isinstance(chunk, dict):
            return None
        if usage := usage_of(chunk.get("usage")):
            self.usage, self._cached_tokens = usage, cached_tokens_of(chunk["usage"])
        self.model = chunk.get("model") or self.model
        choice = self._select_choice(chunk.get("choices"))
        return self._add_choice(chunk, choice) if choice else None

    def end(self) -> ChatCompletionChunk | None:
        """Check that the answer is whole, and return its tool calls for the SDK.

        Raises the failure of an answer that was broken off, or whose tool call was lost.
        """
        if failure := self._failure():
            raise failure
        if not all(call.name for call in self._calls):
            raise malformed_answer()
        if not self._calls:
            if self._reason in _CALL_REASONS:
                raise malformed_answer()
            return None
        return self._sdk_chunk({"tool_calls": [{"index": i, **call.delta} for i, call in enumerate(self._calls)]})

    def _failure(self) -> Failure | None:
        reason = self._reason
        if reason is None or (self._goes_on_after_reason and reason in _WHOLE):
            return None if self.is_done else incomplete_answer()
        if reason in _WHOLE:
            return None
        if reason in _TRUNCATED:
            return truncated_answer()
        return withheld_answer() if reason in _WITHHELD else aborted_answer()

    def _select_choice(self, choices: Any) -> dict[str, Any] | None:
        """The choice that goes on with the answer. One is requested, but some servers number its parts differently.

        Raises the failure of a server that sends several answers in turn: their texts cannot be told apart.
        """
        listed = [choice for choice in _listed(choices) if isinstance(choice, dict)]
        if self._only_choice is not None:
            listed = [choice for choice in listed if choice.get("index") == self._only_choice]
        if not listed:
            return None
        choice, index = listed[0], listed[0].get("index")
        if len(listed) > 1 and isinstance(index, int):
            self._only_choice = index
        if isinstance(index, int):
            if self._choice is not None and index < self._choice:
                raise malformed_answer()
            if self._reason is not None and self._choice is not None and index > self._choice:
                return None
            self._choice = index
        return choice

    def _add_choice(self, chunk: dict[str, Any], choice: dict[str, Any]) -> ChatCompletionChunk | None:
        delta = choice.get("delta")
        if not isinstance(delta, dict) and not self._has_text and not self._calls:
            delta = choice.get("message") or {"content": choice.get("text")}
        if not isinstance(delta, dict):
            delta = {}
        self._last_chunk = chunk
        calls_before = len(self._calls), sum(len(call.arguments) for call in self._calls)
        self._add_calls(delta)
        text: dict[str, Any] = {
            "content": text_of(delta.get("content")),
            "refusal": text_of(delta.get("refusal")),
            **{name: value for name in ("reasoning_content", "reasoning") if isinstance(value := delta.get(name), str)},
        }
        if isinstance(blocks := delta.get("thinking_blocks"), list):
            text["thinking_blocks"] = blocks
        goes_on = text["content"] or calls_before != (len(self._calls), sum(len(c.arguments) for c in self._calls))
        self._goes_on_after_reason = self._goes_on_after_reason or bool(goes_on and self._reason)
        self._has_text = self._has_text or bool(text["content"] or text["refusal"])
        self._add_reason(choice)
        present = {name: value for name, value in text.items() if value}
        return self._sdk_chunk(present) if present else None

    def _add_reason(self, choice: dict[str, Any]) -> None:
        reason = choice.get("finish_reason")
        if not reason or (self._reason is not None and self._reason not in _WHOLE):
            return
        reason = str(reason).lower()
        if not (reason in _WHOLE and self._reason in _CALL_REASONS):
            self._reason = reason

    def _add_calls(self, delta: dict[str, Any]) -> None:
        for call in _listed(delta.get("tool_calls")):
            if isinstance(call, dict):
                self._add_call(_partial_call(call))
        if isinstance(function := delta.get("function_call"), dict):
            self._add_call(_partial_call({"function": function}))

    def _add_call(self, part: _PartialCall) -> None:
        call = self._find_call(part)
        if call is None:
            self._calls.append(part)
        elif not _is_repeated(call, part):
            call.add(part)

    def _find_call(self, part: _PartialCall) -> _PartialCall | None:
        """The call that this part continues; None if it begins another one."""
        newest_first = self._calls[::-1]
        same_index = next((call for call in newest_first if part.index is not None and call.index == part.index), None)
        same_id = next((call for call in newest_first if part.id and call.id == part.id), None)
        call = same_index or same_id or next(iter(newest_first), None)
        if call is None:
            return None
        has_own_index = part.index is not None and same_index is None and call.index is not None
        return call if _continues(call, part, has_own_index=has_own_index) else None

    def _sdk_chunk(self, delta: dict[str, Any]) -> ChatCompletionChunk:
        own_id = self._last_chunk.get("id")
        return ChatCompletionChunk.model_construct(
            id=own_id if isinstance(own_id, str) else "",
            object="chat.completion.chunk",
            choices=[{"index": 0, "delta": delta, "finish_reason": None}],
        )


def _continues(call: _PartialCall, part: _PartialCall, *, has_own_index: bool) -> bool:
    """Whether a part continues that call.

    Indexes, ids and names can be missing, repeated in each part, or different in each part. Whole arguments show that
    a call has ended; text that begins an object shows that the next one has begun.
    """
    has_other_id = bool(part.id and call.id and part.id != call.id)
    begins_object = part.arguments.lstrip().startswith("{")
    if not part.name:
        return not has_other_id or not call.is_whole or not part.arguments.strip()
    if _is_repeated(call, part) and not has_own_index:
        return True
    if call.is_whole:
        is_empty_repetition = part.name == call.name and not part.arguments.strip() and not has_other_id
        return is_empty_repetition and not has_own_index
    if has_own_index or has_other_id:
        is_same_name = part.name == call.name and (call.arguments or not has_own_index)
        return bool(
            is_same_name and (not has_own_index or part.id == call.id) and not (call.arguments and begins_object)
        )
    if call.arguments:
        return not begins_object or part.arguments.startswith(call.arguments)
    return part.name == call.name or not call.name or part.index is not None


def _is_repeated(call: _PartialCall, part: _PartialCall) -> bool:
    """Whether the server sends a whole call once more, under the same id."""
    is_same = part.name == call.name and part.arguments == call.arguments
    return bool(part.id and part.id == call.id and is_same and call.is_whole)


def _partial_call(call: dict[str, Any]) -> _PartialCall:
    function = call.get("function")
    if not isinstance(function, dict):
        function = call
    index, call_id, name = call.get("index"), call.get("id"), function.get("name")
    if isinstance(index, str) and index.isdecimal():
        index = int(index)
    extra = {key: call[key] for key in ("extra_content", "provider_specific_fields") if isinstance(call.get(key), dict)}
    return _PartialCall(
        index=index if isinstance(index, int) else None,
        id=str(call_id) if isinstance(call_id, str | int) and call_id != "" else None,
        name=name if isinstance(name, str) else "",
        arguments=argument_text(function.get("arguments")),
        extra=extra,
    )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
