"""A model of the data that one user must have, built from the responses that the user received."""

from dataclasses import dataclass, field
from typing import Any

Entity = dict[str, Any]

NOUNS = ("conversation", "task", "artifact", "note", "context_token")
OPERATIONS = {"remember": "add_note", "forget": "delete_note"}
"""What the tools do whose names do not say it."""
_WRITING_VERBS = {"add", "update", "complete", "revise", "save", "mint"}


@dataclass
class StateModel:
    """Entities by noun and id, as last received. `turns` maps each turn to its conversation."""

    entities: dict[str, dict[str, Entity]] = field(default_factory=lambda: {noun: {} for noun in NOUNS})
    turns: dict[str, str] = field(default_factory=dict)
    effects: dict[str, list[tuple[str, str, Entity | None]]] = field(default_factory=dict)
    """Of each turn that is not undone: noun, id and previous state of what its tools changed."""

    def ids(self, noun: str) -> list[str]:
        """All ids of a noun. Path parameters call a context token `token`."""
        if noun == "turn":
            return list(self.turns)
        return list(self.entities.get({"token": "context_token"}.get(noun, noun), {}))

    def record(self, operation: str, entity: Entity, conversation_id: str | None) -> None:
        """Record the result of an operation or tool. An entity without a conversation belongs to the given one."""
        verb, _, noun = OPERATIONS.get(operation, operation).partition("_")
        if verb in _WRITING_VERBS:
            known = self.entities[noun]
            known[entity["id"]] = {"conversation_id": conversation_id, **known.get(entity["id"], {}), **entity}

    def remove(self, noun: str, id: str) -> None:
        """Record a deletion. A deleted conversation removes its turns, artifacts and tokens; its tasks remain."""
        self.entities[noun].pop(id)
        if noun != "conversation":
            return
        self.turns = {turn: conversation for turn, conversation in self.turns.items() if conversation != id}
        for task in self.entities["task"].values():
            task["conversation_id"] = None if task["conversation_id"] == id else task["conversation_id"]
        for kind in ("artifact", "context_token"):
            known = self.entities[kind]
            self.entities[kind] = {key: entity for key, entity in known.items() if entity["conversation_id"] != id}

    def undo(self, turn_id: str, at: str) -> None:
        """Record that what the tools of a turn changed is as it was before. A second undo changes nothing."""
        for noun, id, before in reversed(self.effects.pop(turn_id, [])):
            if before is None:
                self.remove(noun, id)
                continue
            current = self.entities[noun].get(id, before)
            conversation = current["conversation_id"]
            if id not in self.entities[noun] and conversation not in self.entities["conversation"]:
                conversation = None
            restored = {"version": current["version"] + 1, "updated_at": at, "conversation_id": conversation}
            self.entities[noun][id] = {**before, **restored}

    def record_turn(self, turn_id: str, conversation_id: str, calls: list[Entity], title: str | None) -> None:
        """Record a turn with the effects of its tool calls. An unknown conversation is a new one.

        A completed turn gives its conversation the title if it has none.
        """
        self.turns[turn_id] = conversation_id
        new = {"id": conversation_id, "title": None}
        conversation = self.entities["conversation"].setdefault(conversation_id, new)
        conversation["title"] = conversation["title"] or title
        self.effects[turn_id] = []
        for call in calls:
            if call["is_error"]:
                continue
            noun = call["name"].partition("_")[2]
            if noun in self.entities:
                id = call["result"]["id"]
                before = self.entities[noun].get(id)
                if call["name"] == "delete_task" or before is None or before["version"] != call["result"]["version"]:
                    self.effects[turn_id].append((noun, id, before and {**before}))
            if call["name"] == "delete_task":
                self.remove("task", call["result"]["id"])
            else:
                self.record(call["name"], call["result"], conversation_id)
