"""Turns whose process has ended, and requests that read them."""

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from latchkey.application.turns.start import StartedTurn, start_turn
from latchkey.bootstrap.core import create_core
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.message import NewMessage
from latchkey.domain.turn import ClientRequest
from latchkey.interfaces.http.requests import idempotency_of
from tests.builders import LIMITS
from tests.support.service import ApiUser, Service
from tests.turns import profiles_of

GONE = timedelta(seconds=-1)


async def lost_turn(service: Service, user: ApiUser, lease: timedelta = GONE, message: str = "Hello") -> StartedTurn:
    """Start a turn of the user with the key `k`, whose process ends before it does anything."""
    core = create_core(service.settings)
    new_message = NewMessage(message)
    limits = replace(LIMITS, lease=lease)
    request = ClientRequest("the-first-request", idempotency_of("k", new_message))
    turn = await core.dispatcher.call(
        Owner(UserId(user.user_id)), start_turn, new_message, profiles_of(), limits, request
    )
    await core.engine.dispose()
    assert isinstance(turn, StartedTurn)
    return turn


async def get_turn(user: ApiUser, turn: dict[str, str]) -> Any:
    """Read the turn, and return its status."""
    return (await user.get(f"turns/{turn['id']}")).json()["status"]


async def list_turns(user: ApiUser, turn: dict[str, str]) -> Any:
    """List the turns of the conversation, and return the status of the only one."""
    (listed,) = await user.list_items(f"conversations/{turn['conversation_id']}/turns")
    return listed["status"]
