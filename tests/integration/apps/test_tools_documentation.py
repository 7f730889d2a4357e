"""The example in docs/tools.md is an app that works."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.shop_server import ShopServer, shop_server
from tests.support.service import run_service, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = Path(__file__).parents[3] / "docs/tools.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest_asyncio.fixture(loop_scope="session")
async def shop(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ShopServer]:
    async with shop_server() as shop:
        shop.is_open.set()
        monkeypatch.setenv("SHOP_URL", shop.url)
        yield shop


async def test_app_in_the_documentation_works(
    shared_sqlite_url: str, shop: ShopServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = EXAMPLE.findall(PAGE.read_text())
    (tmp_path / "documented_tools.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    async with run_service(
        settings_for(shared_sqlite_url, LATCHKEY_APP="documented_tools:app"), validate=False
    ) as service:
        ada = service.user()
        await ada.create("tasks", title="Buy a bell")
        async with service.mcp_client(ada.token) as client:
            counted = await client.call_tool("count_tasks")
            stock = await client.call_tool("check_stock", {"sku": "tandem"})
            ordered = await client.call_tool("order_bicycle", {"sku": "tandem"})

    assert counted.structured_content == {"count": 1}
    assert stock.structured_content == {"sku": "tandem", "count": 7}
    assert ordered.structured_content == {"number": "N1", "sku": "tandem"}
    assert len(shop.keys[0]) == 36
