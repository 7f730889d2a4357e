"""What is looked into once the breaking is over: whether everything is there, and goes on."""

import asyncio
import time
from itertools import count

from tests.chaos.clockwork import Clockwork, asking
from tests.chaos.cluster import Cluster
from tests.chaos.oracle import anomalies
from tests.chaos.picture import Picture, Reader
from tests.chaos.record import Anomaly, Law, Record, Sent, TurnEvent
from tests.chaos.talker import SLACK_S, Talker

PAUSE_S = 0.05
STATUS_CODES = {"completed": 200, "cancelled": 409, "interrupted": 503}


class Inquest:
    """Looks into what became of one user, whose record it is. All replicas are up."""

    def __init__(self, cluster: Cluster, model: Clockwork, user: str, record: Record) -> None:
        self._cluster = cluster
        self._model = model
        self._user = user
        self._token = cluster.token(user)
        self._record = record

    def anomalies(self, picture: Picture) -> list[Anomaly]:
        """All that is wrong."""
        return [*self._record.anomalies, *anomalies(picture, self._record, self._model)]

    async def picture(self) -> Picture:
        """How it all ends: after every turn has ended, every message was sent again, and every conversation went on."""
        async with (
            Reader(self._url(), self._user, self._token) as reader,
            Talker(self._cluster, self._user, self._token, self._record) as talker,
        ):
            await self._wait(reader)
            for sent in self._record.sent:
                if sent.key is not None and sent.outcome != "unknown":
                    await self._send_again(reader, sent)
            for conversation in await reader.items("conversations"):
                await self._go_on(talker, conversation["id"])
            return await reader.picture()

    async def _wait(self, reader: Reader) -> None:
        """Nothing runs for long any more."""
        begun = time.monotonic()
        conversations = await reader.items("conversations")
        while running := [
            turn
            for one in conversations
            for turn in await reader.items(f"conversations/{one['id']}/turns")
            if turn["status"] == "running"
        ]:
            if time.monotonic() > begun + self._cluster.lease_s + 10 + SLACK_S:
                self._record.anomalies.append(Anomaly(Law.STUCK, f"{running}"))
                return
            await asyncio.sleep(PAUSE_S)

    async def _send_again(self, reader: Reader, sent: Sent) -> None:
        """The first answer comes again, byte for byte."""
        headers = {"idempotency-key": sent.key or "", **({"accept": "text/event-stream"} if sent.is_streamed else {})}
        again = await reader.http.post("chat", json=sent.body, headers=headers)
        if sent.is_streamed:
            events = [TurnEvent(raw) for raw in again.content.split(b"\n\n") if raw and not raw.startswith(b":")]
            is_same = events == [event for _, event in sorted(self._record.events[sent.turn_id or ""].items())]
        elif sent.answer is not None:
            is_same = again.content == sent.answer
        else:
            same = [STATUS_CODES.get(sent.outcome or ""), sent.turn_id]
            is_same = [again.status_code, again.json().get("turn_id")] == same
        if not is_same:
            self._record.anomalies.append(Anomaly(Law.CHANGED, f"{sent} was answered {again.text} when sent again"))

    async def _go_on(self, talker: Talker, conversation_id: str) -> None:
        """A conversation takes another turn, which completes: a machine that has other work may lose some leases."""
        until = time.monotonic() + SLACK_S
        for attempt in count(1):
            tag = f"{self._user}x{conversation_id.replace('-', '')}x{attempt}"
            body = {"message": asking(tag, 1, 1), "conversation_id": conversation_id}
            sent = Sent(self._user, tag, body, key=tag, is_streamed=True)
            await talker.say(sent)
            if sent.outcome == "completed":
                return
            if time.monotonic() > until:
                self._record.anomalies.append(Anomaly(Law.STUCK, f"{conversation_id} does not go on: {sent}"))
                return

    def _url(self) -> str:
        """Of the replica that was broken first, and is up again."""
        url = self._cluster.urls[0]
        assert url is not None
        return url
