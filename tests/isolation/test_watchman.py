"""The watchman finds what is somebody else's wherever it stands, and lets pass what is one's own."""

import base64
from uuid import uuid4

import httpx2
import pytest

from tests.isolation.watchman import Watchman

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


def asked(what: str = "") -> httpx2.Request:
    return httpx2.Request("GET", f"http://localhost/{what}")


@pytest.fixture
def watchman() -> Watchman:
    watchman = Watchman()
    watchman.claim("ada", ID, CANARY)
    return watchman


@pytest.mark.parametrize("answer", LEAKS.values(), ids=LEAKS)
def test_what_is_anothers_is_found(watchman: Watchman, answer: httpx2.Response) -> None:
    watchman.judge("ada", asked(), answer)
    with pytest.raises(AssertionError):
        watchman.judge("bob", asked(), answer)


def test_an_id_may_be_repeated_to_whoever_named_it_and_a_canary_may_not(watchman: Watchman) -> None:
    watchman.judge("bob", asked(ID), LEAKS["an error"])
    with pytest.raises(AssertionError):
        watchman.judge("bob", asked(CANARY), LEAKS["a canary"])


def test_a_mistake_of_the_service_is_found() -> None:
    with pytest.raises(AssertionError):
        Watchman().judge("ada", asked(), httpx2.Response(500))
