"""A model's server is asked again where that may help, soon, and not often."""

import httpx2
import pytest

from latchkey.infrastructure.agents.openai.retries import pause_s


def answered(status: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_what_may_pass_is_tried_twice_more_each_time_later(status: int) -> None:
    first, second, third = (pause_s(answered(status), retries) for retries in range(3))

    assert first is not None
    assert second is not None
    assert 0.375 <= first <= 0.5
    assert 0.75 <= second <= 1
    assert third is None


def test_a_server_that_cannot_be_reached_is_tried_again_too() -> None:
    assert [pause_s(None, retries) is None for retries in range(3)] == [False, False, True]


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 422])
def test_a_refusal_is_not_argued_with(status: int) -> None:
    assert pause_s(answered(status), 0) is None


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"retry_after": "1"}, 1),
        ({"retry_after": "5"}, 5),
        ({"retry_after_ms": "20"}, 0.02),
        ({"retry_after_ms": "20", "retry_after": "3"}, 0.02),
    ],
)
def test_the_server_says_how_long_to_wait(headers: dict[str, str], pause: float) -> None:
    assert pause_s(answered(503, **headers), 0) == pause


@pytest.mark.parametrize(
    "headers",
    [
        {"retry_after": "6"},
        {"retry_after": "tomorrow"},
        {"retry_after": "Wed, 21 Oct 2099 07:28:00 GMT"},
        {"retry_after": "nan"},
        {"retry_after_ms": "60000"},
    ],
    ids=str,
)
def test_a_long_wait_is_left_to_whoever_waits_for_the_turn(headers: dict[str, str]) -> None:
    assert pause_s(answered(503, **headers), 0) is None


@pytest.mark.parametrize("asked", ["0", "-1"])
def test_a_wish_for_no_wait_at_all_is_not_granted(asked: str) -> None:
    assert (pause_s(answered(429, retry_after=asked), 0) or 0) >= 0.375


def test_a_server_that_knows_whether_it_helps_is_believed() -> None:
    assert pause_s(answered(500, x_should_retry="false"), 0) is None
    assert pause_s(answered(400, x_should_retry="true"), 0) is not None
