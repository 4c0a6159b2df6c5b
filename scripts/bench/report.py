"""What the bench against others found: medians and ratios, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable

# Of packets that came in: what may be on its way, besides what is in doubt.
LOSS_MAX = 0.001
# Of the time: kept from running by others, from which on a number is called noisy.
WAITED_MAX = 0.01
FLOOR, OURS, PEERS = "testpmd", "millrace", ("ovs", "ovs-default")


@dataclasses.dataclass(frozen=True)
class Round:
    """One run of one contender."""

    ns: float
    """Wall time per packet that left, or that came where packets are to be refused."""
    loss: float = 0.0
    """Share of the packets that came in and neither left nor were to be refused."""
    doubt: float = 0.0
    """By how much that may be too high: two counters are not read at the same moment."""
    waited: float = 0.0
    """Share of the time in which the forwarding thread was kept from its core."""
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    """What it said it dropped meanwhile, by reason."""
    connections: tuple[int, str] | None = None
    """How many it had, and their state."""
    expected: tuple[int, int] | None = None
    """How many at least and at most it must have."""
    extra: dict[str, float] = dataclasses.field(default_factory=dict)
    """What else was measured, e.g. percentiles."""


@dataclasses.dataclass
class Result:
    """All rounds of one contender with one kind of packets and one number of flows."""

    kind: str
    flows: int
    contender: str
    rounds: list[Round] = dataclasses.field(default_factory=list)
    error: str | None = None

    def fault(self) -> str | None:
        """Why its number means nothing, if so."""
        if self.error:
            return self.error
        if not self.rounds:
            return "not run"
        worst = max(self.rounds, key=lambda one: one.loss - one.doubt)
        if worst.loss - worst.doubt > LOSS_MAX:
            return f"lost {100 * worst.loss:.1f} % of its packets"
        for one in self.rounds:
            if one.dropped:
                return "dropped " + ", ".join(f"{number} ({reason})" for reason, number in one.dropped.items())
            if one.connections and one.expected:
                least, most = one.expected
                if not least <= one.connections[0] <= most:
                    return f"had {one.connections[0]} connections instead of {least} to {most}"
        return None

    def extra(self, name: str) -> float | None:
        """The median of something else that was measured."""
        values = [one.extra[name] for one in self.rounds if name in one.extra]
        return statistics.median(values) if values else None

    def ns(self) -> list[float]:
        return sorted(one.ns for one in self.rounds)

    def median(self) -> float | None:
        """Nanoseconds per packet; nothing if it means nothing."""
        return None if self.fault() else statistics.median(self.ns())

    def waited(self) -> float:
        return max((one.waited for one in self.rounds), default=0.0)

    def state(self) -> str | None:
        """The state its connections were in."""
        states = {one.connections[1] for one in self.rounds if one.connections}
        return ", ".join(sorted(states)) or None


class Results:
    """All results, with the ratios between them."""

    def __init__(self, results: Iterable[Result] = ()):
        self.all = list(results)

    def cases(self) -> list[tuple[str, int]]:
        """Kinds and numbers of flows, in the order they were asked for."""
        return list(dict.fromkeys((one.kind, one.flows) for one in self.all))

    def contenders(self) -> list[str]:
        return list(dict.fromkeys(one.contender for one in self.all))

    def find(self, kind: str, flows: int, contender: str) -> Result | None:
        found = (one for one in self.all if (one.kind, one.flows, one.contender) == (kind, flows, contender))
        return next(found, None)

    def median(self, kind: str, flows: int, contender: str) -> float | None:
        result = self.find(kind, flows, contender)
        return result.median() if result else None

    def best_peer(self, kind: str, flows: int) -> float | None:
        """Open vSwitch in whichever configuration was faster here."""
        medians = [self.median(kind, flows, one) for one in PEERS]
        return min((one for one in medians if one is not None), default=None)

    def faults(self) -> list[str]:
        told = ((one, one.fault()) for one in self.all)
        return [f"{one.contender}, {one.kind}, {one.flows} flows: {fault}" for one, fault in told if fault]


def ratio(value: float | None, to: float | None) -> float | None:
    return value / to if value is not None and to else None


def _cell(result: Result | None, floor: float | None) -> str:
    if result is None:
        return "-"
    if result.fault():
        return "FAULT"
    times = ratio(result.median(), floor)
    low, high = result.ns()[0], result.ns()[-1]
    beside = f" {times:4.1f}x" if times is not None and result.contender != FLOOR else ""
    noisy = "~" if result.waited() > WAITED_MAX else " "
    return f"{result.median():.1f} [{low:.1f} {high:.1f}]{beside}{noisy}"


def table(results: Results, machine: str, note: str) -> str:
    """Everything for people."""
    contenders = results.contenders()
    compared = OURS in contenders and any(one in contenders for one in PEERS)
    header = ["packets", "flows", *contenders, *(["ovs/millrace"] if compared else [])]
    rows = [header]
    for kind, flows in results.cases():
        floor = results.median(kind, flows, FLOOR)
        row = [kind, str(flows), *(_cell(results.find(kind, flows, one), floor) for one in contenders)]
        if compared:
            times = ratio(results.best_peer(kind, flows), results.median(kind, flows, OURS))
            row.append(f"{times:.1f}x" if times is not None else "-")
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [machine, note, ""]
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths))
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
    return "\n".join([*lines, *_remarks(results)])


def _remarks(results: Results) -> list[str]:
    lines = ["", *filter(None, map(_beside, results.all))]
    states: dict[tuple[str, str], list[str]] = {}
    for one in results.all:
        if one.state():
            states.setdefault((one.contender, one.state()), []).append(one.kind)
    for (contender, state), kinds in states.items():
        lines.append(f"connections of {contender} were {state} ({', '.join(dict.fromkeys(kinds))})")
    if any(one.waited() > WAITED_MAX for one in results.all):
        share = max(one.waited() for one in results.all)
        lines.append(f"~ noisy: others had the forwarding core for up to {100 * share:.1f} % of a round")
    return [*lines, *(f"FAULT: {fault}" for fault in results.faults())]


def _beside(result: Result) -> str | None:
    """What else is to be said of a result."""
    refused, middle, late = (result.extra(name) for name in ("refused", "turn_p50_ns", "turn_p99_ns"))
    where = f"{result.contender}, {result.kind}, {result.flows} flows:"
    if middle and late:
        fresh = result.extra("fresh_per_second") or 0
        turn = f"a burst took {middle:.0f} ns (p50), {late:.0f} ns (p99): {late / middle:.1f}x"
        return f"{where} {turn}; {fresh / 1e3:.0f}k connections a second came and went"
    return f"{where} {100 * refused:.0f} % of the SYNs were refused" if refused else None


def to_json(results: Results, machine: dict, settings: dict, checks: list[dict]) -> dict:
    """Everything for programs."""
    cases = []
    for one in results.all:
        median, ns = one.median(), one.ns()
        floor, peer = results.median(one.kind, one.flows, FLOOR), results.best_peer(one.kind, one.flows)
        cases.append({
            "kind": one.kind,
            "flows": one.flows,
            "contender": one.contender,
            "ns_per_packet": median,
            "least": ns[0] if ns else None,
            "most": ns[-1] if ns else None,
            "million_packets_per_second": 1e3 / median if median else None,
            "times_floor": ratio(median, floor),
            "times_ovs": ratio(median, peer),
            "connection_state": one.state(),
            "turn_p99_to_p50": ratio(one.extra("turn_p99_ns"), one.extra("turn_p50_ns")),
            "fault": one.fault(),
            "rounds": [dataclasses.asdict(turn) for turn in one.rounds],
        })
    return {"machine": machine, "settings": settings, "checks": checks, "cases": cases}
