"""What goes to a server that stores nothing of a conversation."""

import json

import httpx2
import openai
import pytest

from latchkey.infrastructure.agents.plain_client import PlainClient

SAID = [
    {"role": "user", "content": "Add milk"},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add_task", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "done"},
]


async def test_it_is_not_sent_what_it_would_have_to_look_up() -> None:
    """A model that reasons names its reasoning and its calls by ids; sent back, they are refused as unknown."""
    sent: list[bytes] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(await request.aread())
        return httpx2.Response(400, json={"error": {"message": "enough"}})

    async with PlainClient(
        api_key="k", http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(answer)), max_retries=0
    ) as client:
        with pytest.raises(openai.BadRequestError, match="enough"):
            await client.responses.create(model="m", input=SAID, store=False)

    assert json.loads(sent[0])["input"] == [
        {"role": "user", "content": "Add milk"},
        {"type": "function_call", "call_id": "call_1", "name": "add_task", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "done"},
    ]
