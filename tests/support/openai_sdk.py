"""OpenAI's own SDK for Python as a client of the service."""

from typing import Any

from openai import AsyncOpenAI
from openai.types.responses import Response

from latchkey.domain.turn_event import TurnEvent
from latchkey.interfaces.http.frontends.openai.translator import ResponseTranslator
from tests.support.event_logs import SUMMARY
from tests.support.service import ApiUser

BASE_PATH = "openai/v1"


def sdk_of(user: ApiUser) -> AsyncOpenAI:
    """The SDK with its default options and the user's token."""
    base_url = f"{str(user.client.base_url).rstrip('/')}{user.path(BASE_PATH)}"
    return AsyncOpenAI(api_key=user.token, base_url=base_url, http_client=user.client)


KEEPALIVE = b":\n\n"


def frames_of(events: list[TurnEvent], after: int = -1, between: bytes = b"") -> bytes:
    """The stream of a response with these events, and with these bytes after each of them."""
    translator = ResponseTranslator(SUMMARY, after)
    return b"".join(translator.translate(event) + between for event in events)


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
