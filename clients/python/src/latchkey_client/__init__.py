"""An async client of Latchkey. It repeats requests that were lost and resumes streams; each message has one turn."""

import asyncio
import json
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Literal, NamedTuple, Self, TypedDict, final

import httpx2

__all__ = [
    "Approval",
    "ChatAnswer",
    "DecidedApproval",
    "Event",
    "LatchkeyClient",
    "ProblemError",
    "WaitingAnswer",
    "text_after",
]

_TEMPORARY = {"draining", "unavailable", "exhausted", "too-many-turns"}
_TEMPORARY_STATUSES = {408, 429, 502, 503, 504}
"""Those of a proxy, whose body is no problem."""
_LAST = {"turn.completed", "turn.failed", "turn.cancelled", "turn.interrupted", "turn.undone"}
_FIRST_DELAY_S, _MAX_DELAY_S, _CONNECT_S = 0.25, 10.0, 10.0
_ANSWER_S = 60.0
"""A message without an answer in that time is sent again, and joins its own turn."""

Token = str | Callable[[], Awaitable[str]]
Decision = Literal["approve", "decline"]


class Event(NamedTuple):
    """An event of a turn: its number, its name such as `message.delta`, and its data."""

    id: int
    name: str
    data: dict[str, Any]


def text_after(text: str, event: Event) -> str:
    """Return the answer after an event, given the answer before.

    Text is added, or withdrawn where a step has broken off.
    """
    if event.name == "message.delta":
        return text + str(event.data["text"])
    return text[: event.data["length"]] if event.name == "message.withdrawn" else text


@final
class ChatAnswer(TypedDict):
    """A completed turn."""

    conversation_id: str
    turn_id: str
    response: str
    message: dict[str, Any]
    tool_calls: list[dict[str, Any]]
    artifacts: list[dict[str, Any]]
    usage: dict[str, int]
    agent: str


@final
class WaitingAnswer(TypedDict):
    """A turn that waits. `approvals` are its open questions, with `id`, `name`, `arguments` and `expires_at`."""

    conversation_id: str
    turn_id: str
    status: Literal["waiting"]
    approvals: list[dict[str, Any]]
    tool_calls: list[dict[str, Any]]
    usage: dict[str, int]
    agent: str


class Approval(TypedDict):
    """An open question: a tool call that waits for a decision. It is declined at `expires_at`."""

    id: str
    turn_id: str
    conversation_id: str
    name: str
    arguments: dict[str, Any]
    requested_at: str
    expires_at: str


class DecidedApproval(TypedDict):
    """A tool call that was decided, and its result."""

    id: str
    turn_id: str
    conversation_id: str
    name: str
    arguments: dict[str, Any]
    decision: Decision
    reason: str | None
    by: str
    decided_at: str
    result: Any
    is_error: bool


class ProblemError(Exception):
    """A response with an error. `problem` is its body (RFC 9457); it is empty if a proxy has answered."""

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after_s: float) -> None:
        super().__init__(problem.get("detail", f"The service answered with status {status}."))
        self.status = status
        self.problem = problem
        self.code: str | None = problem.get("code")
        self.retry_after_s = retry_after_s

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed later. A turn that has failed stays failed: send a new request."""
        return self.status in _TEMPORARY_STATUSES if self.code is None else self.code in _TEMPORARY


class LatchkeyClient:
    """The API of one user.

    `token` may be a function that returns a current one. Up to `attempts` failures in a row are retried; an event of
    a stream resets the count. A stream that is silent for `idle_s` counts as lost: the service sends comments.
    """

    def __init__(
        self, base_url: str, token: Token, *, user: str = "me", attempts: int = 8, idle_s: float = 30.0
    ) -> None:
        self._token = token
        self._attempts = attempts
        self._stream_timeout = httpx2.Timeout(_CONNECT_S, read=idle_s)
        timeout = httpx2.Timeout(_CONNECT_S, read=_ANSWER_S)
        self._http = httpx2.AsyncClient(base_url=f"{base_url.rstrip('/')}/api/{user}/", timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def request(
        self, method: str, path: str, *, body: Any = None, idempotency_key: str | None = None, **params: Any
    ) -> Any:
        """Send a request until it is answered, and return the decoded body: `request("GET", "tasks", limit=10)`.

        All attempts of a POST or PUT have one idempotency key, so that it has one effect. Only `POST context-tokens`
        takes no key, and is sent once. Raises `ProblemError`.
        """
        is_sent_once = method == "POST" and path == "context-tokens"
        has_key = method in {"POST", "PUT"} and not is_sent_once
        headers = {"idempotency-key": idempotency_key or secrets.token_hex(16)} if has_key else {}
        backoff = _Backoff(1 if is_sent_once else self._attempts)
        while True:
            try:
                headers |= await self._authorization()
                return _body_of(await self._http.request(method, path, json=body, params=params, headers=headers))
            except (httpx2.TransportError, ProblemError) as error:
                await backoff.wait(error)

    async def chat(
        self, message: str, *, idempotency_key: str | None = None, **fields: Any
    ) -> ChatAnswer | WaitingAnswer:
        """Send a message and return the whole answer, or the open questions of a turn that waits.

        The latter has a `status`. Raises `ProblemError`, also if the turn fails.
        `fields` are those of `POST chat`, such as `conversation_id`.
        """
        body, key = {"message": message, **fields}, idempotency_key or secrets.token_hex(16)
        while True:
            try:
                answer: ChatAnswer | WaitingAnswer = await self.request("POST", "chat", body=body, idempotency_key=key)
            except ProblemError as error:
                if not error.problem.get("same_request"):
                    raise
                # The connection was lost and the turn is still running. Once it has ended, its answer is repeated.
                async for _ in self.follow(error.problem["turn_id"]):
                    pass
            else:
                return answer

    def stream(self, message: str, *, idempotency_key: str | None = None, **fields: Any) -> AsyncGenerator[Event, None]:
        """Send a message and yield the events of its turn, each once, up to the last. Lost connections are resumed.

        The events also end with a `turn.waiting` that none follows: the turn waits for decisions.
        Close the generator if you leave it early (`contextlib.aclosing`). The turn goes on: cancel it if need be.
        """
        headers = {"accept": "text/event-stream", "idempotency-key": idempotency_key or secrets.token_hex(16)}
        return self._events(None, 0, "POST", "chat", headers, {"message": message, **fields})

    def follow(self, turn_id: str, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """Yield the events of a turn after the one with the number `after`, as `stream` does."""
        return self._events(turn_id, after)

    async def approvals(self) -> list[Approval]:
        """Return the open questions: tool calls that wait for a decision."""
        page = await self.request("GET", "approvals", limit=200)
        approvals: list[Approval] = page["items"]
        while page["next_cursor"]:
            page = await self.request("GET", "approvals", limit=200, cursor=page["next_cursor"])
            approvals += page["items"]
        return approvals

    async def decide(
        self, turn_id: str, call_id: str, decision: Decision, *, reason: str | None = None
    ) -> DecidedApproval:
        """Approve or decline a tool call, and return its result. The turn goes on without the client."""
        body = {"decision": decision, "reason": reason}
        decided: DecidedApproval = await self.request("POST", f"turns/{turn_id}/approvals/{call_id}", body=body)
        return decided

    def decide_and_follow(
        self, turn_id: str, call_id: str, decision: Decision, *, reason: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """Approve or decline a tool call, and yield the events of its turn from the decision on, as `stream` does."""
        body, headers = {"decision": decision, "reason": reason}, {"accept": "text/event-stream"}
        return self._events(None, 0, "POST", f"turns/{turn_id}/approvals/{call_id}", headers, body)

    async def undo(self, turn_id: str) -> dict[str, Any]:
        """Undo what the tools of a turn have changed, and return the turn.

        Raises `ProblemError` with `conflicts` if something has been changed since: then nothing is undone.
        """
        turn: dict[str, Any] = await self.request("POST", f"turns/{turn_id}/undo")
        return turn

    async def _events(self, turn_id: str | None, last: int, *start: Any) -> AsyncGenerator[Event, None]:
        backoff, name = _Backoff(self._attempts), ""
        while True:
            failure: Exception = httpx2.ReadError("The stream ended before the last event of the turn.")
            resume = ("GET", f"turns/{turn_id}/events", {"last-event-id": str(last)})
            try:
                async with aclosing(self._read(*(start if turn_id is None else resume))) as events:
                    async for event in events:
                        if event.id > last:
                            turn_id, last, name = event.data["turn_id"], event.id, event.name
                            backoff.failures = 0
                            yield event
                            if name in _LAST:
                                return
                # A response that is complete: the turn waits, or it has no events after the given number.
                if name == "turn.waiting" or (not name and turn_id is not None):
                    return
            except (httpx2.TransportError, ProblemError) as error:
                failure = error
            await backoff.wait(failure)

    async def _read(self, method: str, path: str, headers: Any, body: Any = None) -> AsyncGenerator[Event, None]:
        headers, timeout = {**headers, **await self._authorization()}, self._stream_timeout
        async with self._http.stream(method, path, json=body, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                await response.aread()
                _body_of(response)
            received = b""
            async for chunk in response.aiter_bytes():
                *frames, received = (received + chunk).split(b"\n\n")
                for frame in frames:
                    if frame.startswith(b"id: "):  # the others are comments
                        yield _parsed(frame.decode())

    async def _authorization(self) -> dict[str, str]:
        token = self._token if isinstance(self._token, str) else await self._token()
        return {"authorization": f"Bearer {token}"}


class _Backoff:
    """Waits between attempts, longer each time, with jitter, and at least as long as `Retry-After` says."""

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self.failures = 0

    async def wait(self, error: Exception) -> None:
        """Wait before the next attempt. Raises the error if a further attempt cannot succeed."""
        self.failures += 1
        if self.failures >= self._attempts or (isinstance(error, ProblemError) and not error.is_temporary):
            raise error
        delay = min(_MAX_DELAY_S, _FIRST_DELAY_S * 2 ** (self.failures - 1)) * random.uniform(0.5, 1)  # noqa: S311
        await asyncio.sleep(max(delay, error.retry_after_s if isinstance(error, ProblemError) else 0))


def _parsed(frame: str) -> Event:
    fields = {name: value for name, _, value in (line.partition(": ") for line in frame.split("\n"))}
    return Event(int(fields["id"]), fields["event"], json.loads(fields["data"]))


def _body_of(response: httpx2.Response) -> Any:
    is_json = response.headers.get("content-type", "").partition(";")[0].endswith("json")
    if response.is_success:
        return response.json() if is_json else response.text
    retry_after = response.headers.get("retry-after", "")
    problem = response.json() if is_json else {}
    raise ProblemError(response.status_code, problem, float(retry_after) if retry_after.isdecimal() else 0)
