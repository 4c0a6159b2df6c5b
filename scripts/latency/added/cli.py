"""The command: rounds of all ways by turns, and what they say together."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench import machine
from lab.lab import ROOT, built_binary, exit_on_signals, require_root
from lab.net import LabError
from lab.net import run as command

from . import report
from .probe import Made, Probe
from .ways import SHARE_IN_HARDWARE, WAYS, Balanced, Counted, Way, connected

FLOOR = "veth"
# A run in which the worker was kept from its core for more than this share of the time is done again, at most so often,
# and as long as all that was done again took no longer.
WAITED_MAX, REPEATED_MAX, REPEATED_SECONDS = 0.01, 3, 30.0
EXAMPLES = f"""\
ways: {', '.join(WAYS)}

examples:
  scripts/latency/run.py                                  all ways, 1000 and 10000 packets/s: two to three minutes
  scripts/latency/run.py --quick                          a first impression: one short round
  scripts/latency/run.py --ways xdp,software-nat --rates 1000,5000,20000 --rounds 9
  scripts/latency/run.py --json --output somewhere | jq '.summary."10000".xdp'

Needs root and two cores, one for Millrace's worker, which polls. Millrace is target/release/millrace or
MILLRACE_BINARY, the software eSwitch's driver target/driver/libeswitch.so or ESWITCH_DRIVER. Exit status: 0; 1 if
packets were lost or counted differently, which the report shows; 2 if something could not be had. What the kernel
has not (XDP, AF_XDP) is left out, and the report says so. docs/latency.md.
"""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(
        prog="scripts/latency/run.py",
        description="What Millrace adds to a packet's way, in software and through its software eSwitch, beside an\n"
        "XDP program that rewrites MAC addresses: one-way latencies of the same packets on this machine, as "
        "distributions.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--ways", type=_ways, default=list(WAYS), metavar="NAMES", help=f"with commas between; {FLOOR} is always there")
    add("--rates", type=_rates, default=[1000, 10000], metavar="N,...", help="packets/s (default: 1000,10000)")
    add("--rounds", type=int, metavar="N", help="of all ways by turns (default: 5)")
    add("--seconds", type=float, metavar="S", help="of each way at each rate in a round (default: 1)")
    add("--flows", type=int, default=16, metavar="N", help="connections that packets are of, by turns (default: 16)")
    add("--quick", action="store_true", help="one round of 0.2 s, none of it done again")
    add("--output", type=Path, default=ROOT / "target/latency", metavar="DIR", help="where the report goes")
    add("--json", action="store_true", help="all numbers on standard output")
    wanted = parser.parse_args(words)
    for name, value in {"rounds": 1 if wanted.quick else 5, "seconds": 0.2 if wanted.quick else 1.0}.items():
        if getattr(wanted, name) is None:
            setattr(wanted, name, value)
    if not 1 <= wanted.rounds <= 1000 or not 0 < wanted.seconds <= 600 or not 1 <= wanted.flows <= 10000:
        parser.error("rounds are 1 to 1000, seconds more than 0 and at most 600, flows 1 to 10000")
    return wanted


def _ways(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in WAYS]:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(WAYS)}")
    return [name for name in WAYS if name == FLOOR or name in names]


def _rates(text: str) -> list[int]:
    rates = [int(word) for word in text.split(",") if word.isdigit()]
    if len(rates) != len(text.split(",")) or not all(10 <= rate <= 100_000 for rate in rates):
        raise argparse.ArgumentTypeError(f"{text!r}: packets/s from 10 to 100000, with commas between")
    return sorted(set(rates))


def say(words: str) -> None:
    """Progress."""
    print(f"==> {words}", file=sys.stderr, flush=True)


class Rounds:
    """Runs, and those that had to be done again."""

    def __init__(self, probe: Probe, seconds_again: float):
        self.probe, self.left = probe, seconds_again

    def measure(self, way: Way, rate: int, packets: int) -> dict:
        """One run; another one if others had the worker's core meanwhile. What is wrong is not done again."""
        for repeated in range(REPEATED_MAX + 1):
            started = time.monotonic()
            run = _measure_once(way, self.probe, rate, packets) | {"repeated": repeated}
            waited = run.get("waited_seconds", 0) > WAITED_MAX * run["seconds"]
            if not waited or run["faults"] or self.left <= 0:
                break
            self.left -= time.monotonic() - started
        return run


def _measure_once(way: Way, probe: Probe, rate: int, packets: int) -> dict:
    """One run, with its books."""
    with way.running():
        way.warm(probe)
        before = _settled(way)
        made = probe(way, rate, packets)
        after = _settled(way)
    counted = after.since(before) if before and after else None
    latency = sorted(made.latency_ns)
    run = {key: value for key, value in dataclasses.asdict(made).items() if key != "latency_ns"}
    run |= {"way": way.name, "rate": rate, "lost": made.lost, "rate_made": packets / made.seconds,
            "ns": {name: quantile(latency, share) for name, share in report.QUANTILES.items()}, "latency_ns": latency}
    if counted:
        run |= dataclasses.asdict(counted)
    return run | {"faults": faults(way, made, counted)}


def _settled(way: Way) -> Counted | None:
    """What it has counted as soon as that is all it has carried, or when it will never be: the device's counts come
    late."""
    deadline = time.monotonic() + 20
    while True:
        counted = way.counted()
        if not counted or counted.forwarded >= way.carried or time.monotonic() > deadline:
            return counted
        time.sleep(0.05)


def faults(way: Way, made: Made, counted: Counted | None) -> list[str]:
    """What a run's numbers are not to be believed for."""
    told = []
    if made.refused:
        told.append(f"{made.refused} packets were refused by the sender's interface")
    if made.lost > (counted.dropped if counted else 0):
        told.append(f"{made.lost} of {made.sent} packets were lost, and nobody counted them")
    if made.duplicates or made.wrong_mac:
        told.append(f"{made.duplicates} packets came twice, {made.wrong_mac} with another MAC address")
    if made.latency_ns and min(made.latency_ns) <= 0:
        told.append("packets came before they were sent: the clock was set meanwhile")
    if counted and counted.forwarded != made.received:
        told.append(f"Millrace says that it forwarded {counted.forwarded}, and {made.received} came")
    if isinstance(way, Balanced) and not way.driver and counted.by_device < SHARE_IN_HARDWARE * made.sent:
        told.append(f"the device forwarded only {counted.by_device} of {made.sent} packets")
    return told


def quantile(ordered: list[int], share: float) -> int | None:
    """The least of the values that so many are not above."""
    if not ordered:
        return None
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def run(wanted: argparse.Namespace) -> dict:
    """All rounds."""
    require_root()
    mine, theirs = machine.cores()
    # What is measured may be older than the tree it is measured from.
    facts = machine.facts() | {"hugepages": False, "millrace": command([str(built_binary()), "--version"]).strip()}
    runs = []
    directory = Path(tempfile.mkdtemp(prefix="mrl", dir="/tmp"))
    try:
        rounds = Rounds(Probe(directory, mine, wanted.flows), 0 if wanted.quick else REPEATED_SECONDS)
        say(f"connecting {', '.join(wanted.ways)}")
        with connected(wanted.ways, theirs) as (ways, left_out):
            for name, why in left_out.items():
                say(f"{name} is left out: {why}")
            for number in range(wanted.rounds):
                # There and back, so that none is always after the same other.
                order = ways if number % 2 == 0 else ways[::-1]
                for rate in wanted.rates:
                    say(f"round {number + 1} of {wanted.rounds}, {rate} packets/s")
                    for way in order:
                        packets = max(int(rate * wanted.seconds), 1)
                        runs.append(rounds.measure(way, rate, packets) | {"round": number})
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    settings = {key: getattr(wanted, key) for key in ("rates", "rounds", "seconds", "flows")}
    about = {name: WAYS[name].about for name in wanted.ways if name not in left_out}
    return report.data(runs, settings, facts, about, FLOOR) | {"left_out": left_out}


def main(words: list[str] | None = None) -> int:
    """The command's exit status."""
    exit_on_signals()
    wanted = arguments(words)
    started = time.monotonic()
    try:
        found = run(wanted)
        wanted.output.mkdir(parents=True, exist_ok=True)
        text = report.write(found, wanted.output)
    except (LabError, OSError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run.py: interrupted; nothing was written", file=sys.stderr)
        return 130
    say(f"{wanted.output / 'report.html'} after {time.monotonic() - started:.0f} s")
    print(json.dumps(found) if wanted.json else text)
    return 1 if found["faults"] else 0
