"""Answers of the model that call the tools of tasks, an assistant that asks before it adds one, and what follows."""

from tests.fakes.model_script import calls
from tests.support.service import ApiUser

ASKING = """
[assistant.default]
approve = ["add_task"]
"""
MILK = calls(("add_task", '{"title": "Buy milk"}'), saying=("I write ", "it down."))
BOTH = calls(("add_task", '{"title": "Buy milk"}'), ("list_tasks", "{}"), ("add_task", '{"title": "Buy tea"}'))


async def titles(user: ApiUser) -> list[str]:
    """The titles of the tasks, in the order in which they are listed."""
    return [task["title"] for task in await user.list_items("tasks")]


async def decide_over_rest(user: ApiUser, turn_id: str, call_id: str, decision: str) -> None:
    """Decide on a call, as another page of the user does."""
    response = await user.post(f"turns/{turn_id}/approvals/{call_id}", json={"decision": decision})
    assert response.status_code == 200, response.text
