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
from .contenders import BACKEND_PORT, BACKENDS, Contender, Millrace, Scene, Testpmd
from .ovs import Ovs, OvsDefault

CONTENDERS = {one.name: one for one in (Testpmd, Millrace, Ovs, OvsDefault)}
# Open vSwitch has 262144 packet buffers whatever it is told, and net_pcap keeps its file's packets in them.
PCAP_FLOWS_MAX = 200_000
CHECK_FLOWS, CHECK_BYTES = 64, 400_000
TARGETS = {(bytes(map(int, address.split("."))), BACKEND_PORT) for address in BACKENDS}
EXAMPLES = """\
examples:
  scripts/bench-peers.sh                                    everything: about 20 minutes
  scripts/bench-peers.sh --quick                            a first impression: some 2 minutes
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

    def pcap(self, kind: str, flows: int) -> Path:
        """The file with one packet of each flow."""
        path = self.directory / f"{kind}-{flows}.pcap"
        if not path.exists():
            write_pcap(path, packets.frames(kind, flows))
        return path

    def scene(self, kind: str, flows: int, sink: str = "net_null0,no-rx=1") -> Scene:
        """A place for one run, with a directory whose name is its own."""
        directory = self.directory / f"{self.directory.name}-{next(self._number)}"
        directory.mkdir()
        source = f"net_pcap0,rx_pcap={self.pcap(kind, flows)},infinite_rx=1"
        return Scene(kind, flows, source, sink, directory, self.cores, self.hugepages)

    def round(self, contender: type[Contender], kind: str, flows: int) -> report.Round:
        """One run, measured."""
        scene = self.scene(kind, flows)
        with removed_after(scene.directory), contender(scene) as running:
            return measure(running, self.seconds, self.warm)

    def check(self, contender: type[Contender], kind: str) -> dict[str, object]:
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
                    return judge(contender, kind, packets.read_pcap(file.read(CHECK_BYTES)))
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
    flows = running.scene.flows

    def steady() -> bool:
        running.process.must_be_alive()
        return running.count().sent > 2 * flows

    started = time.monotonic()
    try:
        wait_until("packets leave", steady, timeout=30)
    except LabError as error:
        raise LabError(f"{error}; dropped: {_positive(running.dropped())}") from error
    time.sleep(max(warm - (time.monotonic() - started), 0))
    thread = machine.Forwarder(running.process.pid, running.scene.cores[1])
    dropped, waited, first = running.dropped(), thread.waited_ns(), running.count()
    time.sleep(seconds)
    last, waited = running.count(), thread.waited_ns() - waited
    running.process.must_be_alive()
    sent, received, took = last.sent - first.sent, last.received - first.received, last.ns - first.ns
    if sent <= 0:
        raise LabError("no packet left any more")
    after = running.dropped()
    return report.Round(
        ns=took / sent,
        loss=max(received - sent, 0) / max(received, 1),
        waited=waited / took,
        dropped=_positive({reason: number - dropped.get(reason, 0) for reason, number in after.items()}),
        connections=running.connections(),
    )


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


def run_rounds(bench: Bench, wanted: argparse.Namespace) -> report.Results:
    """All cases, contenders in turns."""
    cases = list(itertools.product(wanted.kinds, wanted.flows))
    results = report.Results(report.Result(*case, name) for case in cases for name in wanted.only)
    total, at = len(cases) * wanted.rounds * len(wanted.only), 0
    for (kind, flows), turn in itertools.product(cases, range(wanted.rounds)):
        for name in wanted.only:
            at += 1
            result = results.find(kind, flows, name)
            if result.error:
                continue
            try:
                result.rounds.append(bench.round(CONTENDERS[name], kind, flows))
                said = f"{result.rounds[-1].ns:.1f} ns"
            except LabError as error:
                result.error = said = str(error)
            progress(f"[{at}/{total}] {kind}, {flows} flows, round {turn + 1}: {name} {said}")
    return results


def run_checks(bench: Bench, wanted: argparse.Namespace) -> list[dict[str, object]]:
    """Looks at what each contender makes of each kind of packets."""
    checks = []
    for kind, name in itertools.product(wanted.kinds, wanted.only):
        checks.append(bench.check(CONTENDERS[name], kind))
        seen = checks[-1]
        to = f"to {seen['backends']} backends" if seen["backends"] else "with ends swapped"
        progress(f"check: {name}, {kind}: all {CHECK_FLOWS} flows came out {to}, checksums right")
    return checks


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def number(text: str) -> int:
    """A number of flows: 64, 10k, 1M."""
    found = re.fullmatch(r"(\d+)([kM]?)", text)
    value = int(found[1]) * {"": 1, "k": 1000, "M": 1_000_000}[found[2]] if found else 0
    if not 1 <= value <= PCAP_FLOWS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of flows from 1 to {PCAP_FLOWS_MAX // 1000}k")
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
    parser = argparse.ArgumentParser(
        prog="scripts/bench-peers.sh",
        description=__doc__.splitlines()[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    some = "some of {}, with commas between (default: all)"
    parser.add_argument("--only", type=one_of(list(CONTENDERS)), metavar="WHO", help=some.format(", ".join(CONTENDERS)))
    kinds = some.format(", ".join(packets.KINDS))
    parser.add_argument("--kinds", type=one_of(list(packets.KINDS)), metavar="KINDS", help=kinds)
    parser.add_argument("--flows", type=flow_list, metavar="N", help="numbers of flows (default: 64,10k,100k)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each contender and case (default: 5)")
    parser.add_argument("--seconds", type=float, metavar="S", help="time measured in a round (default: 2)")
    parser.add_argument("--quick", action="store_true", help="TCP only, 64 and 100k flows, 3 rounds of 0.5 s")
    modes = ("auto", "yes", "no")
    pages = "huge pages, taken from Linux for the time of the run and given back; for all or none (default: auto)"
    parser.add_argument("--hugepages", choices=modes, default="auto", help=pages)
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers, machine and commit as JSON")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="a plot")
    wanted = parser.parse_args(words)
    usual = (["tcp"], [64, 100_000], 3, 0.5) if wanted.quick else (list(packets.KINDS), [64, 10_000, 100_000], 5, 2.0)
    for name, value in zip(("kinds", "flows", "rounds", "seconds"), usual):
        if getattr(wanted, name) is None:
            setattr(wanted, name, value)
    wanted.only = wanted.only or list(CONTENDERS)
    if wanted.rounds < 1 or wanted.seconds <= 0:
        parser.error("at least one round and some time are needed")
    return wanted


def lend_memory(undo: contextlib.ExitStack, wanted: argparse.Namespace) -> bool:
    """Whether there are huge pages, for the time of `undo`."""
    if wanted.hugepages == "no":
        return False
    # Open vSwitch's buffers alone are 800 MiB.
    mib = 1024 + max(wanted.flows) * 3 // 1024
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
    facts = machine.facts()
    with contextlib.ExitStack() as undo:
        directory = Path(tempfile.mkdtemp(prefix="mrp-", dir="/tmp"))
        undo.enter_context(removed_after(directory))
        facts["hugepages"] = lend_memory(undo, wanted)
        warm = min(1.0, wanted.seconds)
        bench = Bench(directory, hugepages=facts["hugepages"], seconds=wanted.seconds, warm=warm)
        checks = run_checks(bench, wanted)
        results = run_rounds(bench, wanted)
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
        return 1 if run(wanted).faults() else 0
    except (LabError, OSError) as error:
        print(f"bench-peers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
