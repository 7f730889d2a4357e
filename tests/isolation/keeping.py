"""What somebody must have, by what they were answered when they asked for it."""

from dataclasses import dataclass, field
from typing import Any

Thing = dict[str, Any]

NOUNS = ("conversation", "task", "artifact", "context_token")
_KEEP = {"add", "update", "complete", "revise", "save", "mint"}


@dataclass
class Keeping:
    """Things by their ids, as they were last told. `turns` are not things: they go with their conversations."""

    things: dict[str, dict[str, Thing]] = field(default_factory=lambda: {noun: {} for noun in NOUNS})
    turns: dict[str, str] = field(default_factory=dict)

    def ids(self, noun: str) -> list[str]:
        """All of one noun, those of tokens by the name that paths have for them."""
        return list(self.turns if noun == "turn" else self.things.get({"token": "context_token"}.get(noun, noun), {}))

    def note(self, done: str, thing: Thing, within: str | None) -> None:
        """An operation or a tool of that name answered so; what does not say its conversation was made in that one."""
        verb, _, noun = done.partition("_")
        if verb in _KEEP:
            kept = self.things[noun]
            kept[thing["id"]] = {"conversation_id": within, **kept.get(thing["id"], {}), **thing}

    def drop(self, noun: str, id: str) -> None:
        """It was deleted: with a conversation go its turns, artifacts and tokens, and its tasks stay."""
        self.things[noun].pop(id)
        if noun != "conversation":
            return
        self.turns = {turn: where for turn, where in self.turns.items() if where != id}
        for task in self.things["task"].values():
            task["conversation_id"] = None if task["conversation_id"] == id else task["conversation_id"]
        for kind in ("artifact", "context_token"):
            kept = self.things[kind]
            self.things[kind] = {key: one for key, one in kept.items() if one["conversation_id"] != id}

    def note_turn(self, turn_id: str, conversation_id: str, calls: list[Thing]) -> None:
        """What its tools did; a turn without a conversation has begun one."""
        self.turns[turn_id] = conversation_id
        self.things["conversation"].setdefault(conversation_id, {"id": conversation_id, "title": None})
        for call in calls:
            if call["is_error"]:
                continue
            if call["name"] == "delete_task":
                self.drop("task", call["result"]["id"])
            else:
                self.note(call["name"], call["result"], conversation_id)
