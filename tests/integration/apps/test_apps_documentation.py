"""The examples in docs/apps.md are an app that works, with its controller."""

import re
from pathlib import Path

import pytest

from tests.support.service import run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = Path(__file__).parents[3] / "docs/apps.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


async def test_app_in_the_documentation_works(
    shared_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"documented_counters_{shared_database_url.partition('+')[0].partition(':')[0]}"
    code = "\n".join(EXAMPLE.findall(PAGE.read_text()))
    code += "\nfrom msgspec.structs import replace\napp = replace(app, controllers=[CountController])\n"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    settings = settings_for(shared_database_url, LATCHKEY_APP=f"{name}:app")
    async with run_service(settings, validate=False) as service:
        ada = service.user()
        await ada.create("tasks", title="Buy a bell")
        async with service.mcp_client(ada.token) as client:
            counted = await client.call_tool("count_tasks")
        response = await ada.get("count")

    assert counted.structured_content == response.json() == {"tasks": 1}
