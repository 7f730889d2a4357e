"""The result of a fault injection run, in numbers."""

from collections import Counter
from statistics import median

from tests.chaos.history import Anomaly, History, Invariant
from tests.chaos.scripted_model import ScriptedModel

OUTCOMES = ("completed", "interrupted", "cancelled", "failed", "left", "unknown")


class Report:
    """Kills by signal, turns by outcome, recovery times, and all anomalies."""

    def __init__(self, kills: Counter[str]) -> None:
        self.kills = kills
        self.outcomes: Counter[str] = Counter()
        self.tool_calls: Counter[str] = Counter()
        self.resumed: Counter[str] = Counter()
        self.decisions: Counter[str] = Counter()
        self.recoveries: list[float] = []
        self.anomalies: list[Anomaly] = []

    def add(self, history: History, anomalies: list[Anomaly]) -> None:
        last_by_tag = {message.tag: message for message in history.sent}
        self.outcomes += Counter(str(message.outcome) for message in last_by_tag.values())
        events = [event for by_seq in history.events.values() for event in by_seq.values()]
        self.tool_calls += Counter(event.name for event in events if event.name.startswith("tool_call."))
        self.resumed += Counter(event.data["reason"] for event in events if event.name == "turn.resumed")
        decided = {decision["id"]: decision["decision"] for decision in history.decided}
        self.decisions += Counter([*decided.values(), *("refused" for _ in history.refused)])
        self.recoveries += history.recoveries
        self.anomalies += anomalies

    def add_faults(self, model: ScriptedModel) -> None:
        """Add the faults that the model has recorded since the last call."""
        self.anomalies += [Anomaly(Invariant.MODEL_REFUSED, fault) for fault in model.faults]
        model.faults.clear()

    def merge(self, other: "Report") -> None:
        self.kills += other.kills
        self.outcomes += other.outcomes
        self.tool_calls += other.tool_calls
        self.resumed += other.resumed
        self.decisions += other.decisions
        self.recoveries += other.recoveries
        self.anomalies += other.anomalies

    def __str__(self) -> str:
        anomalies = Counter(anomaly.invariant for anomaly in self.anomalies)
        seconds = sorted(self.recoveries) or [0.0]
        lines = {
            "kills": f"{self.kills.total()} ({_listed(self.kills)})",
            "turns": ", ".join(f"{self.outcomes[outcome]} {outcome}" for outcome in OUTCOMES),
            "tool calls": f"{self.tool_calls['tool_call.started']} started events received, "
            f"{self.tool_calls['tool_call.completed']} completed events received",
            "decisions": _listed(self.decisions),
            "continued": f"{self.resumed.total()} times ({_listed(self.resumed)})",
            "recovery": f"{len(self.recoveries)} times, p50 {median(seconds):.2f} s, max {seconds[-1]:.2f} s",
            "anomalies": ", ".join(f"{anomalies[invariant]} {invariant}" for invariant in Invariant),
        }
        return "\n".join(f"{name:>12}: {text}" for name, text in lines.items())


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
