"""scripts/latency/probe.c: compiled, run, and what it says."""

from __future__ import annotations

import array
import dataclasses
import json
from pathlib import Path

from lab.lab import ROOT
from lab.net import LabError, run

from .ways import PORT, TO, VIP, Way

LOST = -(1 << 63)


@dataclasses.dataclass(frozen=True)
class Made:
    """What became of a run's packets."""

    sent: int
    refused: int
    received: int
    duplicates: int
    wrong_mac: int
    answered: int
    late: int
    """Sent more than a period after they were due."""
    seconds: float
    latency_ns: list[int]
    """Of those that came, in the order of sending."""

    @property
    def lost(self) -> int:
        return self.sent - self.received


class Probe:
    """The program. Calling it sends so many packets a second, so many in all."""

    def __init__(self, directory: Path, core: int, flows: int):
        self.directory, self.core, self.flows = directory, core, flows
        self.binary = directory / "probe"
        flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
        run(["cc", *flags, str(ROOT / "scripts/latency/probe.c"), "-o", str(self.binary)])

    def __call__(self, way: Way, rate: int, packets: int, *, answers: bool = False) -> Made:
        file = self.directory / "latency"
        argv = ["taskset", "-c", self.core, self.binary, way.sender.path, way.receiver.path, way.target, TO, VIP, PORT]
        argv += [self.flows, rate, packets, int(answers), file]
        said = json.loads(run([str(word) for word in argv], timeout=packets / rate * 10 + 60))
        times = array.array("q", file.read_bytes())
        if len(times) != packets:
            raise LabError(f"{file} holds {len(times)} times of {packets} packets")
        way.carried += said["received"] + said["answered"]
        return Made(**said, latency_ns=[time for time in times if time != LOST])
