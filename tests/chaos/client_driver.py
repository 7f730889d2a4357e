"""A client that follows the rules of the API: it resumes streams, retries where it may, and records everything."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from typing import Self

import httpx2

from tests.chaos.cluster import Cluster
from tests.chaos.decisions import RETRY_DELAY_S, Decider
from tests.chaos.history import UNFINISHED, Anomaly, History, Invariant, Json, SentMessage, TurnEvent

RECOVERY_SLACK_S = 30.0
"""The time for restarts, and for a machine that is busy with other work."""
TIMEOUT = httpx2.Timeout(5, read=20)

OUTCOMES = {"turn-interrupted": "interrupted", "turn-cancelled": "cancelled"}


class ClientDriver:
    """A client of one user that sends each attempt to the next replica that is up."""

    def __init__(self, cluster: Cluster, user: str, token: str, history: History) -> None:
        self.user = user
        self._cluster = cluster
        self._history = history
        self._attempts = itertools.count()
        headers = {"authorization": f"Bearer {token}"}
        self._http = httpx2.AsyncClient(headers=headers, timeout=TIMEOUT)
        self._decider = Decider(self._http, user, history, self._next_url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def send(self, message: SentMessage, replica: int | None = None) -> None:
        """Send a message and wait for its outcome. The first attempt goes to `replica` if given.

        The timeout covers the end of a turn. It starts again after each lost connection.
        """
        self._history.sent.append(message)
        timeout_s = self._cluster.lease_s + 10 + RECOVERY_SLACK_S
        try:
            async with asyncio.timeout(timeout_s) as timeout:
                while message.outcome is None:
                    disconnected_at = message.disconnected_at
                    await self._attempt(message, replica)
                    replica = None
                    if message.disconnected_at != disconnected_at:
                        timeout.reschedule(asyncio.get_running_loop().time() + timeout_s)
        except TimeoutError:
            self._history.anomalies.append(Anomaly(Invariant.STUCK, f"{message} has no outcome"))
            message.outcome = "unknown"
        if message.disconnected_at is not None:
            self._history.recoveries.append(time.monotonic() - message.disconnected_at)

    async def cancel(self, turn_id: str) -> None:
        """Cancel a turn, without a retry."""
        path = f"{await self._next_url()}/api/{self.user}/turns/{turn_id}/cancel"
        try:
            response = await self._http.post(path)
        except httpx2.TransportError:
            return
        if response.status_code == httpx2.codes.OK:
            self._history.add_turn(response.json())

    async def _attempt(self, message: SentMessage, replica: int | None) -> None:
        url = (self._cluster.urls[replica] if replica is not None else None) or await self._next_url()
        try:
            if message.is_waiting:
                await self._decide(message)
            elif message.turn_id is not None and message.is_streamed:
                await self._resume(url, message, message.turn_id)
            elif message.turn_id is not None and message.key is None:
                await self._look_up(url, message, message.turn_id)
            else:
                await self._post(url, message)
        except httpx2.TransportError as error:
            message.log(f"{url}: {error!r}")
            self._record_disconnect(message)

    async def _decide(self, message: SentMessage) -> None:
        if message.decides == "leave":
            message.outcome = "left"
            return
        await self._decider.decide_all(message)
        message.is_waiting = False

    def _record_disconnect(self, message: SentMessage) -> None:
        message.disconnected_at = time.monotonic()
        if message.key is None and message.turn_id is None:
            message.outcome = "unknown"

    async def _post(self, url: str, message: SentMessage) -> None:
        headers = {"accept": "text/event-stream"} if message.is_streamed else {}
        if message.key is not None:
            headers["idempotency-key"] = message.key
        path = f"{url}/api/{self.user}/chat"
        async with self._http.stream("POST", path, json=message.body, headers=headers) as response:
            if response.status_code == httpx2.codes.ACCEPTED:
                waiting = json.loads(await response.aread())
                message.turn_id, message.conversation_id = waiting["turn_id"], waiting["conversation_id"]
                message.is_waiting = True
            elif response.status_code != httpx2.codes.OK:
                await response.aread()
                await self._handle_problem(response, message, url)
            elif message.is_streamed:
                await self._read_stream(response, message, 0)
            else:
                message.response = await response.aread()
                message.turn_id = message.response_json["turn_id"]
                message.conversation_id = message.response_json["conversation_id"]
                message.outcome = "completed"

    async def _resume(self, url: str, message: SentMessage, turn_id: str) -> None:
        """Follow the turn from the event after the last received one."""
        headers = {"last-event-id": str(message.last_event)}
        path = f"{url}/api/{self.user}/turns/{turn_id}/events"
        async with self._http.stream("GET", path, headers=headers) as response:
            if response.status_code != httpx2.codes.OK:
                await response.aread()
                await self._handle_problem(response, message, url)
            else:
                await self._read_stream(response, message, message.last_event)

    async def _look_up(self, url: str, message: SentMessage, turn_id: str) -> None:
        """Read the outcome of a turn whose answer was not received, for a message that cannot be sent again."""
        response = await self._http.get(f"{url}/api/{self.user}/turns/{turn_id}")
        if response.status_code != httpx2.codes.OK:
            await self._handle_problem(response, message, url)
        elif response.json()["status"] == "waiting":
            message.is_waiting = True
            await asyncio.sleep(RETRY_DELAY_S)
        elif response.json()["status"] in UNFINISHED:
            await asyncio.sleep(RETRY_DELAY_S)
        else:
            self._history.add_turn(response.json())
            message.outcome = response.json()["status"]

    async def _read_stream(self, response: httpx2.Response, message: SentMessage, last: int) -> None:
        """Record the events. They must follow event number `last` without a gap."""
        async for event in _read_events(response):
            self._history.add_event(event)
            if event.seq != last + 1:
                anomaly = Anomaly(Invariant.LOST, f"after event {last} came {event.raw!r} for {message}")
                self._history.anomalies.append(anomaly)
            last = event.seq
            message.add_event(event)
            if message.cancel_after_first_delta and event.name == "message.delta":
                message.cancel_after_first_delta = False
                await self.cancel(event.data["turn_id"])
        if message.outcome is None and message.is_streamed and not message.is_waiting:
            message.log(f"{response.url}: the stream ended")
            self._record_disconnect(message)
            await asyncio.sleep(RETRY_DELAY_S)

    async def _handle_problem(self, response: httpx2.Response, message: SentMessage, url: str) -> None:
        """Do what the API documents for this problem code."""
        problem: Json = response.json()
        message.log(f"{url}: {response.status_code} {problem['code']}")
        match problem["code"]:
            case "turn-in-progress" if message.key is None:
                await asyncio.sleep(RETRY_DELAY_S)
            case "turn-in-progress":
                message.turn_id = problem["turn_id"]
                await self._resume(url, message, problem["turn_id"])
            case "draining":
                message.turn_id = problem.get("turn_id", message.turn_id)
                message.conversation_id = problem.get("conversation_id", message.conversation_id)
                await asyncio.sleep(float(response.headers["retry-after"]))
            case "unavailable" | "conflict" if message.key is not None or message.turn_id is not None:
                await asyncio.sleep(float(response.headers.get("retry-after", RETRY_DELAY_S)))
            case "unavailable":
                message.outcome = "unknown"
            case code if {"turn_id", "conversation_id"} <= problem.keys():
                message.conversation_id = problem["conversation_id"]
                message.turn_id, message.outcome = problem["turn_id"], OUTCOMES.get(code, "failed")
            case _:
                anomaly = Anomaly(Invariant.LOST, f"{message} was answered {response.text}")
                self._history.anomalies.append(anomaly)
                message.outcome = "unknown"

    async def _next_url(self) -> str:
        """The next replica that is up. Waits until there is one."""
        while True:
            urls = [url for url in self._cluster.urls if url is not None]
            if urls:
                return urls[next(self._attempts) % len(urls)]
            await asyncio.sleep(RETRY_DELAY_S)


async def _read_events(response: httpx2.Response) -> AsyncIterator[TurnEvent]:
    """The complete events of a stream, without comments."""
    rest = b""
    async for chunk in response.aiter_raw():
        *parts, rest = (rest + chunk).split(b"\n\n")
        for raw in parts:
            if not raw.startswith(b":"):
                yield TurnEvent(raw)
