"""Reads the definitions of assistants from the operator's TOML file and from the app, and finds their faults."""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo, asdict, fields, replace

from latchkey.app import shown_path
from latchkey.application.turns.prompts import InvalidTemplate, PromptTemplate
from latchkey.bootstrap.agents import AgentSelection
from latchkey.bootstrap.registry import Registry
from latchkey.config import BUILT_IN_AGENTS, ConfigurationError, Settings
from latchkey.domain.assistant import CLAUDE_EFFORTS, Assistant

_FIELDS = {field.name: field for field in fields(Assistant)}
_QUOTES = ('"""', "'''")
_LINE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")

Place = Callable[[str | None, int], str]
"""Returns `FILE:LINE` of a key of one assistant, or of the assistant; the second argument is a line of its text."""
Fault = tuple[str | None, str]
"""The key that is wrong, None for the whole assistant, and what would be right."""


class AssistantsError(ConfigurationError):
    """The assistants cannot be used. The text has, for each fault, the file, the line and the cure."""

    title = "The assistants cannot be used:"


class _Definition(Struct, frozen=True):
    """One assistant as it was written: its values by key, where they are, and the folder of its files."""

    name: str
    values: dict[str, Any]
    place: Place
    folder: Path

    def fault(self, key: str | None, text: str, line: int = 1) -> str:
        subject = f"assistant.{self.name}" + (f".{key}" if key else "")
        return f"{self.place(key, line)}: {subject}: {text}"


def read_assistants(settings: Settings, registry: Registry) -> list[Assistant]:
    """Return all assistants, with the text of their instructions.

    Raises `AssistantsError` with all faults of the file and of the app.
    """
    faults: list[str] = []
    definitions = list(_of_app(settings, registry))
    if settings.assistants is not None:
        try:
            definitions += _of_file(settings.assistants)
        except AssistantsError as error:
            faults += error.faults
    assistants: dict[str, Assistant] = {}
    for definition in definitions:
        if definition.name in assistants:
            faults.append(definition.fault(None, "there is another assistant of this name: rename one of them"))
        assistant, own_faults = _converted(definition)
        own_faults += [] if own_faults else _Checks(settings, registry).faults(definition, assistant)
        faults += own_faults
        assistants[definition.name] = assistant if own_faults else _with_instructions(definition, assistant)
    if faults:
        raise AssistantsError(*faults)
    return list(assistants.values())


def _of_app(settings: Settings, registry: Registry) -> Iterator[_Definition]:
    module = sys.modules.get((settings.app or "").partition(":")[0])
    file = Path(str(module.__file__)) if module and module.__file__ else Path("LATCHKEY_APP")
    for assistant in registry.assistants:
        values = {name: value for name, value in asdict(assistant).items() if value is not None}
        yield _Definition(assistant.name, values, _place_in_module(file, assistant.name), file.parent)


def _of_file(path: Path) -> list[_Definition]:
    """Raises `AssistantsError` if the file cannot be read, or has anything but assistants."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AssistantsError(f"{path}:1: must be a readable UTF-8 text file") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _LINE.search(str(error))
        line = int(at["line"]) if at and at["line"] else text.count("\n") + 1
        raise AssistantsError(f"{path}:{line}: {_LINE.sub('', str(error))}: write it as TOML") from error
    faults = [
        f"{path}:{_line_of(text, (name,))}: {name}: there is no such table; did you mean [assistant.{name}]?"
        for name in tables
        if name != "assistant"
    ]
    assistants = tables.get("assistant", {})
    if not isinstance(assistants, dict):
        assistants, faults = {}, [*faults, f"{path}:{_line_of(text, ('assistant',))}: must be a table [assistant.NAME]"]
    faults += [
        f"{path}:{_line_of(text, ('assistant', name))}: assistant.{name}: must be a table [assistant.{name}]"
        for name, values in assistants.items()
        if not isinstance(values, dict)
    ]
    if faults:
        raise AssistantsError(*faults)
    return [
        _Definition(name, {**values, "name": name}, _place_in_toml(path, text, name), path.parent)
        for name, values in assistants.items()
    ]


def _converted(definition: _Definition) -> tuple[Assistant, list[str]]:
    """Convert each value to the type of its field; return the faults too, without which the assistant is complete."""
    values: dict[str, Any] = {"name": definition.name}
    faults = []
    for key, value in definition.values.items():
        if key not in _FIELDS:
            similar = get_close_matches(key, _FIELDS, 1)
            hint = f"; did you mean {similar[0]}?" if similar else f"; there are {', '.join(sorted(_FIELDS))}"
            faults.append(definition.fault(key, f"there is no such key{hint}"))
            continue
        try:
            # No limit of a type refuses NaN.
            finite = value if not isinstance(value, float) or isfinite(value) else str(value)
            values[key] = msgspec.convert(finite, _FIELDS[key].type)
        except msgspec.ValidationError:
            faults.append(definition.fault(key, f"must be {_rule(_FIELDS[key])}"))
    return Assistant(**values), faults


def _rule(field: FieldInfo) -> str:
    """Return the description of the valid values of a field."""
    types = (field.type, *get_args(field.type))
    metas = [meta for type_ in types for meta in getattr(type_, "__metadata__", ()) if isinstance(meta, Meta)]
    return next(str(meta.description) for meta in metas)


class _Checks(Struct, frozen=True):
    """Checks one assistant against what this service offers."""

    settings: Settings
    registry: Registry

    def faults(self, definition: _Definition, assistant: Assistant) -> list[str]:
        texts = [*self._tools(assistant), *self._agent(assistant), *_instructions(assistant)]
        return [definition.fault(key, text) for key, text in texts] or _template_faults(definition, assistant)

    def _tools(self, assistant: Assistant) -> Iterator[Fault]:
        for key, names in (("tools", assistant.tools), ("approve", assistant.approve)):
            for name in names:
                if name not in self.registry.tools:
                    yield key, f"there is no tool {name!r}; {_suggestion(name, self.registry.tools)}"

    def _agent(self, assistant: Assistant) -> Iterator[Fault]:
        names = [*BUILT_IN_AGENTS, *self.registry.agents]
        if assistant.agent is None:
            return
        if assistant.agent not in names:
            yield "agent", f"there is no agent {assistant.agent!r}; {_suggestion(assistant.agent, names)}"
            return
        if assistant.agent == "rehearsal" and not self.settings.dev and self.settings.agent != "rehearsal":
            yield "agent", "must not be `rehearsal` unless LATCHKEY_AGENT is `rehearsal` too, or with --dev"
        selection = AgentSelection.of(self.settings, self.registry.agents)
        yield from (("agent", fault) for fault in selection.missing_settings(self.settings, {assistant.agent}))
        if assistant.agent == "claude" and assistant.reasoning_effort not in (None, *CLAUDE_EFFORTS):
            yield "reasoning_effort", f"must be one of {', '.join(CLAUDE_EFFORTS)} for the agent `claude`"


def _instructions(assistant: Assistant) -> Iterator[Fault]:
    if assistant.instructions is not None and assistant.instructions_file is not None:
        yield "instructions_file", "must not be set together with `instructions`; keep one"


def _template_faults(definition: _Definition, assistant: Assistant) -> list[str]:
    """Read the instructions and parse their placeholders."""
    try:
        text = _text_of(definition, assistant)
        if text is not None:
            PromptTemplate.parse(text)
    except (OSError, ValueError) as error:
        path = definition.folder / (assistant.instructions_file or "")
        if not isinstance(error, InvalidTemplate):
            return [definition.fault("instructions_file", f"must be {path}, a readable UTF-8 text that is not blank")]
        if assistant.instructions is None:
            return [f"{path}:{error.line}: {error}"]
        return [definition.fault("instructions", str(error), error.line)]
    return []


def _with_instructions(definition: _Definition, assistant: Assistant) -> Assistant:
    return replace(assistant, instructions=_text_of(definition, assistant), instructions_file=None)


def _text_of(definition: _Definition, assistant: Assistant) -> str | None:
    """Raises `OSError` or `ValueError` if the file of the instructions cannot be used."""
    if assistant.instructions_file is None:
        return assistant.instructions
    text = (definition.folder / assistant.instructions_file).read_text("utf-8")
    if not text.strip():
        raise ValueError(assistant.instructions_file)
    return text


def _suggestion(name: str, names: Collection[str]) -> str:
    similar = get_close_matches(name, names, 1)
    return f"did you mean {similar[0]}?" if similar else f"there are {', '.join(sorted(names))}"


def _place_in_toml(path: Path, text: str, name: str) -> Place:
    def place(key: str | None, line: int) -> str:
        # The name of an assistant stands in the header of its table.
        first = _line_of(text, ("assistant", name, key) if key and key != "name" else ("assistant", name))
        opening = text.splitlines()[first - 1].rstrip() if text else ""
        # TOML drops a line break that follows the opening quotes.
        is_dropped = opening.endswith(_QUOTES) and sum(map(opening.count, _QUOTES)) == 1
        return f"{path}:{first + line - 1 + is_dropped}"

    return place


def _line_of(text: str, keys: tuple[str, ...]) -> int:
    """Return the line that defines the key: the first one with which the beginning of the file contains it."""
    lines = text.splitlines(keepends=True)
    begin = 1
    for end in range(1, len(lines) + 1):
        with suppress(tomllib.TOMLDecodeError):
            if _contains(tomllib.loads("".join(lines[:end])), keys):
                return begin
            begin = end + 1
    return begin


def _contains(tables: Any, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(tables, Mapping) or key not in tables:
            return False
        tables = tables[key]
    return True


def _place_in_module(file: Path, name: str) -> Place:
    shown = shown_path(str(file))

    def place(key: str | None, _: int) -> str:
        with suppress(OSError, SyntaxError):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == Assistant.__name__:
                    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                    if isinstance(value := keywords.get("name"), ast.Constant) and value.value == name:
                        return f"{shown}:{keywords[key].lineno if key in keywords else node.lineno}"
        return f"{shown}:1"

    return place
