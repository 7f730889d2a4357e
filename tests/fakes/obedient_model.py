"""A model that obeys any text that it receives: it makes a tool call as soon as it sees the call's trigger word."""

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from tests.fakes.model_script import Answer, Step, calls, says
from tests.fakes.model_server import ModelServer


class ObedientModel(deque[Step]):
    """Replaces a script. `orders` maps trigger words to steps; each step is taken once, when its word has been seen."""

    def __init__(self, model: ModelServer, orders: Mapping[str, Step]) -> None:
        super().__init__([says("Done.")])
        self._model = model
        self._orders = dict(orders)
        self.obeyed: list[str] = []

    def popleft(self) -> Step:
        text = json.dumps(self._model.requests[-1].body)
        word = next((word for word in self._orders if word in text), None)
        if word is None:
            return says("Done.")
        self.obeyed.append(word)
        return self._orders.pop(word)


def tool_call(tool: str, **arguments: Any) -> Answer:
    return calls((tool, json.dumps(arguments)))
