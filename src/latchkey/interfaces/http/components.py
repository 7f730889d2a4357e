"""What operations of the published schema refer to by name."""

import re
from typing import Any

import msgspec

_PAGE = re.compile(rb'\bPage_(\w+)_"')


class Components:
    """Gathers the schemas of types, as msgspec, which reads and writes them, has them; and responses."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        self.responses: dict[str, Any] = {}

    def schema(self, kind: Any) -> dict[str, Any]:
        """The schema of a type, or a reference to it. A page of tasks is called `TaskPage`."""
        made = msgspec.json.schema_components((kind,), ref_template="#/components/schemas/{name}")
        ((schema,), found) = msgspec.json.decode(_PAGE.sub(rb'\1Page"', msgspec.json.encode(made)))
        self.schemas |= found
        return dict(schema)

    def response(self, name: str, response: dict[str, Any]) -> dict[str, Any]:
        """A reference to that response."""
        self.responses[name] = response
        return {"$ref": f"#/components/responses/{name}"}
