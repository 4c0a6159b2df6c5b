"""One command: run the model, compare, measure where there is a testbed, draw, report."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lab.lab import exit_on_signals
from stress.document import Block, Heading, Paragraph, Picture, Table, markdown, page

from . import plots
from .compare import BOUNDS, CHART, Comparison, comparisons
from .measured import HARDWARE_MIN, Measured, MeasureError, measure

ROOT = Path(__file__).resolve().parents[3]
ANSWERS = {
    "RQ1, can such a balancer be built of rules?":
        "Two rules of the software eSwitch (lowest bit of the source address; another destination MAC, the other "
        "port, a counter) give every packet here its backend.",
    "RQ2, is nothing lost below the maximum?":
        "Below the device's packet rate nothing is lost; above it, what is beyond. An overload of less than half a per "
        "cent is not seen: the buffer holds it for longer than a run lasts.",
    "RQ3, line rate?":
        "Small datagrams: no, the packet rate is the limit. From 69 B on the model fills the wire, but an entry's "
        "counter has neither FCS nor preamble nor gap, so that even then less than 100 Gbit/s are counted.",
    "RQ4, latency?": "Fitted to the paper, see figure 7: no prediction.",
    "RQ5, load?":
        "Queues before the device stay short up to its packet rate. That one split rises at 90 Mpps and another does "
        "not, as the paper saw, the model does not explain: it has no receiver that pushes back, and the four splits "
        "coincide. That they are flat below it is built in: delays are constants, and the only queues are bursts'.",
}
ABOUT = """\
Regenerates figures 4 to 8 of the XenoFlow paper from a model of its testbed, without hardware, and compares them with
the paper's text and the authors' chart. With --testbed, measures the same of Millrace's source partitions on a device,
and puts that beside them.
"""
EXAMPLES = """\
examples:
  scripts/xenoflow/run.py                                     the report in target/xenoflow
  scripts/xenoflow/run.py --seed 7 --packets 1000000 --output somewhere
  scripts/xenoflow/run.py --json | jq '.comparisons[] | select(.source == "chart")'
  scripts/xenoflow/run.py --testbed my.toml -- --trex-dir /opt/trex/v3.08 --seconds 30
                                                              the same questions of a BlueField, with TRex
  scripts/xenoflow/run.py --testbed lab -- --generator testpmd --quick
                                                              of the software lab: to see that it works

Exit status: 0; 1 if a number of the model is out of its bounds, or the generator and Millrace counted different
packets; 2 if the model did not run, or nothing was measured. What of a measurement is not the paper's experiment is in
docs/xenoflow.md.
"""


def main() -> int:
    arguments = _arguments()
    exit_on_signals()
    try:
        return _report(arguments)
    except KeyboardInterrupt:
        print("xenoflow: interrupted; the same command goes on with what it measures", file=sys.stderr)
        return 130


def _report(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    say("building and running the model")
    try:
        data = figures(arguments.seed, arguments.packets)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        print(f"xenoflow: the model did not run: {error}", file=sys.stderr)
        return 2
    measured = None
    if arguments.testbed:
        say(f"measuring at {arguments.testbed}")
        try:
            measured = measure(arguments.testbed, arguments.output / "measured", arguments.more)
        except (OSError, ValueError, MeasureError) as error:
            print(f"xenoflow: nothing was measured: {error}", file=sys.stderr)
            return 2
        data["measured"] = dataclasses.asdict(measured)
    found = comparisons(data)
    data["comparisons"] = [{**vars(one), "deviation_percent": one.deviation, "holds": one.holds} for one in found]
    directory = arguments.output
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "figures.json").write_text(json.dumps(data, indent=1) + "\n")
    blocks = report(data, found, directory, measured)
    (directory / "report.md").write_text(markdown(blocks))
    title = "XenoFlow's figures, MODEL" + (" and measured" if measured else "")
    (directory / "report.html").write_text(page(blocks, title, directory))
    say(f"{directory / 'report.html'} after {time.monotonic() - started:.0f} s")
    print(json.dumps(data) if arguments.json else markdown([table(found)]), end="" if not arguments.json else "\n")
    return 0 if all(one.holds for one in found) and not (measured and measured.faults) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/xenoflow/run.py",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=ROOT / "target/xenoflow", help="where the report goes")
    parser.add_argument("--seed", type=_within(0, 2**64 - 1), default=1, metavar="N", help="of all dice (1)")
    each = "for each point of a figure (200000; 1000 to 100000000)"
    parser.add_argument("--packets", type=_within(1000, 100_000_000), default=200_000, metavar="N", help=each)
    parser.add_argument("--json", action="store_true", help="all numbers on standard output")
    parser.add_argument("--testbed", metavar="FILE", help="also measure there, with TRex: a testbed of "
                        "scripts/trex/run.py, or `lab`, the software lab; goes on where it was interrupted")
    parser.add_argument("more", nargs="*", metavar="-- OPTION", help="of scripts/trex/run.py, with "
                        "--testbed; but --only, --modes, --paths and --out are this command's to give")
    arguments = parser.parse_args()
    if arguments.more and not arguments.testbed:
        parser.error(f"{' '.join(arguments.more)}: only with --testbed")
    return arguments


def _within(least: int, most: int) -> Callable[[str], int]:
    """Takes what the model takes."""
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is no number from {least} to {most}")
        return int(text)

    return number


def say(words: str) -> None:
    print(f"==> {words}", file=sys.stderr, flush=True)


def figures(seed: int, packets: int) -> dict:
    """What the model says."""
    argv = ["cargo", "run", "--quiet", "--locked", "--package", "eswitch", "--example", "xenoflow", "--"]
    done = subprocess.run([*argv, str(seed), str(packets)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    data = json.loads(done.stdout)
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, text=True,
                            capture_output=True, check=False)
    data["commit"] = commit.stdout.strip() or "unknown"
    return data


def table(found: list[Comparison]) -> Table:
    header = ["what", "source", "number is", "unit", "reference", "MODEL", "deviation", "bound", ""]
    rows = [[one.what, one.source, one.kind, one.unit, f"{one.reference:g}", f"{one.model:.4g}",
             f"{one.deviation:+.1f} %", f"{BOUNDS[one.kind]:g} %", "" if one.holds else "OUT OF BOUNDS"]
            for one in found]
    return Table(header, rows)


def report(data: dict, found: list[Comparison], directory: Path, measured: Measured | None) -> list[Block]:
    """The document; draws its pictures."""
    bad = [one.what for one in found if not one.holds]
    hardware = "" if measured and not measured.lab else " No hardware was measured."
    blocks: list[Block] = [
        Heading(f"XenoFlow's figures 4 to 8, MODEL{' and measured' if measured else ''}", 1),
        Paragraph(f"MODEL of a BlueField-3 and its testbed: profile {data['profile']}, commit {data['commit']}, seed "
                  f"{data['seed']}, {data['packets']} packets for each point.{hardware}"),
        Paragraph("Fitted: these numbers of the profile come from the paper's text, so agreement proves nothing but "
                  f"that the model is consistent: {', '.join(data['fitted'])}. Derived: follows from them. Consistent "
                  "with: figure 6 at line rate, where what a counter leaves out was chosen; figure 8's flatness, which "
                  "a model of constant delays and short queues cannot but have; and the rates from 128 B on, which "
                  "are the arithmetic of the line rate, 100 Gbit/s / 8 / (payload + 66 B), so that the chart tests "
                  "whether anything but the wire limits large packets, and nothing else of the model."),
        Paragraph("The chart's points were converted from Gbit/s at 55 bytes a packet beyond the payload, which "
                  "makes its points below 64 B the text's 96.7 and 92.8 Mpps: their scale is inferred, and not "
                  "independent of what was fitted. Loads without loss are known to within half a per cent."),
    ]
    if bad:
        blocks.append(Paragraph(f"Out of bounds: {', '.join(bad)}", fault=True))
    blocks += [Heading("Beside the paper and its authors' chart"), table(found), Heading("The questions")]
    blocks.append(Table(["question", "answer of the MODEL"], [list(pair) for pair in ANSWERS.items()]))
    if measured:
        blocks += beside(measured, data)
    for name, draw in plots.ALL.items():
        say(f"drawing {name}")
        blocks.append(Heading(name.replace("-", " ").capitalize()))
        blocks.append(Picture(draw(directory / f"{name}.svg", data), f"MODEL, {name}"))
    return blocks


def beside(measured: Measured, data: dict) -> list[Block]:
    """What was measured, next to the model and the paper."""
    where = "the software lab: a program on shared cores stands for the device" if measured.lab else measured.about
    told: list[Block] = [Heading("Measured"), Paragraph(
        f"At the testbed {measured.name} ({where}), Millrace {measured.millrace}, source partitions; the last of it at "
        f"{measured.when} UTC. Rates are what was forwarded of as much as could be offered, and latency is one way, "
        "from a port of the generator to its other one, where the paper has round trips.")]
    told += [Paragraph(fault, fault=True) for fault in measured.faults]
    if software := measured.in_software():
        told.append(Paragraph(f"NOT THE DEVICE'S RATES: hardware forwarded less than {100 * HARDWARE_MIN:g} % of the "
                              f"packets with {', '.join(map(str, software))} B of payload", fault=True))
    paper = {18: "96.7 (text)", 22: "96.7 (text)", 23: "92.8 (text)", 64: "92.8 (text)"}
    paper |= {payload: f"{rate:g} (chart)" for payload, rate in CHART.items()}
    model = {point["payload"]: point["packets_per_second"] / 1e6 for point in data["throughput"]}
    rows = [[str(payload), paper.get(payload, "-"), f"{model[payload]:.3g}" if payload in model else "-", f"{rate:.3g}",
             f"{100 * measured.hardware[payload]:.3g} %",
             *[f"{value:.3g}" for value in measured.gbit[payload].values()]]
            for payload, rate in sorted(measured.mpps.items())]
    layers = next(iter(measured.gbit.values()))
    header = ["payload", "paper, Mpps", "MODEL, Mpps", "measured, Mpps", "in hardware"]
    told.append(Table([*header, *[f"Gbit/s {one}" for one in layers]], rows))
    if measured.latency:
        names = list(dict.fromkeys(name for _, quantiles in measured.latency for name in quantiles))
        told.append(Table(["Mpps", *[f"{name}, us" for name in names]],
                          [[f"{rate:.3g}", *[f"{quantiles[name]:.3g}" if name in quantiles else "-" for name in names]]
                           for rate, quantiles in measured.latency]))
    return told
