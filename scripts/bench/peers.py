"""Millrace beside its peers: the same packets, machine, ports and core, in turns.

Each round starts one program, waits until it forwards, reads its ports' counters twice and ends it; contenders take
turns, so that what else the machine does meets all of them. The number is wall time per packet that left, the
packets' source included; that none was lost on the way is checked, and that connections were made and translated.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from lab.frames import write_pcap
from lab.lab import exit_on_signals, require_root
from lab.net import LabError, wait_until

from . import chart, machine, packets, report
from .contenders import BACKEND_PORT, BACKENDS, Contender, Count, Millrace, Scene, Testpmd
from .kinds import KINDS, MEMORY_FLOWS_MAX, Kind, plugin
from .ovs import Ovs, OvsDefault

CONTENDERS = {one.name: one for one in (Testpmd, Millrace, Ovs, OvsDefault)}
CHECK_FLOWS, CHECK_BYTES = 64, 400_000
TARGETS = {(bytes(map(int, address.split("."))), BACKEND_PORT) for address in BACKENDS}
EXAMPLES = """\
kinds:
{kinds}

examples:
  scripts/bench-peers.sh                                    everything: about half an hour
  scripts/bench-peers.sh --quick                            a first impression: a minute
  scripts/bench-peers.sh --only testpmd,millrace --kinds tcp --flows 64,100k
  scripts/bench-peers.sh --rounds 9 --seconds 3 --json peers.json --svg peers.svg

The number is nanoseconds of wall time per packet on one core, packet source included: median of the rounds [least
most], and how many times testpmd's. Exit code 1 if packets were lost or a contender failed. docs/benchmarks.md
says how it is measured, and what cannot be compared.
"""


class Bench:
    """A set-up for rounds: a directory, packets in files, cores and memory."""

    def __init__(self, directory: Path, *, hugepages: bool, seconds: float, warm: float):
        self.directory, self.hugepages, self.seconds, self.warm = directory, hugepages, seconds, warm
        self.cores = machine.cores()
        self._number = itertools.count()

    def pcap(self, frames: str, flows: int) -> Path:
        """The file with one packet of each flow."""
        path = self.directory / f"{frames}-{flows}.pcap"
        if not path.exists():
            write_pcap(path, packets.frames(frames, flows))
        return path

    def scene(self, kind: Kind, flows: int, sink: str | None = None) -> Scene:
        """A place for one run, with a directory whose name is its own."""
        directory = self.directory / f"{self.directory.name}-{next(self._number)}"
        directory.mkdir()
        source = kind.source(self.pcap(kind.frames, flows) if kind.memory is None else Path(), flows)
        return Scene(kind, flows, source, sink or kind.sink(flows), directory, self.cores, self.hugepages)

    def round(self, contender: type[Contender], kind: Kind, flows: int) -> report.Round:
        """One run, measured."""
        scene = self.scene(kind, flows)
        with removed_after(scene.directory), contender(scene) as running:
            return measure(running, self.seconds, self.warm)

    def check(self, contender: type[Contender], kind: Kind) -> dict[str, object]:
        """A short run into a file, to look at what leaves."""
        out = self.directory / "out.pcap"
        scene = self.scene(kind, CHECK_FLOWS, f"net_pcap1,tx_pcap={out}")
        with removed_after(scene.directory):
            try:
                with contender(scene) as running:
                    enough = lambda: running.process.must_be_alive() or _bytes(out) > CHECK_BYTES  # noqa: E731
                    wait_until(f"{contender.name} forwards", enough, timeout=20, pause=0.01)
                    running.process.popen.kill()
                with out.open("rb") as file:
                    return judge(contender, kind.frames, packets.read_pcap(file.read(CHECK_BYTES)))
            finally:
                out.unlink(missing_ok=True)


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def removed_after(directory: Path):
    """Removes a directory in the end."""
    try:
        yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure(running: Contender, seconds: float, warm: float) -> report.Round:
    """Waits for a steady state, and measures so long."""
    scene = running.scene
    started = time.monotonic()
    try:
        # Every flow was there at least twice, and whoever is to be answered was.
        wait_until("packets leave", lambda: _passed(running) > 4 * scene.flows, timeout=60)
    except LabError as error:
        raise LabError(f"{error}; dropped: {_positive(running.dropped())}") from error
    time.sleep(max(warm - (time.monotonic() - started), 0))
    thread = machine.Forwarder(running.process.pid, scene.cores[1])
    turns = running.turns() if scene.kind.turns else {}
    dropped, waited, first = running.dropped(), thread.waited_ns(), running.count()
    time.sleep(seconds)
    last, waited = running.count(), thread.waited_ns() - waited
    running.process.must_be_alive()
    took, dropped = last.ns - first.ns, difference(running.dropped(), dropped)
    found = judged(running, first, last, dropped, waited / took)
    if turns:
        after = running.turns()
        found.extra.update({f"turn_{name}_ns": after[name] for name in ("p50", "p99", "p999")})
        found.extra["fresh_per_second"] = 1e9 * (after["fresh"] - turns["fresh"]) / (after["ns"] - turns["ns"])
    return found


def _passed(running: Contender) -> int:
    running.process.must_be_alive()
    count = running.count()
    return count.received if running.scene.kind.refusals else count.sent


def judged(running: Contender, first: Count, last: Count, dropped: dict[str, int], waited: float) -> report.Round:
    """What two counts say. Drops are counted over a little more time than packets."""
    scene = running.scene
    kind, took = scene.kind, last.ns - first.ns
    sent, received = last.sent - first.sent, last.received - first.received
    refused = min(sum(dropped.pop(reason, 0) for reason in kind.refusals), max(received - sent, 0))
    passed = received if kind.refusals else sent
    if passed <= 0:
        raise LabError("no packet left any more")
    extra = {"refused": refused / received} if refused else {}
    return report.Round(
        ns=took / passed,
        loss=max(received - sent - refused, 0) / max(received, 1),
        doubt=(first.doubt + last.doubt) / took,
        waited=waited,
        dropped=dropped,
        connections=running.connections(),
        expected=kind.expected(scene.flows),
        extra=extra,
    )


def difference(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """By how much counters have grown, if they have."""
    return _positive({name: number - before.get(name, 0) for name, number in after.items()})


def _positive(numbers: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in numbers.items() if number > 0}


def judge(contender: type[Contender], kind: str, frames: list[bytes]) -> dict[str, object]:
    """Whether what left was translated as it should; says what was seen. Raises if not."""
    flows = {packets.addresses(packets.frame(kind, flow))[0] for flow in range(CHECK_FLOWS)}
    # A router also announces itself.
    frames = [frame for frame in frames if packets.is_ipv4(frame)]
    backends, clients = set(), set()
    for frame in frames:
        origin, target = packets.addresses(frame)
        if contender.rewrites:
            right = target in TARGETS
        else:
            origin, target = target, origin
            right = target == (packets.VIP, packets.VIP_PORT)
        if not right or origin not in flows or not packets.is_sound(frame):
            raise LabError(f"{contender.name}, {kind}: this should not have left: {frame.hex()}")
        backends.add(target)
        clients.add(origin)
    if len(clients) != CHECK_FLOWS:
        raise LabError(f"{contender.name}, {kind}: of {CHECK_FLOWS} flows {len(clients)} came through")
    seen = {"contender": contender.name, "kind": kind, "frames": len(frames), "flows": len(clients)}
    return {**seen, "backends": len(backends) if contender.rewrites else None, "example": frames[0].hex()}


def plan(wanted: argparse.Namespace) -> list[tuple[Kind, int, list[str]]]:
    """Kinds, numbers of flows and who takes part, without what cannot be."""
    cases = []
    for kind in (KINDS[name] for name in wanted.kinds):
        for flows in wanted.flows or kind.flows:
            names = [name for name in wanted.only if name not in report.PEERS or flows <= kind.peer_flows_max]
            if kind.flows_min <= flows <= kind.flows_max and names:
                cases.append((kind, flows, names))
    return cases


def run_rounds(bench: Bench, cases: list[tuple[Kind, int, list[str]]], rounds: int) -> report.Results:
    """All cases, contenders in turns."""
    results = report.Results(report.Result(kind.name, flows, name) for kind, flows, names in cases for name in names)
    total, at = rounds * len(results.all), 0
    for (kind, flows, names), turn in itertools.product(cases, range(rounds)):
        for name in names:
            at += 1
            result = results.find(kind.name, flows, name)
            if result.error:
                continue
            try:
                result.rounds.append(bench.round(CONTENDERS[name], kind, flows))
                said = f"{result.rounds[-1].ns:.1f} ns"
            except LabError as error:
                result.error = said = str(error)
            progress(f"[{at}/{total}] {kind.name}, {flows} flows, round {turn + 1}: {name} {said}")
    return results


def run_checks(bench: Bench, wanted: argparse.Namespace) -> list[dict[str, object]]:
    """Looks at what each contender makes of packets of each kind that can be looked at."""
    checks = []
    kinds = [KINDS[name] for name in wanted.kinds if KINDS[name].looked_at]
    for kind, name in itertools.product(kinds or [KINDS["tcp"]], wanted.only):
        checks.append(bench.check(CONTENDERS[name], kind))
        seen = checks[-1]
        to = f"to {seen['backends']} backends" if seen["backends"] else "with ends swapped"
        progress(f"check: {name}, {kind.name}: all {CHECK_FLOWS} flows came out {to}, checksums right")
    return checks


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def number(text: str) -> int:
    """A number of flows: 64, 10k, 1M."""
    found = re.fullmatch(r"(\d+)([kM]?)", text)
    value = int(found[1]) * {"": 1, "k": 1000, "M": 1_000_000}[found[2]] if found else 0
    if not 1 <= value <= MEMORY_FLOWS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of flows from 1 to 10M")
    return value


def flow_list(text: str) -> list[int]:
    return [number(word) for word in text.split(",")]


def one_of(names: list[str]):
    """A list of some of these, as an argument."""

    def parse(text: str) -> list[str]:
        unknown = [word for word in text.split(",") if word not in names]
        if unknown:
            raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(names)}")
        return text.split(",")

    return parse


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the user wants."""
    about = "\n".join(f"  {kind.name:9} {kind.about}" for kind in KINDS.values())
    parser = argparse.ArgumentParser(
        prog="scripts/bench-peers.sh",
        description=__doc__.splitlines()[0],
        epilog=EXAMPLES.format(kinds=about),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    some = "some of {}, with commas between (default: all)"
    parser.add_argument("--only", type=one_of(list(CONTENDERS)), metavar="WHO", help=some.format(", ".join(CONTENDERS)))
    kinds = some.format(", ".join(KINDS))
    parser.add_argument("--kinds", type=one_of(list(KINDS)), metavar="KINDS", help=kinds)
    flows = "numbers of flows (default: what suits the kind); kinds from files have at most 200k"
    parser.add_argument("--flows", type=flow_list, metavar="N", help=flows)
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each contender and case (default: 5)")
    parser.add_argument("--seconds", type=float, metavar="S", help="time measured in a round (default: 2)")
    parser.add_argument("--quick", action="store_true", help="TCP only, 64 and 100k flows, 3 rounds of 0.5 s")
    modes = ("auto", "yes", "no")
    pages = "huge pages, taken from Linux for the time of the run and given back; for all or none (default: auto)"
    parser.add_argument("--hugepages", choices=modes, default="auto", help=pages)
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers, machine and commit as JSON")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="a plot")
    wanted = parser.parse_args(words)
    usual = (["tcp"], [64, 100_000], 3, 0.5) if wanted.quick else (list(KINDS), None, 5, 2.0)
    for name, value in zip(("kinds", "flows", "rounds", "seconds"), usual):
        if getattr(wanted, name) is None:
            setattr(wanted, name, value)
    wanted.only = wanted.only or list(CONTENDERS)
    if not plan(wanted):
        parser.error("nothing to do: none of these kinds has so many flows, or nobody who takes part has it")
    if wanted.rounds < 1 or wanted.seconds <= 0:
        parser.error("at least one round and some time are needed")
    return wanted


def lend_memory(undo: contextlib.ExitStack, wanted: argparse.Namespace) -> bool:
    """Whether there are huge pages, for the time of `undo`."""
    if wanted.hugepages == "no":
        return False
    # Open vSwitch's buffers alone are 800 MiB.
    mib = 1024 + max(flows if kind.memory is None else 0 for kind, flows, _ in plan(wanted)) * 3 // 1024
    try:
        undo.enter_context(machine.hugepages(mib // machine.HUGEPAGE_MIB))
    except LabError as error:
        if wanted.hugepages == "yes":
            raise
        progress(f"{error}; going without")
        return False
    return True


def run(wanted: argparse.Namespace) -> report.Results:
    """Runs the bench, prints the table and writes the files."""
    facts, cases = machine.facts(), plan(wanted)
    if any(kind.plugin for kind, _, _ in cases):
        plugin()
    with contextlib.ExitStack() as undo:
        directory = Path(tempfile.mkdtemp(prefix="mrp-", dir="/tmp"))
        undo.enter_context(removed_after(directory))
        facts["hugepages"] = lend_memory(undo, wanted)
        warm = min(1.0, wanted.seconds)
        bench = Bench(directory, hugepages=facts["hugepages"], seconds=wanted.seconds, warm=warm)
        checks = run_checks(bench, wanted)
        results = run_rounds(bench, cases, wanted.rounds)
    rounds = f"{wanted.rounds} {'round' if wanted.rounds == 1 else 'rounds'} of {wanted.seconds:g} s"
    note = f"nanoseconds per packet: median of {rounds} [least most], times testpmd"
    described = machine.describe(facts)
    print(report.table(results, described, note))
    settings = {name: getattr(wanted, name) for name in ("kinds", "flows", "rounds", "seconds", "only")}
    settings |= {"cores": bench.cores, "frame_bytes": packets.FRAME_BYTES, "seed": packets.SEED}
    if wanted.json:
        wanted.json.write_text(json.dumps(report.to_json(results, facts, settings, checks), indent=1) + "\n")
    if wanted.svg:
        wanted.svg.write_text(chart.svg(results, "Nanoseconds per 60-byte packet on one core", described))
    return results


def main() -> int:
    wanted = arguments()
    exit_on_signals()
    try:
        require_root()
        machine.read_at_once()
        return 1 if run(wanted).faults() else 0
    except (LabError, OSError) as error:
        print(f"bench-peers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
