"""What a storm came to, in numbers."""

from collections import Counter
from statistics import median

from tests.chaos.clockwork import Clockwork
from tests.chaos.record import Anomaly, Law, Record

OUTCOMES = ("completed", "interrupted", "cancelled", "failed", "unknown")


class Figures:
    """Kills by weapon, turns by outcome, and everything that is wrong."""

    def __init__(self, kills: Counter[str]) -> None:
        self.kills = kills
        self.outcomes: Counter[str] = Counter()
        self.tool_calls: Counter[str] = Counter()
        self.recoveries: list[float] = []
        self.anomalies: list[Anomaly] = []

    def add(self, record: Record, anomalies: list[Anomaly]) -> None:
        self.outcomes += Counter(str(sent.outcome) for sent in {one.tag: one for one in record.sent}.values())
        events = [event for seen in record.events.values() for event in seen.values()]
        self.tool_calls += Counter(event.name for event in events if event.name.startswith("tool_call."))
        self.recoveries += record.recoveries
        self.anomalies += anomalies

    def add_faults(self, model: Clockwork) -> None:
        """What a model has refused since the last time."""
        self.anomalies += [Anomaly(Law.WIRE, fault) for fault in model.faults]
        model.faults.clear()

    def merge(self, more: "Figures") -> None:
        self.kills += more.kills
        self.outcomes += more.outcomes
        self.tool_calls += more.tool_calls
        self.recoveries += more.recoveries
        self.anomalies += more.anomalies

    def __str__(self) -> str:
        wrong = Counter(anomaly.law for anomaly in self.anomalies)
        slowest = sorted(self.recoveries) or [0.0]
        lines = {
            "kills": f"{self.kills.total()} ({_listed(self.kills)})",
            "turns": ", ".join(f"{self.outcomes[outcome]} {outcome}" for outcome in OUTCOMES),
            "tool calls": f"{self.tool_calls['tool_call.started']} seen to start, "
            f"{self.tool_calls['tool_call.completed']} seen to be completed",
            "recovery": f"{len(self.recoveries)} times, p50 {median(slowest):.2f} s, max {slowest[-1]:.2f} s",
            "anomalies": ", ".join(f"{wrong[law]} {law}" for law in Law),
        }
        return "\n".join(f"{name:>12}: {text}" for name, text in lines.items())


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
