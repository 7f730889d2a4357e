"""What this service offers: the built-in app, and the app of the team."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Self

from litestar import Controller
from msgspec import Struct

from latchkey.app import App, AppError, load, place_of
from latchkey.application.access import name_of, permission_of
from latchkey.application.artifacts import get_artifact, list_artifacts, save_artifact
from latchkey.application.tasks import add_task, complete_task, delete_task, list_tasks, update_task
from latchkey.config import BUILT_IN_AGENTS, Settings
from latchkey.domain.assistant import Assistant
from latchkey.domain.credentials import BUILT_IN_GRANTS, MAX_GRANTS, Grant, RegisteredGrants
from latchkey.domain.ports import AgentFactory
from latchkey.infrastructure.database.app_schema import NO_APP, AppSchema
from latchkey.infrastructure.database.schema import metadata
from latchkey.interfaces.http.frontends.ag_ui.routes import AgUiController
from latchkey.interfaces.http.frontends.ai_sdk.routes import AiSdkController
from latchkey.interfaces.http.frontends.openai.conversations import OpenAIConversationController
from latchkey.interfaces.http.frontends.openai.models import OpenAIModelController
from latchkey.interfaces.http.frontends.openai.responses import OpenAIResponseController
from latchkey.interfaces.http.routes.approvals import ApprovalController
from latchkey.interfaces.http.routes.artifacts import ArtifactController
from latchkey.interfaces.http.routes.context_tokens import ContextTokenController
from latchkey.interfaces.http.routes.conversations import ConversationController
from latchkey.interfaces.http.routes.tasks import TaskController
from latchkey.interfaces.http.routes.turns import TurnController
from latchkey.interfaces.mcp.tools import Tool, create_tools
from latchkey.notes.app import notes

_TASKS_AND_ARTIFACTS = App(
    name="latchkey",
    tools=[
        add_task,
        list_tasks,
        complete_task,
        delete_task,
        update_task,
        save_artifact,
        list_artifacts,
        get_artifact,
    ],
    grants=BUILT_IN_GRANTS,
    controllers=[
        ConversationController,
        TurnController,
        ApprovalController,
        TaskController,
        ArtifactController,
        ContextTokenController,
        OpenAIResponseController,
        OpenAIConversationController,
        OpenAIModelController,
        AiSdkController,
        AgUiController,
    ],
)


BUILT_IN = (_TASKS_AND_ARTIFACTS, notes)
"""The apps that every service has."""


class Registry(Struct, frozen=True, eq=False):
    """Everything that the apps of a service register. `schema` has the tables of all apps."""

    tools: dict[str, Tool]
    grants: RegisteredGrants
    controllers: tuple[type[Controller], ...]
    agents: Mapping[str, AgentFactory]
    assistants: tuple[Assistant, ...]
    schema: AppSchema

    @classmethod
    def of(cls, *apps: App) -> Self:
        """Merge the apps. Raises `AppError` for names that two of them use, and for grants that none registers."""
        grants = list(chain.from_iterable(app.grants for app in apps))
        functions = list(chain.from_iterable(app.tools for app in apps))
        if faults := list(chain(_duplicates(apps), _grant_faults(functions, grants))):
            raise AppError(*faults)
        schemas = [app.schema for app in apps]
        return cls(
            tools=create_tools(functions),
            grants=RegisteredGrants(tuple(Grant(grant) for grant in sorted(grants))),
            controllers=tuple(chain.from_iterable(app.controllers for app in apps)),
            agents={name: factory for app in apps for name, factory in app.agents.items()},
            assistants=tuple(chain.from_iterable(app.assistants for app in apps)),
            schema=AppSchema(
                entities=tuple(chain.from_iterable(schema.entities for schema in schemas)),
                reference_tables=tuple(chain.from_iterable(schema.reference_tables for schema in schemas)),
                migrations=next((schema.migrations for schema in schemas if schema.migrations), None),
            ),
        )

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Load the app that the settings name, if any. Raises `AppError`."""
        return cls.of(*BUILT_IN) if settings.app is None else cls.of(*BUILT_IN, load(settings.app))


def read_app_schema(settings: Settings, *, needs_migrations: bool = True) -> AppSchema:
    """Return the tables of the app that the settings name, without those of the built-in apps.

    Raises `AppError`, also if the folder of its migrations does not exist and they are needed.
    """
    if settings.app is None:
        return NO_APP
    app = load(settings.app, needs_migrations=needs_migrations)
    Registry.of(*BUILT_IN, app)
    return app.schema


def _duplicates(apps: Iterable[App]) -> Iterator[str]:
    schemas = [app.schema for app in apps]
    tables = [table.name for schema in schemas for table in (*schema.entities, *schema.reference_tables)]
    named: dict[str, list[tuple[str, Any]]] = {
        "tool": [(name_of(tool), tool) for app in apps for tool in app.tools],
        "grant": [(grant, grant) for app in apps for grant in app.grants],
        "agent": [
            *((name, name) for name in BUILT_IN_AGENTS),
            *((name, factory) for app in apps for name, factory in app.agents.items()),
        ],
        "table": [(name, name) for name in [*metadata.tables, *tables]],
    }
    for kind, items in named.items():
        seen: dict[str, Any] = {}
        for name, item in items:
            if name in seen:
                place = place_of(item, "LATCHKEY_APP") if callable(item) else "LATCHKEY_APP"
                other = f", the other one at {place_of(seen[name])}" if callable(seen[name]) else ""
                yield f"{place}: there are two {kind}s `{name}`{other}: rename one of them"
            seen[name] = item


def _grant_faults(functions: Iterable[Any], grants: list[str]) -> Iterator[str]:
    if len(grants) > MAX_GRANTS:
        yield f"LATCHKEY_APP: there are {len(grants)} grants, and at most {MAX_GRANTS} can be registered"
    for function in functions:
        if (grant := permission_of(function).grant) not in grants:
            yield (
                f"{place_of(function)}: the tool `{name_of(function)}` needs the grant {grant!r}, which nobody has"
                " registered: add it to `grants` of the app"
            )
