"""Verifies, after the faults, that all data is consistent and that every conversation still works."""

import asyncio
import time
from itertools import count

from tests.chaos.client_driver import RECOVERY_SLACK_S, ClientDriver
from tests.chaos.cluster import Cluster
from tests.chaos.history import Anomaly, History, Invariant, SentMessage, TurnEvent
from tests.chaos.invariants import check_invariants
from tests.chaos.scripted_model import ScriptedModel, message_text
from tests.chaos.snapshot import Snapshot, SnapshotReader

POLL_S = 0.05
STATUS_CODES = {"completed": 200, "cancelled": 409, "interrupted": 503}


class ConsistencyVerifier:
    """Verifies the data of one user against the history of its clients. All replicas are up."""

    def __init__(self, cluster: Cluster, model: ScriptedModel, user: str, history: History) -> None:
        self._cluster = cluster
        self._model = model
        self._user = user
        self._token = cluster.token(user)
        self._history = history

    def anomalies(self, snapshot: Snapshot) -> list[Anomaly]:
        """All anomalies: those that the clients have met, and the invariants that the snapshot violates."""
        return [*self._history.anomalies, *check_invariants(snapshot, self._history, self._model)]

    async def final_snapshot(self) -> Snapshot:
        """The data after all turns have finished, all messages were replayed, and all conversations have continued."""
        async with (
            SnapshotReader(self._url(), self._user, self._token) as reader,
            ClientDriver(self._cluster, self._user, self._token, self._history) as client,
        ):
            await self._wait_for_turns(reader)
            for message in self._history.sent:
                if message.key is not None and message.outcome not in {"unknown", "left"}:
                    await self._replay(reader, message)
            for conversation in await reader.items("conversations"):
                await self._continue_conversation(client, conversation["id"])
            return await reader.snapshot()

    async def _wait_for_turns(self, reader: SnapshotReader) -> None:
        """Wait until no turn runs. It is an anomaly if that takes longer than leases and restarts explain."""
        started_at = time.monotonic()
        conversations = await reader.items("conversations")
        while running := [
            turn
            for conversation in conversations
            for turn in await reader.items(f"conversations/{conversation['id']}/turns")
            if turn["status"] == "running"
        ]:
            if time.monotonic() > started_at + self._cluster.lease_s + 10 + RECOVERY_SLACK_S:
                self._history.anomalies.append(Anomaly(Invariant.STUCK, f"{running}"))
                return
            await asyncio.sleep(POLL_S)

    async def _replay(self, reader: SnapshotReader, message: SentMessage) -> None:
        """Send a message again with its idempotency key: the first response must be repeated byte for byte."""
        accept = {"accept": "text/event-stream"} if message.is_streamed else {}
        headers = {"idempotency-key": message.key or "", **accept}
        replayed = await reader.http.post("chat", json=message.body, headers=headers)
        if message.is_streamed:
            parts = replayed.content.split(b"\n\n")
            events = [TurnEvent(raw) for raw in parts if raw and not raw.startswith(b":")]
            known = self._history.events[message.turn_id or ""]
            is_same = events == [event for _, event in sorted(known.items())]
        elif message.response is not None:
            is_same = replayed.content == message.response
        else:
            expected = [STATUS_CODES.get(message.outcome or ""), message.turn_id]
            is_same = [replayed.status_code, replayed.json().get("turn_id")] == expected
        if not is_same:
            anomaly = Anomaly(Invariant.CHANGED, f"the replay of {message} returned {replayed.text}")
            self._history.anomalies.append(anomaly)

    async def _continue_conversation(self, client: ClientDriver, conversation_id: str) -> None:
        """Another turn in the conversation must complete. On a busy machine some attempts may lose their lease."""
        deadline = time.monotonic() + RECOVERY_SLACK_S
        for attempt in count(1):
            tag = f"{self._user}x{conversation_id.replace('-', '')}x{attempt}"
            body = {"message": message_text(tag, 1, 1), "conversation_id": conversation_id}
            message = SentMessage(self._user, tag, body, key=tag, is_streamed=True)
            await client.send(message)
            if message.outcome == "completed":
                return
            if time.monotonic() > deadline:
                anomaly = Anomaly(Invariant.STUCK, f"{conversation_id} does not continue: {message}")
                self._history.anomalies.append(anomaly)
                return

    def _url(self) -> str:
        """The URL of the replica that was broken first and is up again."""
        url = self._cluster.urls[0]
        assert url is not None
        return url
