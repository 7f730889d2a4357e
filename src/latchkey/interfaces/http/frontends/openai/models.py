"""Models of OpenAI's API: an assistant is a model."""

from typing import Any

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from latchkey.application.turns.runner import TurnRunner
from latchkey.domain.errors import NotFound
from latchkey.interfaces.http.frontends.openai.objects import MODEL, model_object
from latchkey.interfaces.http.guards import LENIENT


class OpenAIModelController(Controller):
    path = "/openai/v1/models"
    include_in_schema = False
    opt = LENIENT

    @get()
    async def list_models(self, runner: NamedDependency[TurnRunner]) -> dict[str, Any]:
        """List `latchkey` and the assistants."""
        return {"object": "list", "data": [model_object(name) for name in _names(runner)]}

    @get("/{model:str}")
    async def get_model(self, runner: NamedDependency[TurnRunner], model: FromPath[str]) -> dict[str, Any]:
        """Show one model."""
        if model not in _names(runner):
            raise NotFound.of("model")
        return model_object(model)


def _names(runner: TurnRunner) -> list[str]:
    return list(dict.fromkeys([MODEL, *sorted(runner.profiles.chat)]))
