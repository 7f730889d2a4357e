"""One row of every kind that a user can own."""

from typing import Any

from latchkey.application.turns.read import EVENT_PAGE_BYTES
from latchkey.domain.credentials import Owner, TokenSecret
from latchkey.domain.page import Window
from latchkey.domain.ports import UnitsOfWork
from latchkey.domain.quota import QuotaUsage
from latchkey.domain.tool_call import IdempotentCall
from latchkey.domain.turn_event import TurnEvent, TurnStartedEvent
from tests.builders import (
    LONG,
    NOW,
    a_context_token,
    a_conversation,
    a_message,
    a_task,
    a_tool_call,
    a_turn,
    an_artifact,
)

ROW_COUNT = 21
"""How many entities `read_all` returns."""


class UserData:
    """One entity of each kind, for one user."""

    def __init__(self) -> None:
        self.conversation = a_conversation()
        self.turn = a_turn(self.conversation)
        self.event = TurnEvent.of(self.turn.id, 1, TurnStartedEvent(self.conversation.id, "rehearsal"))
        self.message = a_message(self.turn, 1)
        self.task = a_task()
        self.artifact = an_artifact(conversation_id=self.conversation.id, turn_id=self.turn.id)
        self.tool_call = a_tool_call()
        self.waiting_turn = a_turn(self.conversation, status="waiting")
        self.question = a_tool_call()
        self.idempotent_call = IdempotentCall("owner", "call-1", "0" * 64, "{}", is_error=False, created_at=NOW)
        self.token = a_context_token()

    async def store(self, units: UnitsOfWork, owner: Owner) -> None:
        async with units.open(owner, "write") as uow:
            await uow.conversations.add(self.conversation, messages=1)
            await uow.turns.add(self.turn)
            await uow.turn_events.add(self.event)
            await uow.messages.add(self.message)
            await uow.tasks.add(self.task)
            await uow.artifacts.add(self.artifact, "# Milk")
            await uow.tool_calls.add(self.tool_call, self.turn.id)
            await uow.turns.add(self.waiting_turn)
            await uow.questions.add(self.question, self.waiting_turn.id, "question-1", NOW + LONG)
            await uow.idempotent_calls.add(self.idempotent_call)
            await uow.context_tokens.add(self.token, TokenSecret.mint(owner.user_id))
            await uow.quota_usage.add(QuotaUsage(uow.now, 0, uow.now))
            await uow.commit()

    async def read_all(self, units: UnitsOfWork, owner: Owner) -> list[Any]:
        """All entities that the user can read, through every read method of the repositories."""
        async with units.open(owner, "read") as uow:
            return [
                *(await uow.conversations.page(Window())).items,
                *filter(None, [await uow.conversations.find_id(str(self.conversation.id))]),
                *(await uow.turns.page(self.conversation.id, Window())).items,
                *(await uow.turns.page_with_messages(str(self.conversation.id), 10))[0],
                *await uow.turns.list_running(),
                *await uow.turns.list_waiting(self.conversation.id),
                *await uow.turn_events.list_after(self.turn.id, 0, 10, EVENT_PAGE_BYTES),
                *(await uow.turn_events.list_of_turns([self.turn.id], EVENT_PAGE_BYTES)).get(self.turn.id, []),
                *(await uow.messages.page(self.conversation.id, Window(), "asc")).items,
                *await uow.messages.history(self.conversation.id, 10, 10_000),
                *(await uow.tasks.page(None, Window())).items,
                *(await uow.tasks.page("pending", Window())).items,
                *(await uow.artifacts.page(None, None, Window())).items,
                *(await uow.artifacts.page(self.conversation.id, None, Window())).items,
                *(await uow.artifacts.page(None, "generated_file", Window())).items,
                *await uow.tool_calls.list_of_turn(self.turn.id),
                *await uow.questions.list_of_turn(self.waiting_turn.id),
                *(await uow.questions.page_of_open(NOW, Window())).items,
                *filter(None, [await uow.idempotent_calls.find("owner", "call-1", NOW)]),
                *(await uow.context_tokens.page(Window())).items,
            ]
