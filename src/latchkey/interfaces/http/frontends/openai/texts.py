"""The texts of the answer as items of a response. Text of a step that broke off is withdrawn."""

from collections.abc import Sequence

from msgspec import Struct

from latchkey.domain.turn_event import MessageDeltaEvent, TurnEvent, without_withdrawn
from latchkey.interfaces.http.frontends.openai.items import Item, text_item
from latchkey.interfaces.http.frontends.openai.output import ResponseOutput


class _Text(Struct):
    """A text: where it begins in the answer, how long it is, and its pieces without those that are left out.

    `is_first` says that it is the first one of a response.
    """

    index: int
    start: int
    is_first: bool
    length: int = 0
    pieces: list[str] = []


class AnswerTexts:
    """Adds the texts of the answer to the output.

    The `log` of the turn so far says which text a later event withdraws: its events are counted and left out.
    """

    def __init__(self, output: ResponseOutput, log: Sequence[TurnEvent]) -> None:
        self._output = output
        self._shown = _shown_texts(log)
        self._length = 0
        self._texts: list[_Text] = []
        self._open: _Text | None = None
        self._is_first = False

    def begin_response(self) -> None:
        """Leave out the paragraph break before the next text: the text before it belongs to an earlier response."""
        self._is_first = True

    def skip(self, text: str) -> None:
        """Count the characters of a text that belongs to an earlier response."""
        self._length += len(text)

    def add(self, text: str, seq: int, id: str) -> None:
        """Append the piece of the answer in the event with this number. The first one of an item gives its id."""
        shown = self._shown.get(seq, text)
        if self._is_first:
            kept = text.lstrip("\n")
            self._length += len(text) - len(kept)
            text, shown = kept, shown.lstrip("\n")
            if not text:
                return
        item = self._open or self._begin(id)
        item.length += len(text)
        self._length += len(text)
        item.pieces.append(shown)
        if shown:
            name = "response.output_text.delta"
            self._output.emit_for_item(name, item.index, content_index=0, delta=shown, logprobs=[])
        else:
            self._output.leave_out_event()

    def close(self, status: str = "completed") -> None:
        """Complete the text that is open, if any."""
        if self._open is not None:
            self._complete(self._open, status)

    def withdraw(self, length: int) -> None:
        """Cut the answer to this many characters. The pieces that follow are another item.

        An item that is cut ends with its remaining text, also if it had ended before. One without text is left out.
        """
        while self._texts and self._texts[-1].start + self._texts[-1].length > length:
            text = self._texts.pop()
            text.length = max(0, length - text.start)
            text.pieces = ["".join(text.pieces)[: text.length]]
            self._complete(text, "incomplete")
            if text.length:
                self._texts.append(text)
            else:
                self._output.remove_item(text.index)
                self._is_first = text.is_first
        self._length = min(self._length, length)

    def _begin(self, id: str) -> _Text:
        item = self._open = _Text(self._output.begin_item(text_item(id)), self._length, self._is_first)
        self._is_first = False
        self._texts.append(item)
        part: Item = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self._output.emit_for_item("response.content_part.added", item.index, content_index=0, part=part)
        self._output.item(item.index)["content"].append(part)
        return item

    def _complete(self, text: _Text, status: str) -> None:
        self._open = None
        index, item = text.index, self._output.item(text.index)
        part = item["content"][0]
        part["text"] = "".join(text.pieces)
        item["status"] = status
        name = "response.output_text.done"
        self._output.emit_for_item(name, index, content_index=0, text=part["text"], logprobs=[])
        self._output.emit_for_item("response.content_part.done", index, content_index=0, part=part)
        self._output.complete_item(index)


def _shown_texts(log: Sequence[TurnEvent]) -> dict[int, str]:
    """Return what remains of each piece of the answer that a later event of the log withdraws, by its number."""
    kept = {event.seq: event for event in without_withdrawn([*log])}
    shown: dict[int, str] = {}
    for event in log:
        if kept.get(event.seq) is not event:
            data = kept[event.seq].decode() if event.seq in kept else None
            shown[event.seq] = data.text if isinstance(data, MessageDeltaEvent) else ""
    return shown
