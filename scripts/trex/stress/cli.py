"""The command: what is run where, how far it is, and what it found."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench import machine
from lab.lab import built_binary, exit_on_signals
from lab.net import LabError
from lab.telemetry import runtime_directory

from . import experiments, report
from .device import MODES, PATHS, Device, LabDevice, free_port
from .experiments import Bench, Effort
from .generators import Generator, GeneratorError
from .generators import trex
from .generators.testpmd import TestpmdGenerator
from .layers import Size, udp_frame
from .scene import Testbed, TestbedError, load
from .store import Store, StoreError
from .traffic import SWEEP

HERE = Path(__file__).resolve().parents[1]
TREX_PORTS = (4501, 4500)
EXAMPLES = """\
experiments:
  no-drop   highest rate without loss (RFC 2544, 26.1) of small datagrams, DNS queries, IMIX, and new flows
  sweep     the same of datagrams from 0 to 1472 bytes of payload
  overload  what is forwarded and lost of more than that, by payload, and by load (RFC 2544, 26.3)
  latency   latency at 10 to 100 % of the no-drop rate
  cps       highest rate of connections that all end well: short HTTP, DNS
  mix       the same of long HTTP, and of a mix with connections that live for ten seconds
  flood     SYNs as fast as they can be made: what is forwarded, refused, lost

examples:
  scripts/trex/run.py --trex-dir /opt/trex/v3.08                       everything, in the software lab
  scripts/trex/run.py --generator testpmd --only no-drop --quick       without TRex: a minute
  scripts/trex/run.py --only cps --modes nat,dsr --paths software,eswitch --out /tmp/cps
  scripts/trex/run.py --out /tmp/cps --resume [the same options]       go on where it was interrupted
  scripts/trex/run.py --testbed scripts/trex/testbeds/bluefield.toml --modes nat --paths hardware

In the lab, Millrace (target/release/millrace, or MILLRACE_BINARY) is started for each mode and path; elsewhere it
runs already, and --modes and --paths are what the report calls it. Exit status: 0 if all agree; 1 if the generator
and Millrace counted different packets, which the report shows; 2 if something could not be had. docs/trex.md.
"""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What the user wants."""
    parser = argparse.ArgumentParser(
        prog="scripts/trex/run.py",
        description="Load tests of Millrace with TRex, or with DPDK's testpmd where there is no TRex.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--testbed", type=Path, default=HERE / "testbeds/lab.toml", metavar="FILE", help="default: the software lab")
    add("--generator", choices=("trex", "testpmd"), default="trex", help="who makes load (default: trex)")
    add("--trex-dir", metavar="DIR", help="TRex's installation: the directory with t-rex-64 (default: $TREX_DIR)")
    add("--only", type=_some(experiments.KINDS), metavar="WHICH", help="experiments, with commas between")
    add("--loads", metavar="NAMES", help="only experiments with these loads, as the report calls them")
    add("--modes", default="nat", metavar="MODES", help=f"with commas between; in the lab of {', '.join(MODES)}")
    add("--paths", default="software", metavar="PATHS", help=f"likewise; in the lab of {', '.join(PATHS)}")
    add("--sizes", type=_sizes, default=SWEEP, metavar="BYTES", help="payloads of the sweep, with commas between")
    add("--repetitions", type=int, metavar="N", help="of each experiment (default: 3)")
    add("--seconds", type=float, metavar="S", help="of a trial (default: 10)")
    add("--loss", type=float, default=0.0, metavar="SHARE", help="of packets that may be lost (default: 0)")
    add("--resolution", type=float, metavar="SHARE", help="of the rate, to which it is found (default: 0.02)")
    again = "repeat a trial that failed so often before its rate counts as too high (NFV-TST 009; default: 0)"
    add("--again", type=int, default=0, metavar="N", help=again)
    add("--max-pps", type=float, metavar="N", help="highest rate that is tried (default: the link's)")
    add("--max-cps", type=float, default=1e6, metavar="N", help="highest rate of connections that is tried")
    add("--quick", action="store_true", help="a first impression: trials of 1 s, resolution 10 %%, 1 repetition")
    add("--out", type=Path, default=Path("trex-results"), metavar="DIR", help="where results go (./trex-results)")
    add("--resume", action="store_true", help="go on in a directory that has results of the same settings")
    wanted = parser.parse_args(words)
    usual = {"repetitions": 1, "seconds": 1.0, "resolution": 0.1} if wanted.quick else {}
    for name, value in ({"repetitions": 3, "seconds": 10.0, "resolution": 0.02} | usual).items():
        if getattr(wanted, name) is None:
            setattr(wanted, name, value)
    wanted.modes, wanted.paths = wanted.modes.split(","), wanted.paths.split(",")
    wanted.loads = wanted.loads.split(",") if wanted.loads else None
    if (wanted.max_pps is not None and wanted.max_pps <= 0) or wanted.max_cps <= 0:
        parser.error("--max-pps and --max-cps: packets, or connections, per second, more than 0")
    if not 0 <= wanted.loss <= 1:
        parser.error("--loss: a share of packets, from 0 to 1")
    if wanted.repetitions < 1 or wanted.seconds <= 0 or not 0 < wanted.resolution < 1 or wanted.again < 0:
        parser.error("at least one repetition, some time, and a resolution between 0 and 1")
    return wanted


def _some(names: tuple[str, ...]):
    def parse(text: str) -> list[str]:
        unknown = [word for word in text.split(",") if word not in names]
        if unknown:
            raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(names)}")
        return text.split(",")

    return parse


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(int(word) for word in text.split(",") if word.isdigit())
    if len(sizes) != len(text.split(",")) or not all(0 <= size <= 1472 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r}: bytes of payload from 0 to 1472, with commas between")
    return sizes


def effort(wanted: argparse.Namespace, testbed: Testbed) -> Effort:
    """How much is done here: never more than the link takes."""
    # Of the smallest frames; what larger ones come to follows from the link, too.
    line = Size(udp_frame(0), 0).line_rate_pps(testbed.link_gbps)
    most = min(rate for rate in (line, testbed.max_pps, wanted.max_pps) if rate is not None)
    return Effort(
        repetitions=wanted.repetitions,
        seconds=wanted.seconds,
        loss_max=wanted.loss,
        resolution=wanted.resolution,
        again=wanted.again,
        pps_max=most,
        link_gbps=testbed.link_gbps,
        # Enough packets of each flow for hardware to take it.
        pps_warm=min(20.0 * testbed.scene.flows, most / 4),
        cps_max=wanted.max_cps,
    )


def say(line: str) -> None:
    """Progress."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def place(wanted: argparse.Namespace, testbed: Testbed, mode: str, path: str):
    """A generator and a device, ready, in a directory of their own."""
    directory = Path(tempfile.mkdtemp(prefix="mrt-", dir="/tmp"))
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        undo.callback(shutil.rmtree, runtime_directory(directory.name), ignore_errors=True)
        if testbed.lab:
            device: Device = LabDevice(built_binary(), directory, testbed, mode, path)
        else:
            device = Device(testbed.metrics, testbed.ports, path)
        undo.callback(device.close)
        generator = _generator(wanted, testbed, directory, device)
        undo.callback(generator.close)
        try:
            yield generator, device
        except (LabError, GeneratorError):
            for log in sorted(directory.glob("*.log")):
                say(f"--- {log.name} ends:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]))
            raise


def _generator(wanted: argparse.Namespace, testbed: Testbed, directory: Path, device: Device) -> Generator:
    if wanted.generator == "testpmd":
        return TestpmdGenerator(testbed, directory, device)
    ports = (free_port(), free_port()) if testbed.lab else TREX_PORTS
    wait = device.wait_for_links if isinstance(device, LabDevice) else lambda: None
    return trex.Trex(trex.find(wanted.trex_dir), testbed, directory, ports, wait)


def check(wanted: argparse.Namespace, testbed: Testbed) -> None:
    """Faults that can be told before anything is started."""
    if wanted.generator == "trex":
        trex.find(wanted.trex_dir)
    elif not testbed.lab:
        raise GeneratorError("testpmd makes load in the software lab only; use TRex at real NICs")
    if not testbed.lab and (len(wanted.modes) > 1 or len(wanted.paths) > 1):
        raise TestbedError("Millrace runs already, so there is one mode and one path at a time: name one of each")
    if testbed.lab:
        for what, given, known in (("mode", wanted.modes, MODES), ("path", wanted.paths, PATHS)):
            if unknown := set(given) - set(known):
                raise TestbedError(f"the lab has no {what} {', '.join(sorted(unknown))}; it has {', '.join(known)}")
        if os.geteuid() != 0:
            raise LabError("the lab starts DPDK programs: run this as root")


def run(wanted: argparse.Namespace) -> int:
    """Does what is wanted; the exit status."""
    testbed = load(wanted.testbed)
    check(wanted, testbed)
    settings = {
        "generator": wanted.generator,
        "testbed": testbed.as_json(),
        "effort": dataclasses.asdict(effort(wanted, testbed)),
        "only": wanted.only or list(experiments.KINDS),
        "sizes": wanted.sizes,
        "loads": wanted.loads,
        "modes": wanted.modes,
        "paths": wanted.paths,
    }
    store = Store(wanted.out, settings, resume=wanted.resume)
    results = report.Results(settings, machine.facts())
    for path in wanted.paths:
        for mode in wanted.modes:
            _run_place(wanted, testbed, mode, path, store, results)
            report.write(results, wanted.out)
    if not results.units:
        left_out = "; ".join(f"{name}: {why}" for name, why in results.left_out.items())
        raise TestbedError(f"none of these experiments can be done here{f' ({left_out})' if left_out else ''}")
    faults = results.faults()
    for fault in faults:
        say(f"FAULT {fault}")
    say(f"report: {wanted.out / 'report.html'}, {wanted.out / 'report.md'}")
    return 1 if faults else 0


def _run_place(wanted, testbed: Testbed, mode: str, path: str, store: Store, results: report.Results) -> None:
    """Everything there is to do in one configuration; nothing is started if all of it was done before."""
    can = TestpmdGenerator.can if wanted.generator == "testpmd" else trex.Trex.can
    units, left_out = experiments.plan(wanted.only or list(experiments.KINDS), can, mode, wanted.sizes)
    results.left_out.update({f"{mode}: {name}": why for name, why in left_out.items()})
    if unknown := set(wanted.loads or ()) - experiments.loads(wanted.sizes):
        known = ", ".join(sorted(experiments.loads(wanted.sizes)))
        raise TestbedError(f"there is no load {', '.join(sorted(unknown))}; there are {known}")
    units = [unit for unit in units if not wanted.loads or unit.load.name in wanted.loads]
    with contextlib.ExitStack() as undo:
        bench: Bench | None = None
        for place_of, unit in enumerate(units, start=1):
            say(f"[{place_of}/{len(units)}] {mode}, {path}: {unit.name}")
            name = f"{path}-{mode}-{unit.name}"
            if (found := store.done(name)) is None:
                if bench is None:
                    generator, device = undo.enter_context(place(wanted, testbed, mode, path))
                    bench = Bench(generator, device, effort(wanted, testbed), say)
                    here = [one for one in results.units if (one["mode"], one["path"]) == (mode, path)]
                    for one in here:
                        bench.know(one)
                found = bench.run(unit) | {"mode": mode, "path": path, "commit": results.machine["commit"]}
                about = bench.generator.describe() | {"quantiles": bench.generator.quantiles()}
                store.keep(name, found | {"generator": about})
            else:
                say("  done before")
            results.add(store.done(name))


def main(words: list[str] | None = None) -> int:
    """The command's exit status."""
    exit_on_signals()
    try:
        return run(arguments(words))
    except (LabError, GeneratorError, TestbedError, StoreError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run.py: interrupted; go on with --resume and the same options", file=sys.stderr)
        return 130
