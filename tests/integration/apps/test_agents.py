"""Agents of an app that fail: the user is told no detail, and the service goes on."""

from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.service import run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

APP = """
from latchkey import App, RateLimited, TextDelta


class Failing:
    name = "failing"
    model = None

    async def run(self, agent_run):
        yield TextDelta("Well, ")
        raise {error}

    async def aclose(self):
        pass


def create(connect):
    {creation}


app = App(name="failing", agents={{"failing": create}})
"""


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("KeyError('secret detail')", "return Failing()"), (500, "internal")),
        (("KeyError", "raise OSError('secret detail')"), (500, "internal")),
        (("RateLimited('Ask again later.', retry_after=7)", "return Failing()"), (503, "rate-limited")),
    ],
    ids=["bug in run", "bug in the factory", "failure"],
)
async def test_failing_agent_of_an_app_fails_its_turn(
    shared_sqlite_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: tuple[str, str],
    expected: tuple[int, str],
) -> None:
    module = f"failing_{uuid4().hex}"
    (tmp_path / f"{module}.py").write_text(APP.format(error=lines[0], creation=lines[1]))
    monkeypatch.chdir(tmp_path)
    settings = settings_for(shared_sqlite_url, LATCHKEY_APP=f"{module}:app", LATCHKEY_AGENT="failing")
    async with run_service(settings) as service:
        ada = service.user()
        for _ in range(2):
            failed = await ada.post("chat", json={"message": "Hello"})
            assert (failed.status_code, failed.json()["code"]) == expected
            assert "secret detail" not in failed.text
        assert await ada.list_items("tasks") == []
