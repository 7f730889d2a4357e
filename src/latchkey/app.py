"""`App`: what a team adds to the service. How an app is loaded, and how its faults are found."""

import ast
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, get_type_hints

from litestar import Controller
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Table

from latchkey.application.access import declaration_of, permission_of
from latchkey.config import ConfigurationError
from latchkey.domain.assistant import Assistant
from latchkey.domain.credentials import GRANT_PATTERN
from latchkey.domain.ports import AgentFactory, ToolCallContext, UnitOfWork
from latchkey.infrastructure.database.app_schema import AppSchema
from latchkey.infrastructure.database.entity import check_entity_table
from latchkey.infrastructure.database.sql.tenant_guard import is_reference_table
from latchkey.interfaces.mcp.tools import ToolBinding

_MAX_NAME_CHARS = 64


class AppError(ConfigurationError):
    """The app cannot be used. The text has, for each fault, the file, the line and the cure."""

    title = "The app cannot be used:"


class App(Struct, frozen=True, eq=False, kw_only=True):
    """What a team adds to the service.

    - `name`: the name of the app, for messages.
    - `tools`: async functions that are declared with `tool`.
    - `grants`: `NOUN:read` and `NOUN:write`, which the app's tools and controllers need, and context tokens can carry.
    - `entities`: classes derived from `Entity`, or tables made with `entity_table`: each row belongs to a user.
    - `reference_tables`: tables made with `reference_table`: every user may read them.
    - `controllers`: Litestar controllers, which are served below `/api/{user_id}/`.
    - `agents`: factories of agents by name, for `LATCHKEY_AGENT` and assistants.
    - `assistants`: see `Assistant`.
    - `migrations`: the folder of the Alembic revisions that create the tables, relative to the module of the app.
    """

    name: str
    tools: Sequence[Callable[..., Any]] = ()
    grants: Sequence[str] = ()
    entities: Sequence[Any] = ()
    reference_tables: Sequence[Table] = ()
    controllers: Sequence[type[Controller]] = ()
    agents: Mapping[str, AgentFactory] = {}
    assistants: Sequence[Assistant] = ()
    migrations: Path | str | None = None

    @property
    def schema(self) -> AppSchema:
        """The tables and the migrations of the app."""
        tables = tuple(getattr(entity, "__table__", entity) for entity in self.entities)
        return AppSchema(tables, tuple(self.reference_tables), Path(self.migrations) if self.migrations else None)

    def faults(self, place: str) -> Iterator[str]:
        """Yield what is wrong with the app by itself. `place` is the file and line that define the app."""
        for item in [
            *self.grants,
            *self.agents.items(),
            *self.controllers,
            *self.reference_tables,
            *self.assistants,
        ]:
            if fault := _item_fault(item):
                yield f"{place}: {fault}"
        for function in self.tools:
            yield from (f"{place_of(function)}: {fault}" for fault in _tool_faults(function, self.grants))
        for entity in self.entities:
            yield from (f"{place_of(entity, place)}: {fault}" for fault in _entity_faults(entity))


def load(path: str, *, needs_migrations: bool = True) -> App:
    """Import `module:attribute`, with the current folder first in the search path, and return the app.

    Raises `AppError`, with the file and the line, if the import fails or finds no `App`, or for the app's own faults.
    One of them is that the app has tables and its folder of migrations does not exist, if `needs_migrations`.
    """
    module_name, _, attribute = path.partition(":")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise AppError(f"{_last_place(error, path)}: {type(error).__name__}: {error}") from error
    app = getattr(module, attribute, None)
    place = _definition_of(module, attribute)
    if not isinstance(app, App):
        raise AppError(f"{place}: LATCHKEY_APP is {path}, and `{attribute}` is no `App`: write `{attribute} = App(…)`")
    if app.migrations is not None:
        app = replace(app, migrations=_file_of(module).parent / app.migrations)
    faults = [*app.faults(place), *_unlisted_tables(module, app.schema)]
    if needs_migrations and (fault := _folder_fault(app.schema)):
        faults.append(f"{place}: {fault}")
    if faults:
        raise AppError(*faults)
    return app


def place_of(defined: Any, default: str = "") -> str:
    """Return the file and the line that define a function or a class, else the default."""
    if isinstance(code := getattr(inspect.unwrap(getattr(defined, "func", defined)), "__code__", None), CodeType):
        return f"{shown_path(code.co_filename)}:{code.co_firstlineno}"
    with suppress(TypeError, OSError):
        return f"{shown_path(inspect.getfile(defined))}:{inspect.getsourcelines(defined)[1]}"
    return default or repr(defined)


def _item_fault(item: Any) -> str | None:
    match item:
        case str():
            is_grant = GRANT_PATTERN.fullmatch(item)
            return (
                None if is_grant else f"the grant {item!r} must be `NOUN:read` or `NOUN:write`, NOUN in small letters"
            )
        case (name, factory):
            is_agent = name.isidentifier() and callable(factory)
            return None if is_agent else f"the agent {name!r} must have an identifier as its name, and a factory"
        case Table():
            is_shared = "user_id" not in item.c
            return None if is_shared else f"the reference table `{item.name}` must not have a column `user_id`"
        case Assistant():
            return None
        case type() if issubclass(item, Controller):
            return None
    return f"{item!r} is neither a Litestar controller, nor a reference table, nor an assistant"


def _folder_fault(schema: AppSchema) -> str | None:
    folder = schema.migrations
    if folder is None or folder.is_dir() or not schema.table_names:
        return None
    return (
        f"the folder {shown_path(str(folder))}, which is `migrations` of the app, does not exist: correct its name, or"
        " run `latchkey revision`, which makes it"
    )


def _tool_faults(function: Callable[..., Any], registered: Sequence[str]) -> Iterator[str]:
    name = getattr(function, "__name__", repr(function))
    try:
        declaration, permission = declaration_of(function), permission_of(function)
        binding = ToolBinding.of(function)
        first = next(iter(get_type_hints(inspect.unwrap(getattr(function, "func", function))).values()), None)
    except (TypeError, NameError) as error:
        yield f"the tool `{name}` cannot be offered: {error}"
        return
    if not (first is UnitOfWork or (isinstance(first, type) and issubclass(first, ToolCallContext))):
        yield f"the tool `{name}` must have a `UnitOfWork` or a `ToolContext` as its first parameter, with annotation"
    if not binding.description:
        yield f"the tool `{name}` has no docstring: models read it to choose a tool"
    if not declaration.title.strip():
        yield f"the tool `{name}` has no title: people read it"
    if declaration.options.get("timeout_s", 1) <= 0:
        yield f"the tool `{name}` must have a positive `timeout_s`, in seconds"
    if len(binding.name) > _MAX_NAME_CHARS:
        yield f"the tool `{name}` must have a name of at most {_MAX_NAME_CHARS} characters"
    if permission.grant in registered:
        return  # its form is checked there
    if permission.grant is None or not GRANT_PATTERN.fullmatch(permission.grant):
        yield f"the tool `{name}` needs the grant {permission.grant!r}: it must be `NOUN:read` or `NOUN:write`"


def _entity_faults(entity: Any) -> Iterator[str]:
    table = getattr(entity, "__table__", entity)
    if not isinstance(table, Table):
        yield f"{entity!r} is no entity: derive it from `Entity`, or make it with `entity_table`"
        return
    try:
        check_entity_table(table)
    except ValueError as error:
        yield str(error)


def _unlisted_tables(module: ModuleType, schema: AppSchema) -> Iterator[str]:
    """Yield a fault for each table that the app's modules define and the app does not list: nothing would check it."""
    known = {id(table) for table in (*schema.entities, *schema.reference_tables)}
    values = [(each, name, value) for each in _modules_of(module) for name, value in vars(each).items()]
    for each, name, value in sorted(values, key=lambda item: not isinstance(item[2], type)):
        table = _table_of(value)
        if table is None or id(table) in known or (isinstance(value, type) and value.__module__ != each.__name__):
            continue
        known.add(id(table))
        place = place_of(value) if isinstance(value, type) else _definition_of(each, name)
        argument = "reference_tables" if is_reference_table(table) else "entities"
        yield f"{place}: `{name}` uses the table `{table.name}`, which is not in `{argument}` of the app: add it"


def _table_of(value: Any) -> Table | None:
    """Return the table that was made with `entity_table` or `reference_table`, or that an entity or repository has."""
    if isinstance(value, type):
        names = ("__table__", "table", "model_type")
        value = next((found for name in names if (found := getattr(value, name, None)) is not None), None)
        value = getattr(value, "__table__", value)
        return value if isinstance(value, Table) else None
    return value if isinstance(value, Table) and "latchkey" in value.info else None


def _modules_of(module: ModuleType) -> list[ModuleType]:
    """Return the module, and those of its package that it imports from, directly or not."""
    package = module.__name__.partition(".")[0]
    modules = [module]
    for each in modules:  # grows meanwhile
        for value in list(vars(each).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            found = sys.modules.get(name) if isinstance(name, str) and name.partition(".")[0] == package else None
            if found is not None and found not in modules:
                modules.append(found)
    return modules


def _file_of(module: ModuleType) -> Path:
    """Return the file of a module; its name if it has none."""
    return Path(getattr(module, "__file__", None) or module.__name__)


def _definition_of(module: ModuleType, attribute: str) -> str:
    """Return the file and the line that assign the attribute of a module, else its first line."""
    file = _file_of(module)
    with suppress(OSError, SyntaxError):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Name) and node.id == attribute and isinstance(node.ctx, ast.Store):
                return f"{shown_path(str(file))}:{node.lineno}"
    return f"{shown_path(str(file))}:1"


def _last_place(error: Exception, path: str) -> str:
    """Return the line of the team's code that the error comes from; `LATCHKEY_APP` if the module was not found."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown_path(error.filename)}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_file()]
    libraries = (Path(__file__).parent, Path(importlib.__file__).parent)
    own = [frame for frame in frames if not any(map(Path(frame.filename).is_relative_to, libraries))]
    return f"{shown_path(own[-1].filename)}:{own[-1].lineno}" if own else f"LATCHKEY_APP ({path})"


def shown_path(file: str) -> str:
    """Return the path relative to the current folder, if it is inside."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
