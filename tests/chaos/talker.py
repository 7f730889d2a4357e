"""A client that does as it is told: it goes on where it was cut off, tries again where it may, and notes everything."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from typing import Self

import httpx2

from tests.chaos.cluster import Cluster
from tests.chaos.record import Anomaly, Json, Law, Record, Sent, TurnEvent

SLACK_S = 15.0
"""For everything but the turn: restarts, and a machine that has other work."""
PAUSE_S = 0.05
TIMEOUT = httpx2.Timeout(5, read=20)

STATUSES = {"turn-interrupted": "interrupted", "turn-cancelled": "cancelled"}


class Talker:
    """Talks as one user to each replica in turn, as long as it is up."""

    def __init__(self, cluster: Cluster, user: str, token: str, record: Record) -> None:
        self.user = user
        self._cluster = cluster
        self._record = record
        self._attempts = itertools.count()
        headers = {"authorization": f"Bearer {token}"}
        self._http = httpx2.AsyncClient(headers=headers, timeout=TIMEOUT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def say(self, sent: Sent, nth: int | None = None) -> None:
        """Returns once it is known what came of the message. `nth` is the replica to begin with.

        Whoever loses a connection begins to wait anew: for what a turn's end may take, and not for ever.
        """
        self._record.sent.append(sent)
        patience_s = self._cluster.lease_s + 10 + SLACK_S
        try:
            async with asyncio.timeout(patience_s) as patience:
                while sent.outcome is None:
                    lost_at = sent.lost_at
                    await self._try(sent, nth)
                    nth = None
                    if sent.lost_at != lost_at:
                        patience.reschedule(asyncio.get_running_loop().time() + patience_s)
        except TimeoutError:
            self._record.anomalies.append(Anomaly(Law.STUCK, f"{sent} has no outcome"))
            sent.outcome = "unknown"
        if sent.lost_at is not None:
            self._record.recoveries.append(time.monotonic() - sent.lost_at)

    async def cancel(self, turn_id: str) -> None:
        """Does not try twice."""
        path = f"{await self._somewhere()}/api/{self.user}/turns/{turn_id}/cancel"
        try:
            answer = await self._http.post(path)
        except httpx2.TransportError:
            return
        if answer.status_code == httpx2.codes.OK:
            self._record.show(answer.json())

    async def _try(self, sent: Sent, nth: int | None) -> None:
        url = (self._cluster.urls[nth] if nth is not None else None) or await self._somewhere()
        try:
            if sent.turn_id is not None and sent.is_streamed:
                await self._follow(url, sent, sent.turn_id)
            else:
                await self._post(url, sent)
        except httpx2.TransportError as error:
            sent.note(f"{url}: {error!r}")
            self._lose(sent)

    def _lose(self, sent: Sent) -> None:
        sent.lost_at = time.monotonic()
        if sent.key is None and sent.turn_id is None:
            sent.outcome = "unknown"

    async def _post(self, url: str, sent: Sent) -> None:
        headers = {"accept": "text/event-stream"} if sent.is_streamed else {}
        if sent.key is not None:
            headers["idempotency-key"] = sent.key
        path = f"{url}/api/{self.user}/chat"
        async with self._http.stream("POST", path, json=sent.body, headers=headers) as answer:
            if answer.status_code != httpx2.codes.OK:
                await answer.aread()
                await self._heed(answer, sent, url)
            elif sent.is_streamed:
                await self._listen(answer, sent, 0)
            else:
                sent.answer = await answer.aread()
                sent.turn_id, sent.conversation_id = sent.told["turn_id"], sent.told["conversation_id"]
                sent.outcome = "completed"

    async def _follow(self, url: str, sent: Sent, turn_id: str) -> None:
        """From the event behind the last one that it has."""
        headers = {"last-event-id": str(sent.last_event)}
        path = f"{url}/api/{self.user}/turns/{turn_id}/events"
        async with self._http.stream("GET", path, headers=headers) as answer:
            if answer.status_code != httpx2.codes.OK:
                await answer.aread()
                await self._heed(answer, sent, url)
            else:
                await self._listen(answer, sent, sent.last_event)

    async def _listen(self, answer: httpx2.Response, sent: Sent, last: int) -> None:
        """Exactly the events behind the last one come, in their order."""
        async for event in _events(answer):
            self._record.hear(event)
            if event.seq != last + 1:
                self._record.anomalies.append(Anomaly(Law.LOST, f"behind {last} came {event.raw!r} to {sent}"))
            last = event.seq
            sent.hear(event)
            if sent.is_to_be_cancelled and event.name == "message.delta":
                sent.is_to_be_cancelled = False
                await self.cancel(event.data["turn_id"])
        if sent.outcome is None and sent.is_streamed:
            sent.note(f"{answer.url}: the stream ended")
            self._lose(sent)
            await asyncio.sleep(PAUSE_S)

    async def _heed(self, answer: httpx2.Response, sent: Sent, url: str) -> None:
        """Do as a problem says."""
        problem: Json = answer.json()
        sent.note(f"{url}: {answer.status_code} {problem['code']}")
        match problem["code"]:
            case "turn-in-progress" if sent.key is None:
                await asyncio.sleep(PAUSE_S)
            case "turn-in-progress":
                sent.turn_id = problem["turn_id"]
                await self._follow(url, sent, problem["turn_id"])
            case "draining":
                await asyncio.sleep(float(answer.headers["retry-after"]))
            case "unavailable" | "conflict" if sent.key is not None or sent.turn_id is not None:
                await asyncio.sleep(float(answer.headers.get("retry-after", PAUSE_S)))
            case "unavailable":
                sent.outcome = "unknown"
            case code if "turn_id" in problem:
                sent.conversation_id = problem["conversation_id"]
                sent.turn_id, sent.outcome = problem["turn_id"], STATUSES.get(code, "failed")
            case _:
                self._record.anomalies.append(Anomaly(Law.LOST, f"{sent} was answered {answer.text}"))
                sent.outcome = "unknown"

    async def _somewhere(self) -> str:
        """A replica that is up, once one is."""
        while True:
            up = [url for url in self._cluster.urls if url is not None]
            if up:
                return up[next(self._attempts) % len(up)]
            await asyncio.sleep(PAUSE_S)


async def _events(answer: httpx2.Response) -> AsyncIterator[TurnEvent]:
    """The events of a stream, without its comments and what is cut off at its end."""
    rest = b""
    async for chunk in answer.aiter_raw():
        *whole, rest = (rest + chunk).split(b"\n\n")
        for raw in whole:
            if not raw.startswith(b":"):
                yield TurnEvent(raw)
