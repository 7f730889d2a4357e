"""Mutations of what protects a turn that waits or goes on in another process: see `mutations.py`.

Each is a function that removes one safeguard. The dispatch of a mutation to its tests is in `test_mutations.py`.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam

from latchkey.application.turns import approvals, resume, waiting
from latchkey.domain.approval import Question
from latchkey.domain.tool_call import ToolInvocation
from latchkey.domain.turn import Turn
from latchkey.infrastructure.database import schema
from latchkey.infrastructure.database.repositories import context_tokens, turns


def without_attempt_of_writer() -> None:
    """Events of a former attempt are appended."""
    statement: Any = turns._RECORD_PROGRESS
    kept = tuple(criterion for criterion in statement._where_criteria if "of_attempt" not in str(criterion))
    is_any_attempt = schema.turns.c.attempt >= bindparam("of_attempt")
    statement._where_criteria = (*kept, is_any_attempt)


def without_attempt_check() -> None:
    """A former attempt renews the lease, and ends the turn."""
    check_running = Turn.check_running

    def check_any_attempt(turn: Turn, now: datetime, _: int | None = None) -> None:
        check_running(turn, now)

    _replace(Turn, "check_running", check_any_attempt)


async def _do_nothing(*_: object) -> None: ...


def without_revocation_of_former_token() -> None:
    _replace(context_tokens.SqlContextTokens, "revoke_for_turn", _do_nothing)


def without_past_steps() -> None:
    """The next attempt begins at the user's message, so that it makes all calls again."""
    _replace(resume, "past_steps", lambda *_: [])


def with_endless_attempts() -> None:
    _replace(Turn, "can_continue", lambda *_: True)


def without_lease() -> None:
    """A turn is continued that another process runs."""
    _replace(Turn, "is_lost", lambda turn, _: turn.status in {"running", "waiting"})


def without_questions() -> None:
    """Calls that must be approved are made at once."""
    _replace(ToolInvocation, "must_wait", lambda *_: False)


def with_open_questions() -> None:
    """A question can be decided again."""
    _replace(Question, "is_open", property(lambda _: True))


def without_expiry_of_questions() -> None:
    _replace(approvals, "_check_open", lambda _, turn, __: approvals._check_unfinished(turn))


def without_wait_after_crash() -> None:
    """A turn whose process died after it had asked is continued, and does not wait."""
    _replace(resume, "_has_to_wait", lambda *_: False)


def without_end_of_wait() -> None:
    """The last decision does not end the lease: no process continues the turn."""
    _replace(waiting, "is_call_running", lambda _: True)


def without_renewal_of_wait() -> None:
    """A turn is continued while an approved call of it runs."""
    _replace(approvals, "renew_waiting_turn", _do_nothing)
    _replace(waiting, "is_call_running", lambda _: False)


TURN_MUTATIONS: dict[str, list[Callable[[], None]]] = {
    "attempt of a writer": [without_attempt_of_writer],
    "attempt check": [without_attempt_check],
    "revocation of a former attempt's token": [without_revocation_of_former_token],
    "steps of former attempts": [without_past_steps],
    "limit of attempts": [with_endless_attempts],
    "lease": [without_lease],
    "questions": [without_questions],
    "decision once": [with_open_questions],
    "expiry of questions": [without_expiry_of_questions],
    "wait after a crash": [without_wait_after_crash],
    "end of a wait": [without_end_of_wait],
    "renewal of a wait": [without_renewal_of_wait],
}


def _replace(target: Any, name: str, replacement: Any) -> None:
    """Raises `AttributeError` if the safeguard has another name by now."""
    getattr(target, name)
    setattr(target, name, replacement)
