"""Turns that another process continues, in pages of the AI SDK: text that was withdrawn is in no message."""

from datetime import timedelta

import httpx2
import pytest

from latchkey.application.turns.record import EventBatch, append_events, renew_turn
from latchkey.bootstrap.core import create_core
from latchkey.domain.credentials import Owner, UserId
from latchkey.domain.turn import Usage
from tests.fakes.model_script import says
from tests.fakes.model_server import ModelServer
from tests.integration.http.ai_sdk.chat import API, answer, chunks, text_of
from tests.integration.http.lost_turns import GONE, lost_turn
from tests.support.service import Service
from tests.support.streamed_data import read_until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_stream_whose_text_is_withdrawn_breaks_and_the_resumed_one_has_no_word_twice(
    replicas: tuple[Service, Service], model: ModelServer
) -> None:
    """The page is connected to another process than the one that ran the turn and is gone."""
    ada = replicas[0].user()
    turn = (await lost_turn(replicas[0], ada, timedelta(minutes=10))).turn
    owner, core = Owner(UserId(ada.user_id)), create_core(replicas[0].settings)
    await core.dispatcher.call(owner, append_events, turn.id, EventBatch(0, "Half an", Usage()))
    path = f"{API}/turn/{turn.id}/stream"

    async with ada.stream("GET", path) as response:
        lines = response.aiter_lines()
        before = await read_until(lines, "text-delta")
        model.script += [says("A whole ", "answer.")]
        await core.dispatcher.call(owner, renew_turn, turn.id, GONE)
        assert (await ada.get(f"turns/{turn.id}")).json()["attempt"] == 2
        with pytest.raises(httpx2.RemoteProtocolError):
            await read_until(lines, "finish")
    await core.engine.dispose()
    resumed = chunks(await ada.get(path))
    shown = await answer(ada, str(turn.conversation_id))

    assert text_of(before) == "Half an"
    assert text_of(resumed) == "A whole answer."
    assert [part["text"] for part in shown["parts"] if part["type"] == "text"] == ["A whole answer."]
