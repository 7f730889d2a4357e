"""The number of source files that run for one request is limited, so that a reader can follow a request."""

from bench.files import REQUESTS, trace

LIMITS = {"rest_add_task": 22, "chat_turn_one_tool": 47}
"""`python -m bench.files` lists the files."""


async def test_source_files_per_request_are_within_limits(database_url: str, model_url: str) -> None:
    files = await trace(database_url, model_url)
    exceeded = {name: paths for name, paths in files.items() if len(paths) > LIMITS[name]}

    assert files.keys() == LIMITS.keys() == REQUESTS.keys()
    assert all("latchkey/application/tasks.py" in paths for paths in files.values())
    assert exceeded == {}
