"""An OpenAI client that sends what it is given as it is, and looks no closer at an answer than is needed.

The stock client matches each item of a conversation and each tool with every type that it knows, on every
request, to rename fields that have no other name: most of the CPU of a turn. What goes into `extra_body` is
left alone. It does the same with each event of a stream, which is a tenth of a turn without history.
"""

from collections.abc import Mapping
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from openai import AsyncOpenAI, omit
from openai.resources.chat import AsyncChat, AsyncCompletions
from openai.resources.responses import AsyncResponses

_LAST_EVENTS = {"response.completed", "response.failed", "response.incomplete", "response.error"}


class PlainResponses(AsyncResponses):
    async def create(self, **request: Any) -> Any:
        conversation = [_unstored(item) for item in request["input"] if item.get("type") != "reasoning"]
        return await super().create(**_moved(request | {"input": conversation}, "input", "tools"))


class PlainCompletions(AsyncCompletions):
    async def create(self, **request: Any) -> Any:
        return await super().create(**_moved(request, "tools", "messages") | {"messages": []})


class PlainChat(AsyncChat):
    @cached_property
    def completions(self) -> PlainCompletions:
        return PlainCompletions(self._client)


class PlainClient(AsyncOpenAI):
    def _process_response_data(self, *, data: object, **how: Any) -> Any:
        """The whole answer, which comes last, is checked; what leads up to it is only told."""
        kind = data.get("type") if isinstance(data, Mapping) else None
        if isinstance(data, Mapping) and str(kind).startswith("response.") and kind not in _LAST_EVENTS:
            return SimpleNamespace(**data)
        return super()._process_response_data(data=data, **how)

    @cached_property
    def responses(self) -> PlainResponses:
        return PlainResponses(self)

    @cached_property
    def chat(self) -> PlainChat:
        return PlainChat(self)


def _unstored(item: dict[str, Any]) -> dict[str, Any]:
    """An item of the conversation without its id: nothing is stored there (`store=False`) that it could refer to.

    For the same reason a model's reasoning is not sent back: the server would look it up by its id.
    """
    return {name: value for name, value in item.items() if name != "id"}


def _moved(request: dict[str, Any], *names: str) -> dict[str, Any]:
    moved = {name: request[name] for name in names if request.get(name, omit) is not omit}
    return request | dict.fromkeys(moved, omit) | {"extra_body": (request.get("extra_body") or {}) | moved}
