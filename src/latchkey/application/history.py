"""How much of a conversation a model is given: whole turns, the newest first to be kept."""

from latchkey.domain.message import PastTurn


def fit(turns: list[PastTurn], chars: int) -> list[PastTurn]:
    """The newest of these turns (oldest first, as they are) that together hold at most so many characters."""
    kept = len(turns)
    for turn in reversed(turns):
        chars -= _size(turn)
        if chars < 0:
            break
        kept -= 1
    return turns[kept:]


def _size(turn: PastTurn) -> int:
    calls = sum(len(bytes(call.arguments)) + len(bytes(call.result)) for call in turn.tool_calls)
    return len(turn.message) + len(turn.answer or "") + calls
