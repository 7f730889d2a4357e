"""What a model has said and called, as the Responses API has it at the end and the Agents SDK goes on with it."""

from typing import Any

import msgspec
from agents.items import TResponseOutputItem
from msgspec import Struct
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
)

from latchkey.infrastructure.agents.speech import storable
from latchkey.infrastructure.agents.wire import Answer

_PHASES = ("commentary", "final_answer")


class _Part(Struct):
    type: str
    text: str = ""
    refusal: str = ""

    @property
    def item(self) -> ResponseOutputText | ResponseOutputRefusal:
        if self.type == "refusal":
            return ResponseOutputRefusal(type="refusal", refusal=storable(self.refusal))
        return ResponseOutputText(type="output_text", text=storable(self.text), annotations=[])


class _Message(Struct):
    content: list[_Part]
    phase: Any = None

    @property
    def item(self) -> ResponseOutputMessage:
        content = [part.item for part in self.content]
        phase = {"phase": self.phase} if self.phase in _PHASES else {}
        return ResponseOutputMessage(
            type="message", id="", role="assistant", status="completed", content=content, **phase
        )


class _Call(Struct):
    call_id: str
    name: str
    arguments: str

    @property
    def item(self) -> ResponseFunctionToolCall:
        return ResponseFunctionToolCall(
            type="function_call", call_id=self.call_id, name=self.name, arguments=self.arguments, status="completed"
        )


def answer(output: list[dict[str, Any]]) -> Answer:
    """What was said and what is called; the rest, such as a model's reasoning, is the server's own affair."""
    items: list[TResponseOutputItem] = []
    text = ""
    for item in output:
        match item.get("type"):
            case "message":
                message = msgspec.convert(item, _Message)
                text += "".join(part.text for part in message.content)
                items.append(message.item)
            case "function_call":
                items.append(msgspec.convert(item, _Call).item)
    return Answer(items, text)
