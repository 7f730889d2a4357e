"""The time zone of a turn: from the body, the conversation, or the user's token; the model is told the time there."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import jwt
import pytest

from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.support.captured_log import captured_log
from tests.support.service import AUTH_SECRET, ApiUser, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

_TIME = re.compile(r"It is (\w+, \d{4}-\d\d-\d\d \d\d:\d\d) in (\S+) \(UTC([+-]\d\d:\d\d)\)\.")


@pytest.fixture
def ada(model_service: Service) -> ApiUser:
    return model_service.user()


def with_claims(user: ApiUser, **claims: Any) -> ApiUser:
    """The user with a token that has these claims too."""
    payload = jwt.decode(user.token, options={"verify_signature": False})
    return replace(user, token=jwt.encode({**payload, **claims}, AUTH_SECRET, "HS256"))


async def zone_told(user: ApiUser, model: ModelServer, message: str = "Hi", **body: Any) -> tuple[str, str]:
    """Send a message; return the zone of the time in the system prompt, and the conversation."""
    model.script += [says("Hello.")]
    answer = await user.chat(message, **body)
    instructions = model.requests[-1].conversation[0][1]
    matched = _TIME.search(instructions)
    assert matched, instructions
    local_time, zone, offset = matched.groups()
    now = datetime.now(ZoneInfo(zone))
    assert local_time in {f"{now - timedelta(minutes=ago):%A, %Y-%m-%d %H:%M}" for ago in (0, 1)}
    assert offset == f"{now:%z}"[:3] + ":" + f"{now:%z}"[3:]
    assert f"T{now:%H}:00:00{offset}" in instructions or now.minute == 0
    return zone, answer["conversation_id"]


async def test_chat_timezone_of_body_is_told_and_remembered_with_the_conversation(
    ada: ApiUser, model: ModelServer
) -> None:
    zone, conversation = await zone_told(ada, model, timezone="Europe/Berlin")
    later = [
        await zone_told(ada, model, conversation_id=conversation, **body)
        for body in ({}, {"timezone": None}, {"timezone": "Asia/Kathmandu"}, {})
    ]

    assert [zone, *(name for name, _ in later)] == [*["Europe/Berlin"] * 3, *["Asia/Kathmandu"] * 2]
    assert await zone_told(ada, model) != (zone, conversation)


async def test_chat_without_timezone_is_told_utc(ada: ApiUser, model: ModelServer) -> None:
    zone, conversation = await zone_told(ada, model)

    assert (zone, (await zone_told(ada, model, conversation_id=conversation))[0]) == ("UTC", "UTC")


async def test_chat_timezone_of_token_applies_unless_body_or_conversation_names_one(
    ada: ApiUser, model: ModelServer
) -> None:
    user = with_claims(ada, zoneinfo="America/Los_Angeles")
    zone, conversation = await zone_told(user, model)
    body_zone, _ = await zone_told(user, model, timezone="Asia/Tokyo", conversation_id=conversation)
    remembered_zone, _ = await zone_told(user, model, conversation_id=conversation)

    assert (zone, body_zone, remembered_zone) == ("America/Los_Angeles", "Asia/Tokyo", "Asia/Tokyo")


@pytest.mark.parametrize("claim", ["Mars/Olympus", "", 5, ["Europe/Berlin"], {"a": 1}, "../etc/passwd", "x" * 5000])
async def test_chat_invalid_timezone_of_token_is_ignored_and_logged(
    ada: ApiUser, model: ModelServer, claim: object
) -> None:
    with captured_log() as log:
        zone, _ = await zone_told(with_claims(ada, zoneinfo=claim), model)

    assert zone == "UTC"
    assert len(log.lines("token_zoneinfo_ignored")) == bool(claim)


@pytest.mark.parametrize(
    "name",
    ["Mars/Olympus", "", "europe", "Europe", "/etc/localtime", "../UTC", "UTC\n", "Zürich", "posix/UTC", "x" * 65, 1],
)
async def test_chat_unknown_timezone_is_422_and_stores_nothing(ada: ApiUser, name: object) -> None:
    refused = await ada.post("chat", json={"message": "Hi", "timezone": name})
    problem = refused.json()

    assert (refused.status_code, problem["code"], problem["errors"][0]["path"]) == (422, "invalid", "$.timezone")
    assert await ada.list_items("conversations") == []
