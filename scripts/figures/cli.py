"""Makes every part of the report, one after the other, and one page that has them all."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench import machine
from lab.lab import ROOT, exit_on_signals, run_to_its_end

from . import index
from .index import Done
from .parts import PARTS, Part

EXAMPLES = """
examples:
  scripts/figures.sh                                  everything: target/figures/index.html
  scripts/figures.sh --quick                          a first impression
  scripts/figures.sh --only xenoflow,faults --output /tmp/figures

A part that fails is shown as failed, and the others are made all the same. The page has all parts that are there,
those of runs before too. Exit status, of the parts made now: 0; 1 if a part failed, or found numbers out of their
bounds; 2 if something could not be had. docs/figures.md.
"""


def arguments(words: list[str] | None) -> argparse.Namespace:
    names = ", ".join(part.name for part in PARTS)
    parser = argparse.ArgumentParser(
        prog="scripts/figures.sh",
        description="Makes every figure and number of load, latency and faults without hardware, in one report.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="PARTS", help=f"some of {names}, with commas between")
    parser.add_argument("--quick", action="store_true", help="shorter measurements, to see that it works")
    output = "where the report goes (target/figures); what a run before left there of the same parts goes"
    parser.add_argument("--output", type=Path, default=ROOT / "target/figures", metavar="DIR", help=output)
    # For scripts/figures.sh: what it has to build, and how long that took.
    parser.add_argument("--needs", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--prepared", type=float, default=0.0, help=argparse.SUPPRESS)
    wanted = parser.parse_args(words)
    only = wanted.only.split(",") if wanted.only is not None else [part.name for part in PARTS]
    if unknown := set(only) - {part.name for part in PARTS}:
        parser.error(f"there is no '{', '.join(sorted(unknown))}'; there are {names}")
    wanted.parts = [part for part in PARTS if part.name in only]
    return wanted


def run(argv: list[str]) -> int:
    return run_to_its_end(argv, cwd=ROOT, stdout=subprocess.DEVNULL)


def make(part: Part, directory: Path, facts: dict[str, object], *, quick: bool) -> Done:
    """Runs a part's command; what it says of its progress goes on to standard error."""
    shutil.rmtree(directory, ignore_errors=True)
    words = [*part.command, *(part.quick if quick else []), part.output, str(directory)]
    began = time.monotonic()
    argv = [str(ROOT / words[0]), *words[1:]]
    status = run(argv)
    ended = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    took = time.monotonic() - began
    done = Done(part, shlex.join(words), status, took, ended, facts["commit"], facts["binary"], quick)
    done.save(directory)
    return done


def main(words: list[str] | None = None) -> int:
    """The command's exit status."""
    wanted = arguments(words)
    if wanted.needs:
        print(*sorted({need for part in wanted.parts for need in part.needs}))
        return 0
    wanted.output.mkdir(parents=True, exist_ok=True)
    facts, done = machine.facts(), []
    for number, part in enumerate(wanted.parts, start=1):
        say(f"[{number}/{len(wanted.parts)}] {part.title}")
        try:
            done.append(make(part, wanted.output / part.name, facts, quick=wanted.quick))
        except KeyboardInterrupt:
            say("interrupted; --only makes the parts that are missing")
            return 130
        finally:
            index.write(wanted.output, facts, wanted.prepared)
        say(f"  {done[-1].verdict()} after {done[-1].seconds:.0f} s")
    say(f"report: {wanted.output / 'index.html'}, {wanted.output / 'index.md'}")
    return max((min(part.status, 2) if part.status > 0 else 1 for part in done if part.status), default=0)


def say(line: str) -> None:
    """Progress."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    exit_on_signals()
    sys.exit(main())
