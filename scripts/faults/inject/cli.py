"""One command: faults on real packets and in the model, compared with the limit, drawn and reported."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from bench.machine import describe as describe_machine
from bench.machine import facts
from lab.lab import ROOT, exit_on_signals, require_root
from lab.net import LabError
from stress.document import markdown, page

from . import model, report
from .faults import FAULTS, Fault, Load, run, settle
from .figures import describe
from .patience import Patience
from .scene import PATHS, Path_, Scene, scene
from .verdict import BROKEN, UNDECIDED, verdicts

MODEL = "model"
# Each run has a net of addresses to itself.
TRIES_MAX = 20
ABOUT = """\
Has a link flap, a storm of rule updates, a traffic spike and a backend's death during steady load, and reports
latency distributions, loss, and times of detection and recovery: on real packets through Millrace's workers and
through the software eSwitch, and in a MODEL of a BlueField-3 in virtual time. Offloaded traffic is to keep its 99th
percentile within 3 times the median; see docs/faults.md.
"""
EXAMPLES = """\
examples:
  scripts/faults/run.py                                        everything: target/faults/report.html, some 4 minutes
  scripts/faults/run.py --quick                                the same with short faults, once each
  scripts/faults/run.py --paths model --seed 7                 the model alone; needs no root
  scripts/faults/run.py --paths eswitch-hws --only spike --json | jq .verdicts

exit status: 0 the limit was seen to hold everywhere; 1 it does not, or this machine cannot tell, which the report says;
2 something was not measured. What was measured until then is in the report.
MILLRACE_BINARY and ESWITCH_DRIVER name other builds than target/release/millrace and target/driver/libeswitch.so.
"""


def main() -> int:
    arguments = _arguments()
    exit_on_signals()
    try:
        data = _measure(arguments)
    except (LabError, OSError, subprocess.SubprocessError, ValueError) as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    directory: Path = arguments.output
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "faults.json").write_text(json.dumps(data) + "\n")
    say("drawing")
    blocks = report.report(data, directory)
    (directory / "report.md").write_text(markdown(blocks))
    (directory / "report.html").write_text(page(blocks, "Faults under load", directory))
    say(f"{directory / 'report.html'} after {data['seconds']:.0f} s")
    print(json.dumps(data) if arguments.json else markdown(report.summary(data)), end="\n" if arguments.json else "")
    if data["failed"]:
        print(f"faults: {'; '.join(data['failed'])}", file=sys.stderr)
        return 2
    return 1 if any(one["verdict"] in (BROKEN, UNDECIDED) for one in data["verdicts"]) else 0


def _arguments() -> argparse.Namespace:
    names = [path.name for path in PATHS] + [MODEL]
    parser = argparse.ArgumentParser(
        description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "target/faults", help="where the report goes")
    parser.add_argument("--only", nargs="+", choices=[one.name for one in FAULTS[1:]], metavar="FAULT",
                        help="some of " + ", ".join(one.name for one in FAULTS[1:]))
    parser.add_argument("--paths", nargs="+", choices=names, metavar="PATH", default=names,
                        help="some of " + ", ".join(names))
    parser.add_argument("--quick", action="store_true", help="short faults, once each: to see that it works")
    parser.add_argument("--tries", type=int, default=3, metavar="N",
                        help="had at most so often is a course that this machine disturbs; the least disturbed one "
                        "counts (3)")
    parser.add_argument("--again-for", type=float, default=math.inf, metavar="SECONDS",
                        help="no course is had again once this long went into such (no limit)")
    parser.add_argument("--rate", type=int, default=Load.rate, help="observed datagrams a second (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the model's dice (1)")
    parser.add_argument("--json", action="store_true", help="all numbers on standard output")
    arguments = parser.parse_args()
    tries, rate, seed = arguments.tries, arguments.rate, arguments.seed
    if not (1 <= tries <= TRIES_MAX and 1_000 <= rate <= 50_000 and 0 <= seed < 1 << 64):
        parser.error(f"--tries is 1 to {TRIES_MAX}, --rate 1000 to 50000, --seed a number of 64 bits")
    if not arguments.again_for >= 0:
        parser.error("--again-for is a number of seconds")
    return arguments


def say(words: str) -> None:
    print(f"==> {words}", file=sys.stderr, flush=True)


def _measure(arguments: argparse.Namespace) -> dict:
    started = time.monotonic()
    load = Load(rate=arguments.rate)
    if arguments.quick:
        load = dataclasses.replace(load, warm=1.2, calm=0.6, scale=0.4)
    faults = [one for one in FAULTS if not arguments.only or one.name in ("none", *arguments.only)]
    paths = [one for one in PATHS if one.name in arguments.paths]
    machine = facts() | {"hugepages": False}
    data: dict = {"kind": "faults", "machine": machine, "machine_text": describe_machine(machine),
                  "quick": arguments.quick, "load": dataclasses.asdict(load), "builds": {}, "runs": [],
                  "failed": []}
    patience = Patience(1 if arguments.quick else arguments.tries, arguments.again_for)
    if paths:
        require_root()
    for path in paths:
        _on_path(path, faults, load, patience, data)
    if MODEL in arguments.paths:
        say("the model")
        found = model.run(arguments.seed, 20 if arguments.quick else 200)
        wanted = [one for one in found.pop("runs")
                  if not arguments.only or one["fault"].removesuffix("-beyond") in arguments.only]
        data["runs"] += wanted
        data["model"] = found
    data["verdicts"] = [dataclasses.asdict(one) for one in verdicts(data["runs"])]
    data["seconds"] = time.monotonic() - started
    return data


def _on_path(path: Path_, faults: list[Fault], load: Load, patience: Patience, data: dict) -> None:
    """Adds its courses. What goes wrong ends this path; what was had of it stays."""
    try:
        with scene(path) as made:
            page_ = made.millrace.metrics()
            commits = (have["commit"] for name, have, _ in page_.series if name == "build_info")
            data["builds"][path.name] = next(commits, "unknown")
            for fault in faults:
                data["runs"].append(patience.least_disturbed(partial(_course, made, fault, load)))
    except LabError as error:
        data["failed"].append(f"{path.name}: {error}")


def _course(made: Scene, fault: Fault, load: Load, again: str) -> dict:
    say(f"{made.path.name}: {fault.name}{again}")
    course = run(made, fault, load)
    settle(made)
    return {"path": made.path.name, "fault": fault.name, **describe(fault.name, course, load)}
