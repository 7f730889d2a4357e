"""Formats results and goals as Markdown tables. Times and CPU in milliseconds."""

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
"""The maximum ratio to the CPU time of the baseline. The last goal is relative to the operation before it."""

WITHOUT, HISTORY = list(GOALS)[-2:]
HISTORY_GOAL = 1.3
SQLITE_WRITE_P99, SQLITE_SHARE = 50, 0.5


def table(rows: dict[str, Row]) -> Iterator[str]:
    """CPU time per request, as a ratio to that of the baseline."""
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
    """Throughput as a share of that of the baseline, and the latency of writes."""
    goals = f"share (goal {SQLITE_SHARE}) | p50 | p99 (goal of writes {SQLITE_WRITE_P99})"
    yield f"| operation | limit req/s | req/s | {goals} | CPU ratio |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for name, row in rows.items():
        times = f"{row.p50:.1f} | {row.p99:.1f} | {row.ratio:.1f}"
        yield f"| `{name}` | {row.limit_rps:.0f} | {row.rps:.0f} | {row.share:.2f} | {times} |"
