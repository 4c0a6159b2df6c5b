"""The same questions asked of a device, by the load runner: scripts/trex/run.py, with TRex, or with testpmd in the lab.

What is measured is Millrace's source partitions, the mode that is like XenoFlow's rules. Figures 4 to 6 are the
`overload` experiment, figure 8 is `latency`, but one way and not a round trip. Figure 7 has no counterpart, as what
Millrace adds to an idle way is the difference to the same way without it.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
from pathlib import Path

from lab.lab import run_to_its_end

RUNNER = Path(__file__).resolve().parents[2] / "trex/run.py"
SIZES = (0, 18, 22, 23, 64, 128, 256, 512, 1024, 1472)
# The software lab's own name for itself.
LAB = "lab"
MODE = "source-partition"
# Options of the runner that say what the figures are of.
OWN = ("--only", "--modes", "--paths", "--out", "--resume", "--testbed")
# Of the packets, the share that hardware has to forward for a rate to be the device's.
HARDWARE_MIN = 0.99


class MeasureError(Exception):
    """Nothing was measured; the message says why."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a testbed said."""

    name: str
    about: str
    millrace: str
    lab: bool
    faults: list[str]
    mpps: dict[int, float]
    """Most that was forwarded, by payload: medians, million packets a second."""
    gbit: dict[int, dict[str, float]]
    """The same by layer."""
    loss: dict[int, list[tuple[float, float]]]
    """By payload: offered, million packets a second, and the share that was lost."""
    latency: list[tuple[float, dict[str, float]]]
    """Million packets a second that were made, and one-way quantiles, microseconds."""
    hardware: dict[int, float]
    """The share of packets that hardware forwarded, by payload."""
    when: str
    """When the results were written, UTC."""

    def in_software(self) -> list[int]:
        """Payloads of which hardware did not forward nearly all."""
        return [payload for payload, share in sorted(self.hardware.items()) if share < HARDWARE_MIN]


def measure(testbed: str, directory: Path, words: list[str]) -> Measured:
    """Runs the experiments at a testbed (a file, or `lab`), goes on with those that an earlier run left, and reads what
    came of them. `words` are more of the runner's options."""
    if taken := [word for word in words if word.split("=")[0] in OWN]:
        raise MeasureError(f"{taken[0]}: says what these figures are of, and is this command's to give")
    lab = testbed == LAB
    # What comes last holds, also for an option that was shortened.
    argv = [sys.executable, str(RUNNER), "--sizes", ",".join(map(str, SIZES)), *words,
            "--only", "overload,latency", "--modes", MODE, "--paths", "eswitch" if lab else "hardware",
            "--out", str(directory), "--resume", *([] if lab else ["--testbed", testbed])]
    status = run_to_its_end(argv, stdout=sys.stderr)
    results = directory / "results.json"
    # With 1 books disagreed, which the report is to say.
    if status not in (0, 1) or not results.is_file():
        raise MeasureError(f"{RUNNER} ended with {status}, see above; what it has found is in {directory}")
    written = datetime.datetime.fromtimestamp(results.stat().st_mtime, datetime.UTC)
    try:
        return read(json.loads(results.read_text()), f"{written:%Y-%m-%d %H:%M}")
    except KeyError as error:
        raise MeasureError(f"{results}: no {error}: it is of another version; remove {directory}") from error


def read(results: dict, when: str) -> Measured:
    """What the runner's results say, which were written then."""
    testbed, units = results["settings"]["testbed"], results["units"]
    builds = sorted({unit["millrace"] for unit in units})
    faults = [f"BOOKS DISAGREE: {fault}" for fault in results["faults"]]
    if len(builds) > 1:
        faults.append(f"THESE ARE OF SEVERAL BUILDS OF MILLRACE: {', '.join(builds)}")
    if strange := {(unit["mode"], unit["path"]) for unit in units if unit["mode"] != MODE}:
        raise MeasureError(f"the results are not of source partitions alone: {', '.join(map(' '.join, strange))}")
    found = Measured(testbed["name"], testbed["about"], ", ".join(builds), testbed["lab"], faults, {}, {}, {}, [], {},
                     when)
    for unit in units:
        summary = unit["summary"]
        if unit["kind"] == "overload":
            payload = round(unit["size"]["payload"])
            found.mpps[payload] = summary["rate"]["median"] / 1e6
            found.hardware[payload] = summary["in_hardware"]["median"]
            found.gbit[payload] = {layer: told["median"] for layer, told in summary["gbps"].items()}
            if len(summary["points"]) > 1:
                found.loss[payload] = [(point["offered"]["median"] / 1e6, point["loss"]["median"])
                                       for point in summary["points"]]
        elif unit["kind"] == "latency":
            for point in summary["points"]:
                quantiles = {name: told["median"] for name, told in point["latency_us"].items()}
                found.latency.append((point["made"]["median"] / 1e6, quantiles))
    if not found.mpps:
        raise MeasureError("the runner's results have no overload experiment: leave --only to this command")
    return found
