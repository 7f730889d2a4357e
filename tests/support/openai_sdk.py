"""OpenAI's own SDK for Python as a client of the service."""

from collections.abc import Sequence
from typing import Any

from openai import AsyncOpenAI
from openai.types.responses import Response

from latchkey.domain.turn_event import TurnEvent
from latchkey.interfaces.http.frontends.openai.ids import FIRST_PART, ResponsePart
from latchkey.interfaces.http.frontends.openai.translator import ResponseTranslator
from tests.support.event_logs import SUMMARY
from tests.support.service import ApiUser

BASE_PATH = "openai/v1"


def sdk_of(user: ApiUser) -> AsyncOpenAI:
    """The SDK with its default options and the user's token."""
    base_url = f"{str(user.client.base_url).rstrip('/')}{user.path(BASE_PATH)}"
    return AsyncOpenAI(api_key=user.token, base_url=base_url, http_client=user.client)


KEEPALIVE = b":\n\n"


def frames_of(
    events: list[TurnEvent],
    after: int = -1,
    between: bytes = b"",
    part: ResponsePart = FIRST_PART,
    log: Sequence[TurnEvent] = (),
) -> bytes:
    """The stream of a response with these events, and with these bytes after each of them."""
    translator = ResponseTranslator(SUMMARY, after, part, log)
    return b"".join(translator.translate(event) + between for event in events)


def parts_of(events: list[TurnEvent]) -> list[ResponsePart]:
    """The responses of a turn whose client decides all open questions of the turn at once."""
    decisions: list[list[int]] = []
    is_waiting = False
    for event in events:
        if event.name == "approval.decided" and is_waiting:
            decisions[-1].append(event.seq)
        elif event.is_waiting and not is_waiting:
            is_waiting = True
            decisions.append([])
        elif event.name == "turn.resumed":
            is_waiting = False
    return [FIRST_PART, *(ResponsePart(seqs[0] - 1, seqs[-1]) for seqs in decisions if seqs)]


def plain(item: Any) -> dict[str, Any]:
    """The item or response as the service sent it: without what the SDK adds."""
    data: dict[str, Any] = item.model_dump(mode="json", exclude_unset=True)
    items = data["output"] if data.get("object") == "response" else [data]
    for item_data in items:
        for part in item_data.get("content") or []:
            part.pop("parsed", None)
    return data


def text_of(item: Any) -> str:
    """The text of a message."""
    text: str = plain(item)["content"][0]["text"]
    return text


def turn_id_of(response: Response) -> str:
    """The id of the turn that is this response, as the REST API writes it."""
    digits = response.id.removeprefix("resp_")
    return "-".join([digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]])


def conversation_of(response: Response) -> str:
    """The id of the conversation of a response."""
    assert response.conversation is not None
    return response.conversation.id
