"""Somebody who lives here, with one of everything at least, all of it marked with a word of theirs."""

from dataclasses import dataclass
from uuid import uuid4

from latchkey.domain.credentials import Grant
from tests.support.service import ApiUser

ALL_GRANTS = [grant.value for grant in Grant]


@dataclass(frozen=True)
class Resident:
    """`ids` has one of each noun. `secret` opens all of it, and `bound` another conversation of theirs alone."""

    person: ApiUser
    canary: str
    ids: dict[str, str]
    key: str
    secret: str
    bound: str

    @classmethod
    async def moving_in(cls, person: ApiUser) -> "Resident":
        """Two of what listings list, so that each has a second page."""
        canary = f"canary-{uuid4().hex}"
        key = f"key-{canary}"
        asked = f'{canary}\n/add_task {{"title": "{canary}"}}'
        answer = (await person.post("chat", json={"message": asked}, headers={"Idempotency-Key": key})).json()
        conversation = answer["conversation_id"]
        await person.chat(canary, conversation_id=conversation)
        elsewhere = await person.create("conversations", title=canary)
        await person.create("tasks", title=canary, description=canary)
        document = {"title": canary, "content_markdown": canary, "conversation_id": conversation}
        _, artifact = [await person.create("artifacts", **document) for _ in range(2)]
        await person.put(f"artifacts/{artifact['id']}", json={"content_markdown": canary})
        spare = await person.create("context-tokens", grants=ALL_GRANTS)
        held = await person.create("context-tokens", grants=ALL_GRANTS)
        bound = await person.create("context-tokens", grants=ALL_GRANTS, conversation_id=elsewhere["id"])
        call = answer["tool_calls"][0]
        ids = {
            "conversation": conversation,
            "turn": answer["turn_id"],
            "message": answer["message"]["id"],
            "tool_call": call["id"],
            "task": call["result"]["id"],
            "artifact": artifact["id"],
            "token": spare["id"],
        }
        return cls(person, canary, ids, key, held["token"], bound["token"])

    @property
    def marks(self) -> list[bytes]:
        """What nobody else may ever be told."""
        found = [self.canary, self.person.user_id, self.secret, self.bound, *self.ids.values()]
        return [mark.encode() for mark in found]
