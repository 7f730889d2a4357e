"""A model's events are read as they were sent, however the network cuts them and whichever way lines end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latchkey.domain.errors import ModelBadResponse
from latchkey.infrastructure.agents.openai import sse as model_stream
from latchkey.infrastructure.agents.openai.sse import EventStreamParser

STREAM = """\
: a comment
event: greeting
data: {"said": "grüezi"}

id: 7
retry: 10

data:without a space
data:  two of them, and a second line


data

database: no field of ours

data: [DONE]

"""
EVENTS = ['{"said": "grüezi"}', "without a space\n two of them, and a second line", "[DONE]"]


def read(body: bytes, size: int) -> list[str]:
    stream = EventStreamParser()
    told = [data for start in range(0, len(body), size) for data in stream.feed(body[start : start + size])]
    return [data.decode() for data in [*told, *stream.end()]]


@given(size=st.integers(1, 250), ending=st.sampled_from(["\n", "\r\n", "\r"]), mark=st.sampled_from(["", "\ufeff"]))
def test_events_are_the_same_in_chunks_of_any_size_with_lines_of_any_end(size: int, ending: str, mark: str) -> None:
    assert read((mark + STREAM).replace("\n", ending).encode(), size) == EVENTS


def test_an_event_is_told_as_soon_as_it_is_whole() -> None:
    stream = EventStreamParser()

    assert [stream.feed(chunk) for chunk in (b"data: a\n", b"\ndata: b", b"\n\ndata: c\n\n", b"\n")] == [
        [],
        [b"a"],
        [b"b", b"c"],
        [],
    ]


@pytest.mark.parametrize("missing", [1, 2])
def test_a_last_event_counts_without_its_last_blank_line(missing: int) -> None:
    assert read(STREAM.encode()[:-missing], 9) == EVENTS


def test_bytes_that_never_end_a_line_are_read_in_time_that_grows_with_their_number() -> None:
    """Each is looked at once, and not again with every chunk: 16 MB in pieces of 4 KB would take minutes."""
    stream = EventStreamParser()
    for _ in range(4096):
        assert stream.feed(b"x" * 4096) == []


def test_a_stream_without_a_bound_is_a_bad_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_stream, "MAX_STREAM_BYTES", 50)

    with pytest.raises(ModelBadResponse, match="50 bytes"):
        read(STREAM.encode(), 10)
