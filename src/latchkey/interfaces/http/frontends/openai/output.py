"""The output of a response: its items, and the events of OpenAI's Responses API that build it."""

from typing import Any

import msgspec

from latchkey.interfaces.http.frontends.openai.items import Item

_encode = msgspec.json.Encoder().encode


class ResponseOutput:
    """Collects the items of a response and its events, as server-sent events.

    The events are numbered from 0. Those up to the number `after` are counted, and not returned by `take_frames`.
    """

    def __init__(self, response: dict[str, Any], after: int) -> None:
        self.response = response
        self._after, self._number = after, 0
        self._items: list[Item] = []
        self._removed: set[int] = set()
        """Indexes of items that clients saw begin, and that are not part of the response."""
        self._frames: list[bytes] = []

    @property
    def items(self) -> list[Item]:
        """The items so far."""
        return [item for index, item in enumerate(self._items) if index not in self._removed]

    def take_frames(self) -> bytes:
        """Return the events since the last call."""
        frames, self._frames = b"".join(self._frames), []
        return frames

    def emit(self, type: str, **data: Any) -> None:
        """Add an event."""
        if self._number > self._after:
            body = _encode({"type": type, "sequence_number": self._number, **data})
            # No `id` line: openai-python would take the blank line behind a comment for an event.
            self._frames.append(b"event: %s\ndata: %s\n\n" % (type.encode(), body))
        self._number += 1

    def leave_out_event(self) -> None:
        """Count an event that is not sent."""
        self._number += 1

    def emit_for_item(self, type: str, index: int, **data: Any) -> None:
        """Add an event about an item."""
        self.emit(type, item_id=self._items[index]["id"], output_index=index, **data)

    def begin_item(self, item: Item) -> int:
        """Add an item that is not complete yet. Return its index."""
        index = len(self._items)
        self._items.append(item)
        self.emit("response.output_item.added", output_index=index, item=item)
        return index

    def item(self, index: int) -> Item:
        """Return an item, to change it before it is complete."""
        return self._items[index]

    def complete_item(self, index: int) -> None:
        """Add the event that ends an item. The SDKs take the newest one of an item."""
        self.emit("response.output_item.done", output_index=index, item=self._items[index])

    def add_item(self, item: Item) -> None:
        """Add an item that is complete."""
        self.complete_item(self.begin_item(item))

    def remove_item(self, index: int) -> None:
        """Leave an item out of the response. Clients saw it begin, so its indexes and its end stay in the stream."""
        self._removed.add(index)

    def end(self, status: str, last_event: str, **changes: Any) -> None:
        """Complete the response. All its items are complete."""
        self.response.update(status=status, output=self.items, **changes)
        self.emit(f"response.{last_event}", response=self.response)
