"""The leak detector finds foreign marks anywhere in a response, and accepts own marks."""

import base64
from uuid import uuid4

import httpx2
import pytest

from tests.isolation.leak_detector import LeakDetector

ID, CANARY = str(uuid4()), f"canary-{uuid4().hex}"
CURSOR = base64.urlsafe_b64encode(f'["tasks","{ID}"]'.encode()).rstrip(b"=").decode()

LEAKS = {
    "an id": httpx2.Response(200, text=f'{{"id":"{ID}"}}'),
    "a canary": httpx2.Response(200, text=f"# {CANARY}"),
    "a header": httpx2.Response(200, headers={"content-disposition": f"attachment; filename={CANARY}.md"}),
    "a cursor": httpx2.Response(200, text=f'{{"next_cursor":"{CURSOR}"}}'),
    "a cursor of another kind": httpx2.Response(200, text=f'{{"nextCursor":"artifacts:{CURSOR}"}}'),
    "an error": httpx2.Response(404, text=f"There is no {ID}"),
}


def request(path: str = "") -> httpx2.Request:
    return httpx2.Request("GET", f"http://localhost/{path}")


@pytest.fixture
def leak_detector() -> LeakDetector:
    leak_detector = LeakDetector()
    leak_detector.register("ada", ID, CANARY)
    return leak_detector


@pytest.mark.parametrize("answer", LEAKS.values(), ids=LEAKS)
def test_leak_detector_foreign_mark_is_detected(leak_detector: LeakDetector, answer: httpx2.Response) -> None:
    leak_detector.check("ada", request(), answer)
    with pytest.raises(AssertionError):
        leak_detector.check("bob", request(), answer)


def test_leak_detector_sent_id_may_be_repeated_and_sent_canary_may_not(leak_detector: LeakDetector) -> None:
    leak_detector.check("bob", request(ID), LEAKS["an error"])
    with pytest.raises(AssertionError):
        leak_detector.check("bob", request(CANARY), LEAKS["a canary"])


def test_leak_detector_server_error_is_detected() -> None:
    with pytest.raises(AssertionError):
        LeakDetector().check("ada", request(), httpx2.Response(500))
