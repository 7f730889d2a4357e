"""The parser of server-sent events, for any boundaries of chunks and any line ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchkey.domain.errors import ModelBadResponse
from latchkey.infrastructure.agents.openai import model_client
from latchkey.infrastructure.agents.openai.model_client import EventStreamParser

STREAM = """\
: a comment
event: response.greeting
data: {"text": "grüezi"}

id: 7
retry: 10

data:without a space
data:  two of them, and a second line


data

database: no field of ours

event: error
data: overloaded

event: error
data: {"code": 429}

data: {"a": 1}
data: {"b": 2}

event: response.end
data: {"type": "response.end"}

data: [DONE]

"""
EVENTS = [
    '{"type":"response.greeting","text": "grüezi"}',
    "without a space\n two of them, and a second line",
    '{"error": "overloaded"}',
    '{"error": {"code": 429}}',
    '{"a": 1}',
    '{"b": 2}',
    '{"type": "response.end"}',
    "[DONE]",
]


def parse(body: bytes, chunk_size: int) -> list[str]:
    parser = EventStreamParser()
    starts = range(0, len(body), chunk_size)
    events = [data for start in starts for data in parser.feed(body[start : start + chunk_size])]
    return [data.decode() for data in [*events, *parser.end()]]


@given(
    chunk_size=st.integers(1, 250),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    byte_order_mark=st.sampled_from(["", "\ufeff"]),
)
def test_events_do_not_depend_on_chunk_size_or_line_end(chunk_size: int, line_end: str, byte_order_mark: str) -> None:
    assert parse((byte_order_mark + STREAM).replace("\n", line_end).encode(), chunk_size) == EVENTS


def test_event_is_returned_as_soon_as_it_is_complete() -> None:
    parser = EventStreamParser()

    assert [parser.feed(chunk) for chunk in (b"data: a\n", b"\ndata: b", b"\n\ndata: c\n\n", b"\n")] == [
        [],
        [b"a"],
        [b"b", b"c"],
        [],
    ]


@pytest.mark.parametrize("missing", [1, 2])
def test_last_event_without_blank_line_is_returned_at_the_end(missing: int) -> None:
    assert parse(STREAM.encode()[:-missing], 9) == EVENTS


def test_line_without_end_is_parsed_in_linear_time() -> None:
    """Each byte is searched once, and not again with every chunk: 16 MB in pieces of 4 KB would take minutes."""
    parser = EventStreamParser()
    for _ in range(4096):
        assert parser.feed(b"x" * 4096) == []


@pytest.mark.parametrize(
    ("body", "events"),
    [
        ('\ufeff {"a":\n\n1}\n', ['{"a":\n\n1}\n']),
        ('[{"a": 1}, {"b": 2}]', ['{"a": 1}', '{"b": 2}']),
        ('{"a": 1}\n{"b": 2}\n', ['{"a": 1}', '{"b": 2}']),
    ],
    ids=["an object", "a list", "an object in each line"],
)
@pytest.mark.parametrize("chunk_size", [1, 100])
def test_json_instead_of_a_stream_is_parsed_as_events(body: str, events: list[str], chunk_size: int) -> None:
    assert parse(body.encode(), chunk_size) == events


def test_web_page_is_bad_response() -> None:
    with pytest.raises(ModelBadResponse, match="OPENAI_BASE_URL"):
        parse(b"\n<html>", 1)


def test_stream_longer_than_limit_is_bad_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_client, "MAX_STREAM_BYTES", 50)

    with pytest.raises(ModelBadResponse, match="50 bytes"):
        parse(STREAM.encode(), 10)
