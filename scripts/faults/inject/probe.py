"""The packet source and sink of probe.c: what is sent when, and what became of each datagram."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import struct
import time
from pathlib import Path

from lab.net import LabError, Netns, Process, run, wait_until

SOURCE = Path(__file__).with_name("probe.c")
NS = 1_000_000_000
# sent_ns, came_ns, flow, stream, backend, again: struct record in probe.c.
RECORD = struct.Struct("=QQIBBH")


@dataclasses.dataclass(frozen=True)
class Stream:
    """So many datagrams a second, for a time; seconds from the beginning."""

    vip: str
    port: int
    rate: int
    begin: float
    end: float
    flows: int
    each: int = 1
    """Datagrams of a flow in a row, before it is the next one's turn."""
    clients: int = 0
    """Which stream's clients send, counted from 1; 0: its own."""

    def text(self, first: str) -> str:
        """For the program, with its first client's address."""
        times = f"{round(self.begin * 1000)}:{round(self.end * 1000)}"
        return f"{self.vip}:{self.port}:{first}:{self.flows}:{self.each}:{self.rate}:{times}"


@dataclasses.dataclass(frozen=True)
class Packet:
    """One datagram."""

    sent_ns: int
    """From the beginning."""
    latency_ns: int | None
    """`None`: it did not come."""
    flow: int
    backend: int
    """From 1; 0: none."""


@dataclasses.dataclass(frozen=True)
class Result:
    """All datagrams of each stream, in the order of sending."""

    streams: list[list[Packet]]
    again: int
    """Datagrams that came more than once."""
    skipped: int
    """Datagrams that were due and never sent, as the sender had no time."""


def build(directory: Path) -> Path:
    """Compiles the program."""
    binary = directory / "probe"
    run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", str(SOURCE), "-o", str(binary)])
    return binary


class Probe:
    """The program at work, bound to a core and before others there."""

    def __init__(self, binary: Path, client: tuple[Netns, str, str], backends: list[tuple[Netns, str]],
                 streams: list[Stream], core: int, number: int):
        """`number`: of the run; each has clients of its own."""
        name = f"probe{number}"
        self.out, self.streams = binary.parent / f"{name}.records", streams
        netns, interface, gateway = client
        ends = [f"{netns.name}/{interface}/{gateway}", *(f"{one.name}/{device}" for one, device in backends)]
        argv = ["taskset", "-c", str(core), "chrt", "-r", "1", str(binary), str(self.out), *ends, "--"]
        log = binary.parent / f"{name}.log"
        argv += [one.text(f"10.{number}.{one.clients or stream}.1") for stream, one in enumerate(streams, start=1)]
        self.process = Process("probe", argv, log)
        self.begin_ns = int(wait_until("the probe to begin", self._begun, timeout=20, pause=0.005))

    def _begun(self) -> str | None:
        found = re.search(r"^begin (\d+)$", self.process.log.read_text(), re.MULTILINE)
        if not found:
            self.process.must_be_alive()
        return found[1] if found else None

    def now(self) -> float:
        """Seconds from the beginning."""
        return (time.clock_gettime_ns(time.CLOCK_REALTIME) - self.begin_ns) / NS

    def wait(self, until: float) -> None:
        """Sleeps until so many seconds from the beginning."""
        while (rest := until - self.now()) > 0:
            self.process.must_be_alive()
            time.sleep(min(rest, 0.2))

    def finish(self) -> Result:
        """What became of all, once it has ended."""
        self.process.popen.wait(120)
        text = self.process.log.read_text()
        if self.process.popen.returncode != 0:
            raise LabError(f"the probe ended with {self.process.popen.returncode}: {text}")
        said = json.loads(text.splitlines()[-1])
        try:
            return self._result(self.out.read_bytes(), said["skipped"])
        finally:
            os.unlink(self.out)

    def _result(self, data: bytes, skipped: int) -> Result:
        streams: list[list[Packet]] = [[] for _ in self.streams]
        duplicates = 0
        for sent, came, flow, stream, backend, again in RECORD.iter_unpack(data):
            if 0 < came < sent:
                raise LabError("a datagram came before it was sent: this machine's clock was set meanwhile")
            latency = came - sent if came else None
            streams[stream - 1].append(Packet(sent - self.begin_ns, latency, flow, backend))
            duplicates += again
        return Result(streams, duplicates, skipped)
