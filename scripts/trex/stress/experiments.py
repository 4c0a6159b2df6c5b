"""What is run: no-drop rates, what becomes of more than those, latency against load, connections per second, mixes and
floods.

A *unit* is one experiment with one load in one configuration of the device, repeated; its result is a dictionary that
goes to disk as it is. Every trial in it has both books, compared: a unit in which they disagreed is `faulty`, and so
is the run.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from . import ledger, spread
from .device import Device
from .generators import Generator, Sample
from .search import Settings, Verdict, search
from .traffic import STATEFUL, STATELESS, SWEEP, Stateful, Stateless, udp

# A trial in which fewer packets, of those asked for, than this share were made and taken in is one of another rate.
MADE_MIN = 0.98
# Of the no-drop rate, for latency against load.
LOADS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
# Where books disagree, packets may still wait in a queue of somebody who does not get to run: how often, and how long
# that is waited for.
RECOUNTS, RECOUNT_SECONDS = 6, 0.5
# Of the highest rate that is tried, for loss by load; of small datagrams only, as XenoFlow's figure 5 has it.
OFFERED = tuple(share / 100 for share in range(50, 101, 5))
CURVES = ("udp-18", "udp-23")
KINDS = ("no-drop", "sweep", "overload", "latency", "cps", "mix", "flood")


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is done."""

    repetitions: int = 3
    seconds: float = 10.0
    """Of a trial."""
    loss_max: float = 0.0
    """Share of packets that may be lost in a trial that passes."""
    resolution: float = 0.02
    again: int = 0
    confirm: int = 1
    pps_min: float = 1000.0
    """Packets per second below which nothing is looked for."""
    pps_max: float = 1e8
    link_gbps: float = float("inf")
    """What no load exceeds, counted on the wire."""
    pps_warm: float = 1000.0
    """Of the second before the first trial, in which connections are made, and taken to hardware."""
    cps_min: float = 10.0
    """The same of new connections."""
    cps_max: float = 1e6

    def settings(self, load: Stateless | Stateful) -> Settings:
        """How the highest rate of this load is looked for."""
        if isinstance(load, Stateful):
            low, high = self.cps_min, self.cps_max
        else:
            low, high = self.pps_min, min(self.pps_max, load.size.line_rate_pps(self.link_gbps))
        return Settings(min(low, high), high, self.resolution, again=self.again, confirm=self.confirm)


@dataclasses.dataclass(frozen=True)
class Unit:
    """One thing to be done."""

    kind: str
    load: Stateless | Stateful

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.load.name}"


def plan(
    kinds: list[str], can: Callable[[Stateless | Stateful], str | None], mode: str, sizes: tuple[int, ...] = SWEEP
) -> tuple[list[Unit], dict[str, str]]:
    """What there is to do in a mode, and why the rest cannot be done there, or by the generator that `can` asks. Loads
    of one kind stay together, as TRex's server is started anew between stateless and stateful ones."""
    wanted = []
    for kind in KINDS:
        if kind not in kinds:
            continue
        if kind == "no-drop":
            wanted += [Unit(kind, STATELESS[name]) for name in ("udp-18", "dns", "imix", "fresh")]
        elif kind in ("sweep", "overload"):
            wanted += [Unit(kind, udp(payload)) for payload in sizes]
        elif kind == "latency":
            wanted.append(Unit(kind, STATELESS["udp-18"]))
        elif kind == "cps":
            wanted += [Unit(kind, STATEFUL[name]) for name in ("http-short", "dns")]
        elif kind == "mix":
            wanted += [Unit(kind, STATEFUL[name]) for name in ("http-long", "mix")]
        elif kind == "flood":
            wanted.append(Unit(kind, STATELESS["syn"]))
    # The flood last of the stateless ones: it fills the table.
    wanted.sort(key=lambda unit: (isinstance(unit.load, Stateful), unit.kind == "flood"))
    left_out = {unit.name: why for unit in wanted if (why := can(unit.load) or _no_way_back(unit.load, mode))}
    return [unit for unit in wanted if unit.name not in left_out], left_out


def loads(sizes: tuple[int, ...]) -> set[str]:
    """The names of all loads there are."""
    return {*STATELESS, *STATEFUL, *(udp(payload).name for payload in sizes)}


def _no_way_back(load: Stateless | Stateful, mode: str) -> str | None:
    """Why conversations cannot be had in this mode, if so."""
    if isinstance(load, Stateful) and mode != "nat":
        instead = "see `fresh`" if mode == "dsr" else "and it opens no connections"
        return f"n/a with {mode}: answers do not pass Millrace, and there is no other way between two ports; {instead}"
    return None


class Bench:
    """A generator and a device, and how much effort is made; `say` is told how far it is."""

    def __init__(self, generator: Generator, device: Device, effort: Effort, say: Callable[[str], None]):
        self.generator, self.device, self.effort, self._say = generator, device, effort, say
        self._rates: dict[str, list[float]] = {}

    def know(self, unit: dict) -> None:
        """Takes up what was found before: no-drop rates, as they were asked for."""
        if unit["kind"] in ("no-drop", "sweep"):
            self._rates[unit["load"]] = [one["asked"] for one in unit["results"]]

    def run(self, unit: Unit) -> dict:
        """The result of a unit."""
        self._trials: list[dict] = []
        repeat = {
            "no-drop": self._rate,
            "sweep": self._rate,
            "overload": self._overload,
            "latency": self._latency,
            "cps": self._cps,
            "mix": self._cps,
            "flood": self._flood,
        }[unit.kind]
        stateful = isinstance(unit.load, Stateful)
        self._trial(unit.load, self.effort.settings(unit.load).low if stateful else self.effort.pps_warm, warm=True)
        results = []
        for turn in range(self.effort.repetitions):
            self._say(f"{unit.name}: repetition {turn + 1} of {self.effort.repetitions}")
            results.append(repeat(unit.load))
        faults = [f"at {one['wanted']:.0f}/s: {fault}" for one in self._trials for fault in one["disagreements"]]
        return {
            "kind": unit.kind,
            "load": unit.load.name,
            "about": self.generator.about(unit.load),
            "millrace": self.device.build(),
            "size": dataclasses.asdict(unit.load.size) if isinstance(unit.load, Stateless) else None,
            "results": results,
            "summary": summary(unit.kind, results),
            "faults": faults,
            "trials": self._trials,
        }

    def _trial(self, load: Stateless | Stateful, rate: float, *, latency: bool = False, warm: bool = False) -> Sample:
        """One trial with both books read at rest before and after, compared and kept. A warm one makes connections and
        fills caches, and is not kept."""
        before = self.device.at_rest()
        seconds = min(self.effort.seconds, 1.0) if warm else self.effort.seconds
        if isinstance(load, Stateful):
            sample = self.generator.stateful(load, rate, seconds)
        else:
            sample = self.generator.stateless(load, rate, seconds, latency=latency)
        book, disagreements = self._compare(sample, before)
        if isinstance(load, Stateless):
            sample.begun = sample.clients.sent
        if warm:
            return sample
        lost = 100 * sample.lost / max(sample.clients.sent + sample.servers.sent, 1)
        self._say(
            f"  {rate:,.0f}/s: made {sample.rate:,.0f}/s, lost {sample.lost:,} packets ({lost:.3f} %)"
            + (f", {sample.failed} connections failed" if sample.failed else "")
            + (f"; BOOKS DISAGREE: {'; '.join(disagreements)}" if disagreements else "")
        )
        self._trials.append(
            dataclasses.asdict(sample)
            | {"rate": sample.rate, "lost": sample.lost, "device": dataclasses.asdict(book)}
            | {"disagreements": disagreements}
        )
        return sample

    def _compare(self, sample: Sample, before: ledger.Book) -> tuple[ledger.Book, list[str]]:
        """What the device counted, and in what the generator does not agree, once everything has arrived."""
        for turn in range(RECOUNTS):
            if turn:
                time.sleep(RECOUNT_SECONDS)
                self.generator.recount(sample)
            book = self.device.at_rest().since(before)
            disagreements = ledger.check(sample.clients, sample.servers, book)
            if not disagreements:
                break
        return book, disagreements

    def _verdict(self, sample: Sample) -> Verdict:
        sent = sample.clients.sent + sample.servers.sent
        if sample.lost > self.effort.loss_max * sent:
            return Verdict(False, "loss")
        if sample.failed:
            return Verdict(False, "failed connections")
        if sample.rate < MADE_MIN * sample.wanted:
            return Verdict(False, "not taken")
        return Verdict(True)

    def _search(self, load: Stateless | Stateful) -> dict:
        made: dict[float, tuple[Sample, dict]] = {}

        def trial(rate: float) -> Verdict:
            sample = self._trial(load, rate)
            verdict = self._verdict(sample)
            if verdict.passed:
                made[rate] = (sample, self._trials[-1]["device"])
            return verdict

        found = search(trial, self.effort.settings(load))
        told = dataclasses.asdict(found) | {"asked": found.rate}
        if found.rate in made:
            sample, device = made[found.rate]
            # A generator makes a little less than it is asked for, and that is what passed.
            told["rate"] = sample.rate
            told["sample"] = dataclasses.asdict(sample)
            told["in_hardware"] = _share_in_hardware(device)
        return told

    def _rate(self, load: Stateless) -> dict:
        """The no-drop rate: in packets per second, and in Gbit/s by layer."""
        found = self._search(load)
        self._rates.setdefault(load.name, []).append(found["asked"])
        found["gbps"] = load.size.gbps(found["rate"])
        return found

    def _overload(self, load: Stateless) -> dict:
        """What is forwarded of more than that, and lost (RFC 2544, 26.3): at the highest rate there is, and for some
        loads at shares of it."""
        most = self.effort.settings(load).high
        points = []
        for share in OFFERED if load.name in CURVES else OFFERED[-1:]:
            sample = self._trial(load, share * most)
            points.append({
                "share": share,
                "offered": sample.rate,
                "forwarded": sample.servers.received / sample.seconds,
                "loss": sample.lost / max(sample.clients.sent + sample.servers.sent, 1),
                "in_hardware": _share_in_hardware(self._trials[-1]["device"]),
            })
        # Of the same load for all sizes, so that they can be compared.
        highest = points[-1]
        rate = highest["forwarded"]
        return {"rate": rate, "in_hardware": highest["in_hardware"], "points": points, "gbps": load.size.gbps(rate)}

    def _cps(self, load: Stateful) -> dict:
        """The highest rate of new connections at which each ends well and no packet is lost."""
        found = self._search(load)
        sample = found.get("sample")
        # Connections that live long go on when no more are begun, so that packets are of more than these seconds.
        if sample and load.brief:
            packets = sample["clients"]["sent"] + sample["servers"]["sent"]
            found["pps"] = packets / sample["seconds"]
            if "payload_bytes" in sample["notes"]:
                found["goodput_gbps"] = 8 * sample["notes"]["payload_bytes"] / sample["seconds"] / 1e9
        found["device"] = self.device.loads()
        return found

    def _latency(self, load: Stateless) -> dict:
        """Latency at shares of the no-drop rate: the median of those that were found, or it is looked for first."""
        if load.name not in self._rates:
            self._rates[load.name] = [self._search(load)["asked"]]
        most = spread.median(self._rates[load.name])
        points = []
        if not most:
            self._say(f"{load.name}: no rate passed without loss, so there are no shares of it")
            return {"rate": most, "points": points}
        for share in LOADS:
            rate = max(share * most, self.effort.pps_min)
            sample = self._trial(load, rate, latency=True)
            points.append({"share": share, "wanted": rate, "made": sample.rate, "lost": sample.lost}
                          | {"latency_us": sample.latency_us})
        return {"rate": most, "points": points}

    def _flood(self, load: Stateless) -> dict:
        """SYNs at what the generator can make, up to the highest rate: how many were forwarded, and what became of
        the others. Those that a full share of half-open connections refuses are no fault of the device."""
        most = self.effort.settings(load).high
        sample = self._trial(load, most)
        device = self._trials[-1]["device"]
        refused = device["drops"].get("half_open_limit", 0)
        return {
            "rate": sample.rate,
            "forwarded": sample.servers.received / max(sample.clients.sent, 1),
            "refused": refused / max(sample.clients.sent, 1),
            "other": (sample.lost - refused) / max(sample.clients.sent, 1),
            "device": self.device.loads(),
        }


def _share_in_hardware(device: dict) -> float:
    """Of the packets that were forwarded."""
    hardware = sum(device["hw"].values())
    return hardware / max(hardware + sum(device["sw"].values()), 1)


def summary(kind: str, results: list[dict]) -> dict:
    """What repetitions say together."""
    told: dict = {"rate": spread.summary([one["rate"] for one in results])}
    for key in ("pps", "goodput_gbps", "in_hardware", "forwarded", "refused", "other"):
        values = [one[key] for one in results if key in one]
        if values:
            told[key] = spread.summary(values)
    if all("gbps" in one for one in results):
        told["gbps"] = {layer: spread.summary([one["gbps"][layer] for one in results]) for layer in results[0]["gbps"]}
    if all("bounded_by" in one for one in results):
        reasons = [one["bounded_by"] for one in results]
        told["bounded_by"] = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    if kind == "latency":
        told["points"] = _points(results)
    if kind == "overload":
        told["points"] = [
            {"share": same[0]["share"]}
            | {key: spread.summary([one[key] for one in same])
               for key in ("offered", "forwarded", "loss", "in_hardware")}
            for same in zip(*(one["points"] for one in results), strict=True)
        ]
    return told


def _points(results: list[dict]) -> list[dict]:
    """Latency by share of the rate: the summary of each quantile over repetitions."""
    points = []
    for place, first in enumerate(results[0]["points"]):
        same = [one["points"][place] for one in results if one["points"]]
        measured = [one["latency_us"] for one in same if one["latency_us"]]
        quantiles = {
            name: spread.summary([one[name] for one in measured])
            for name in (measured[0] if measured else {})
            if name != "packets" and all(name in one for one in measured)
        }
        made = spread.summary([one["made"] for one in same])
        points.append({"share": first["share"], "made": made, "latency_us": quantiles,
                       "lost": sum(one["lost"] for one in same)})
    return points

