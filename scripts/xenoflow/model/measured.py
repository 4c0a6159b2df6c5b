"""The same questions asked of a device, by the load runner: scripts/trex/run.py, with TRex, or with testpmd in the lab.

What is measured is Millrace's source partitions, the mode that is like XenoFlow's rules. Figures 4 to 6 are the
`overload` experiment, figure 8 is `latency`, but one way and not a round trip. Figure 7 has no counterpart, as what
Millrace adds to an idle way is the difference to the same way without it.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

RUNNER = Path(__file__).resolve().parents[2] / "trex/run.py"
SIZES = (0, 18, 22, 23, 64, 128, 256, 512, 1024, 1472)
# The software lab's own name for itself.
LAB = "lab"


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


def measure(testbed: str, directory: Path, words: list[str]) -> Measured:
    """Runs the experiments at a testbed (a file, or `lab`), goes on with those that an earlier run left, and reads what
    came of them. `words` are more of the runner's options."""
    lab = testbed == LAB
    argv = [sys.executable, str(RUNNER), "--only", "overload,latency", "--modes", "source-partition",
            "--paths", "eswitch" if lab else "hardware", "--sizes", ",".join(map(str, SIZES)), "--out", str(directory),
            "--resume", *([] if lab else ["--testbed", testbed]), *words]
    status = subprocess.run(argv, check=False, stdout=sys.stderr).returncode
    # With 1 books disagreed, which the report is to say.
    if status not in (0, 1):
        raise MeasureError(f"{RUNNER} ended with {status}, see above; its results are in {directory}")
    return read(json.loads((directory / "results.json").read_text()))


def read(results: dict) -> Measured:
    """What the runner's results say."""
    testbed, units = results["settings"]["testbed"], results["units"]
    found = Measured(testbed["name"], testbed["about"], ", ".join(sorted({unit["millrace"] for unit in units})),
                     testbed["lab"], results["faults"], {}, {}, {}, [])
    for unit in units:
        summary = unit["summary"]
        if unit["kind"] == "overload":
            payload = round(unit["size"]["payload"])
            found.mpps[payload] = summary["rate"]["median"] / 1e6
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
