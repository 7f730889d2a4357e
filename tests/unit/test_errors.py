"""The cause of a failure, as the log shows it."""

import pytest

from latchkey.domain.errors import Unavailable, cause_of


def raised(*errors: BaseException) -> BaseException:
    """Raise the last error from the one before it, and so on."""
    *causes, last = errors
    try:
        raise last from (raised(*causes) if causes else None)
    except type(last) as error:
        return error


@pytest.mark.parametrize(
    ("causes", "text"),
    [
        ([], None),
        ([ConnectionRefusedError(111, "Connection refused")], "ConnectionRefusedError: [Errno 111] Connection refused"),
        ([OSError("a\n b"), TimeoutError()], "TimeoutError <- OSError: a b"),
    ],
    ids=["none", "one", "two"],
)
def test_cause_of_failure_is_one_line(causes: list[BaseException], text: str | None) -> None:
    assert cause_of(raised(*causes, Unavailable("Try again."))) == text


def test_cause_of_failure_is_bounded() -> None:
    text = cause_of(raised(*(OSError("x" * 10_000) for _ in range(100)), Unavailable("Try again.")))
    assert len(text or "") <= 4 * 200 + 3 * 4
