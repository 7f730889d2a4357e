"""A model that does as it is told, by anybody: whatever text it is shown, if that has a word in it that it knows."""

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from tests.fakes.model_script import Answer, Step, calls, says
from tests.fakes.model_server import ModelServer


class ObedientModel(deque[Step]):
    """Takes a script's place. Each order is carried out once, in a request of its own, when its word has been seen."""

    def __init__(self, model: ModelServer, orders: Mapping[str, Step]) -> None:
        super().__init__([says("Done.")])
        self._model = model
        self._orders = dict(orders)
        self.obeyed: list[str] = []

    def popleft(self) -> Step:
        shown = json.dumps(self._model.requests[-1].body)
        heard = next((word for word in self._orders if word in shown), None)
        if heard is None:
            return says("Done.")
        self.obeyed.append(heard)
        return self._orders.pop(heard)


def tool_call(tool: str, **arguments: Any) -> Answer:
    return calls((tool, json.dumps(arguments)))
