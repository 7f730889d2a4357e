"""The API reference: the OpenAPI document as one HTML page, which needs no script and no other file."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from typing import Any

from latchkey.interfaces.http.openapi import PATH as SCHEMA_PATH

PATH = "/docs"

Node = Mapping[str, Any]

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --muted: #57606a; --page: #fff; --box: #f4f5f7; --line: #d4d8dd;
  --link: #0a58ca; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ed; --muted: #a5adb8; --page: #14171b; --box: #20252b;
  --line: #3a414a; --link: #7db3ff; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0; font: 1rem/1.55 system-ui, sans-serif; color: var(--text); background: var(--page); }
header, main, nav { padding: 1rem; }
main { max-width: 60rem; min-width: 0; }
nav { border-bottom: 1px solid var(--line); max-height: 50vh; overflow: auto; }
nav ul { margin: 0 0 .75rem; padding: 0; list-style: none; columns: 14rem; }
nav h2 { margin: .5rem 0 .25rem; border: 0; padding: 0; font-size: .95rem; }
h1, h2, h3, h4 { line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 0; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { margin: 2.25rem 0 0; }
h4 { margin: 1.25rem 0 0; }
a { color: var(--link); }
code, pre { font: .875rem/1.45 ui-monospace, monospace; }
h3 code { font-size: 1.05rem; }
code, nav a { overflow-wrap: anywhere; }
pre { background: var(--box); border: 1px solid var(--line); border-radius: .375rem; padding: .75rem; overflow: auto;
  max-height: 32rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .375rem .75rem .375rem 0; border-top: 1px solid var(--line); }
td:first-child code { white-space: nowrap; }
.note { color: var(--muted); }
@media (min-width: 64rem) { body { display: grid; grid-template-columns: 19rem 1fr; }
  header { grid-column: 1 / -1; }
  nav { position: sticky; top: 0; height: 100vh; max-height: none; border: 0; border-right: 1px solid var(--line); }
  nav ul { columns: auto; } }
@media print { nav { display: none; } pre { max-height: none; } }
"""
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
"""Allows the style of the page, by its digest, and nothing else."""

_INTRODUCTION = """
<p>Send <code>Authorization: Bearer TOKEN</code> with each request below <code>/api</code>. <code>{user_id}</code> is
the user of the token, or <code>me</code>, which stands for them; any other user is refused. Bodies
are JSON in UTF-8; ids are UUIDs, times are RFC 3339 in UTC.</p>
<p>Lists take <code>limit</code> and <code>cursor</code>: send <code>next_cursor</code> of a page as
<code>cursor</code> for the next one. A request with an <code>Idempotency-Key</code> can be repeated without a second
effect. Errors are <a href="#Problem">problem details</a>: <code>code</code> is stable, <code>detail</code> is for
people. The <a href="#section-errors">codes</a> are listed below.</p>
"""
_PLACEHOLDER = re.compile(r"{(\w+)}")
_CODE = re.compile(r"`([^`]+)`")
_FAILURE = re.compile(r"^`([\w-]+)`: (.+)$", re.MULTILINE)
_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} members",
}
_FIRST_ERROR = "400"
_FIRST_TAGS = ("chat", "conversations", "turns")
_LAST_TAGS = ("mcp", "documents", "health")


def render(document: Node) -> str:
    """Return the page of an OpenAPI document that `openapi.document` has made."""
    title, schemas = escape(document["info"]["title"]), document["components"]["schemas"]
    groups: dict[str, list[str]] = {}
    links: dict[str, list[str]] = {}
    for path, method, operation in sorted(_operations(document), key=_rank):
        tag = _tag(operation)
        short = path.removeprefix("/api/{user_id}")
        groups.setdefault(tag, []).append(_operation(path, method, operation, document))
        links.setdefault(tag, []).append(_link(operation["operationId"], f"{method} {short}"))
    sections = [_heading(tag) + "".join(group) for tag, group in groups.items()]
    links["errors"], links["schemas"] = [], [_link(name, name) for name in schemas]
    navigation = [f"<h2>{_link(_anchor(tag), _title(tag))}</h2>{_list(items)}" for tag, items in links.items()]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} API reference</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1>{title} API reference</h1>
<p>{_text(document["info"]["description"])}</p>
<p class="note">Version {escape(document["info"]["version"])}. As an OpenAPI document:
<a href="{SCHEMA_PATH}">{SCHEMA_PATH}</a></p>
</header>
<nav aria-label="Contents">{"".join(navigation)}</nav>
<main>{_INTRODUCTION}{"".join(sections)}
{_heading("errors")}{_errors(document)}
{_heading("schemas")}{"".join(_schema(name, schema) for name, schema in schemas.items())}</main>
</body>
</html>
"""


def _operation(path: str, method: str, operation: Node, document: Node) -> str:
    id = operation["operationId"]
    parameters = [_resolved(each, document) for each in operation.get("parameters", ())]
    rows = [
        (
            _coded(each["name"]),
            each["in"] + (", required" if each.get("required") else ""),
            _type(each["schema"]),
            _text(each.get("description", "")),
        )
        for each in parameters
        if each["name"] != "user_id"  # the introduction describes it
    ]
    return f"""<section aria-labelledby="{id}">
<h3 id="{id}"><a href="#{id}">{_coded(f"{method} {path}")}</a></h3>
<p>{_text(operation.get("summary", ""))}</p>{_paragraphs(operation.get("description", ""))}
{_table(("Parameter", "In", "Type", "Description"), rows)}
<h4>Request</h4>{_request(path, method, operation, parameters)}
<h4>Response</h4>{_responses(operation, document)}</section>
"""


def _request(path: str, method: str, operation: Node, parameters: Iterable[Node]) -> str:
    examples = [each for each in parameters if "example" in each]
    values = {each["name"]: str(each["example"]) for each in examples if each["in"] == "path"}
    lines, described = [f"{method} {_PLACEHOLDER.sub(lambda name: values.get(name[1], name[0]), path)} HTTP/1.1"], ""
    if operation.get("security"):
        lines.append("Authorization: Bearer TOKEN")
    lines += [f"{each['name']}: {each['example']}" for each in examples if each["in"] == "header"]
    if content := operation.get("requestBody", {}).get("content"):
        media_type, media = next(iter(content.items()))
        lines += [f"Content-Type: {media_type}", "", _json(media["example"])]
        described = f"<p>Body: {_type(media['schema'])} as {_either(map(_coded, content))}.</p>"
    return described + _pre("\n".join(lines))


def _responses(operation: Node, document: Node) -> str:
    parts, codes = [], []
    for status, reference in operation["responses"].items():
        response = _resolved(reference, document)
        if status >= _FIRST_ERROR:
            failures = _FAILURE.findall(response["description"])
            codes += [f"{status} {_link(f'error-{code}', code)}" for code, _ in failures]
            continue
        headers = ", ".join(map(_coded, response["headers"]))
        parts.append(f"<p><strong>{status}</strong>: {_text(response['description'])} Headers: {headers}.</p>")
        for media_type, media in response.get("content", {}).items():
            parts.append(f"<p>Body: {_type(media['schema'])} as <code>{media_type}</code>.</p>")
            parts.append(_pre(f"HTTP/1.1 {status}\nContent-Type: {media_type}\n\n{_body_example(media)}"))
    return "".join(parts) + f'<p class="note">Errors: {", ".join(codes)}.</p>'


def _body_example(media: Node) -> str:
    if "examples" in media:
        events = ((name, example["value"]) for name, example in media["examples"].items())
        return "\n\n".join(f"id: {data['seq']}\nevent: {name}\ndata: {_compact(data)}" for name, data in events)
    return str(media["example"]) if isinstance(media["example"], str) else _json(media["example"])


def _errors(document: Node) -> str:
    """Return a table of the codes, and an example of a problem."""
    statuses: dict[str, set[str]] = {}
    meanings: dict[str, str] = {}
    for _, _, operation in _operations(document):
        for status, reference in operation["responses"].items():
            for code, meaning in _FAILURE.findall(_resolved(reference, document)["description"]):
                statuses.setdefault(code, set()).add(status)
                meanings.setdefault(code, meaning)
    rows = [
        (f'<code id="error-{code}">{code}</code>', ", ".join(sorted(statuses[code])), _text(meanings[code]))
        for code in sorted(statuses)
    ]
    responses = document["components"]["responses"]
    (problem,) = responses.get("Invalid", responses["InternalError"])["content"].values()
    return _table(("Code", "Status", "Meaning"), rows) + _pre(_json(problem["example"]))


def _schema(name: str, schema: Node) -> str:
    required = schema.get("required", ())
    rows = [
        (
            _coded(field) + (", required" if field in required else ""),
            _type(described),
            _text(_description(described)),
        )
        for field, described in schema.get("properties", {}).items()
    ]
    body = _table(("Field", "Type", "Description"), rows) or f"<p>{_type(schema)}</p>"
    return f"""<section aria-labelledby="{name}"><h3 id="{name}"><a href="#{name}">{name}</a></h3>
{_paragraphs(schema.get("description", ""))}{body}</section>
"""


def _description(schema: Node) -> str:
    """Return the description of a field, or that of its first alternative with one."""
    described = (part["description"] for part in (schema, *schema.get("anyOf", ())) if "description" in part)
    return str(next(described, ""))


def _type(schema: Node) -> str:
    """Return the type in words, with links to named schemas."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _link(name, name)
    if alternatives := schema.get("anyOf"):
        return _either(map(_type, alternatives))
    if alternatives := schema.get("oneOf"):
        return _list(map(_type, alternatives))
    if values := [schema["const"]] if "const" in schema else schema.get("enum"):
        return _either(_coded(str(value)) for value in values)
    return ", ".join([_plain_type(schema), *_limits(schema)])


def _plain_type(schema: Node) -> str:
    type = str(schema.get("type", "any JSON"))
    if type == "array":
        items = schema.get("prefixItems") or [schema.get("items") or {}]
        return f"array of {', '.join(map(_type, items))}"
    if type == "object" and "properties" in schema:
        return ", ".join(f"{_coded(name)}: {_type(part)}" for name, part in schema["properties"].items())
    return f"{type} ({schema['format']})" if "format" in schema else type


def _limits(schema: Node) -> Iterator[str]:
    yield from (text.format(schema[keyword]) for keyword, text in _LIMITS.items() if keyword in schema)
    if "pattern" in schema:
        yield f"matches {_coded(schema['pattern'])}"
    if "default" in schema:
        yield f"default {_coded(str(schema['default']))}"


def _operations(document: Node) -> Iterator[tuple[str, str, Node]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _tag(operation: Node) -> str:
    return str(next(iter(operation.get("tags", ())), "other"))


def _rank(operation: tuple[str, str, Node]) -> int:
    """Return the sort key of an operation: chat first, and what only operators need last."""
    tag = _tag(operation[2])
    if tag in _FIRST_TAGS:
        return _FIRST_TAGS.index(tag)
    return len(_FIRST_TAGS) + (1 + _LAST_TAGS.index(tag) if tag in _LAST_TAGS else 0)


def _resolved(node: Node, document: Node) -> Node:
    """Return the node, or the part of the document that it refers to."""
    target = document
    for name in node["$ref"].split("/")[1:] if "$ref" in node else ():
        target = target[name]
    return target if "$ref" in node else node


def _heading(text: str) -> str:
    return f'<h2 id="{_anchor(text)}">{escape(_title(text))}</h2>'


def _title(tag: str) -> str:
    return tag.upper() if tag == "mcp" else tag.capitalize()


def _anchor(tag: str) -> str:
    return f"section-{re.sub(r'[^a-z0-9]+', '-', tag.lower())}"


def _text(text: str) -> str:
    """Return a text with its code spans as HTML."""
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_text(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph)


def _table(heads: Iterable[str], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _list(items: Iterable[str]) -> str:
    parts = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{parts}</ul>" if parts else ""


def _link(id: str, text: str) -> str:
    return f'<a href="#{id}">{escape(text)}</a>'


def _coded(text: str) -> str:
    return f"<code>{escape(text, quote=False)}</code>"


def _either(texts: Iterable[str]) -> str:
    return " or ".join(texts)


def _pre(text: str) -> str:
    return f'<pre tabindex="0">{escape(text, quote=False)}</pre>'


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
