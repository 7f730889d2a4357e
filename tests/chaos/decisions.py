"""Decides the approvals of a waiting turn as its client would: again after a lost response, sometimes both ways."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx2

from tests.chaos.history import Anomaly, History, Invariant, Json, SentMessage

OPPOSITE = {"approve": "decline", "decline": "approve"}
RETRY_DELAY_S = 0.05


class Decider:
    """Decides for one user. `next_url` returns the next replica that is up."""

    def __init__(
        self, http: httpx2.AsyncClient, user: str, history: History, next_url: Callable[[], Awaitable[str]]
    ) -> None:
        self._http = http
        self._user = user
        self._history = history
        self._next_url = next_url

    async def decide_all(self, message: SentMessage) -> None:
        """Decide every open approval of the turn. Raises `TransportError` if a response is lost."""
        for approval in await self._open_approvals(message):
            message.undecided[approval["id"]] = self._choose(message, approval)
            if approval not in self._history.approvals:
                self._history.approvals.append(approval)
        for call_id, decision in list(message.undecided.items()):
            if message.decides == "both":
                decisions = [decision, OPPOSITE[decision], decision]
                await asyncio.gather(*(self._decide(message, call_id, each) for each in decisions))
            else:
                await self._decide(message, call_id, decision)
            message.undecided.pop(call_id, None)

    async def _open_approvals(self, message: SentMessage) -> list[Json]:
        approvals: list[Json] = []
        cursor: dict[str, str] = {}
        while True:
            url = f"{await self._next_url()}/api/{self._user}/approvals"
            response = await self._http.get(url, params={"limit": "200", **cursor})
            if response.status_code == httpx2.codes.SERVICE_UNAVAILABLE:
                await asyncio.sleep(RETRY_DELAY_S)
                continue
            page = response.raise_for_status().json()
            approvals += [item for item in page["items"] if item["turn_id"] == message.turn_id]
            if page["next_cursor"] is None:
                return approvals
            cursor = {"cursor": page["next_cursor"]}

    async def _decide(self, message: SentMessage, call_id: str, decision: str) -> None:
        """Send a decision until it is answered. Only a decision that others made before may be refused."""
        while True:
            url = await self._next_url()
            path = f"{url}/api/{self._user}/turns/{message.turn_id}/approvals/{call_id}"
            response = await self._http.post(path, json={"decision": decision, "reason": None})
            message.log(f"{url}: {decision} {call_id}: {response.status_code} {response.text[:300]}")
            match response.status_code:
                case httpx2.codes.OK:
                    self._history.decided.append(response.json())
                    return
                case httpx2.codes.CONFLICT:
                    self._history.refused.append((call_id, decision))
                    return
                case httpx2.codes.SERVICE_UNAVAILABLE:
                    await asyncio.sleep(RETRY_DELAY_S)
                case _:
                    anomaly = Anomaly(Invariant.LOST, f"{decision} {call_id} was answered {response.text}")
                    self._history.anomalies.append(anomaly)
                    return

    def _choose(self, message: SentMessage, approval: Json) -> str:
        """Return the decision: the same whenever the question is asked again."""
        if message.decides == "mixed":
            return "approve" if approval["name"] == "request_task" else "decline"
        return "decline" if message.decides == "decline" else "approve"
