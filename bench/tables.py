"""What was measured beside what is to be reached, as Markdown; times and CPU in milliseconds."""

from collections.abc import Iterator

from bench.comparison import Row

GOALS = {
    "rest_add_task": 6,
    "rest_list_tasks": 4,
    "rest_get_messages": 5,
    "mcp_add_task": 9,
    "mcp_list_tasks": 7,
    "chat_turn_no_tool": 40,
    "chat_turn_one_tool": 35,
    "chat_turn_one_tool_history": None,
}
"""So many times the CPU of the limit, at most; the last has its goal from the one before."""

WITHOUT, HISTORY = list(GOALS)[-2:]
HISTORY_GOAL = 1.3
SQLITE_WRITE_P99, SQLITE_SHARE = 50, 0.5


def table(rows: dict[str, Row]) -> Iterator[str]:
    """What a request costs, as a ratio to what it costs the limit."""
    yield "| operation | limit CPU | CPU | ratio | goal | p50 | p99 | p99 / p50 |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for name, row in rows.items():
        goal = GOALS[name] or f"{HISTORY_GOAL} x the row above"
        cpu = f"{row.limit_cpu:.3f} | {row.cpu:.2f} | {row.ratio:.1f}"
        yield f"| `{name}` | {cpu} | {goal} | {row.p50:.1f} | {row.p99:.1f} | {row.p99 / row.p50:.1f} |"
    if HISTORY in rows and WITHOUT in rows:
        times = rows[HISTORY].cpu / rows[WITHOUT].cpu
        yield f"\nWith 50 messages of history a turn costs {times:.2f} times the one without."


def sqlite_table(rows: dict[str, Row]) -> Iterator[str]:
    """How many requests there are beside those of the limit, and how long writes wait for one another."""
    goals = f"share (goal {SQLITE_SHARE}) | p50 | p99 (goal of writes {SQLITE_WRITE_P99})"
    yield f"| operation | limit req/s | req/s | {goals} | CPU ratio |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for name, row in rows.items():
        times = f"{row.p50:.1f} | {row.p99:.1f} | {row.ratio:.1f}"
        yield f"| `{name}` | {row.limit_rps:.0f} | {row.rps:.0f} | {row.share:.2f} | {times} |"
