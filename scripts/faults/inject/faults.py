"""The four faults, and none: what is sent meanwhile, what is done to the network, and what Millrace says."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable

from lab.millrace import Metrics
from lab.net import LabError, wait_until

from .probe import Probe, Result, Stream
from .scene import BACKENDS, PORT, STEADY, STORM, Scene

FLOWS = 200
# The backend that dies; a link of the switch each.
DEAD, DEAD_LINK, FRONT_LINK = 1, "back-b1", "p0-millrace"
# Datagrams of a storm's connection: enough to be worth a rule, few enough for it to be gone soon.
STORM_EACH = 10
RELOADS_PER_SECOND = 5
SPIKE_TIMES = 8


@dataclasses.dataclass(frozen=True)
class Load:
    """How much, and for how long: seconds from the beginning."""

    rate: int = 10_000
    """Datagrams a second of the connections that are observed."""
    opened: int = 500
    """Connections a second that are opened beside them, with a datagram each."""
    storm: int = 2_000
    """Connections a second of a storm."""
    warm: float = 1.5
    """Until all that hardware is to take is there."""
    calm: float = 1.5
    """Before the fault, and after it."""
    scale: float = 1.0
    """Of faults' lengths."""

    @property
    def begin(self) -> float:
        return self.warm + self.calm


@dataclasses.dataclass
class Course:
    """What was done when, and what came of it: seconds from the beginning."""

    begin: float
    end: float
    result: Result
    told: dict[str, float | int | None]
    """What Millrace said: `detected`, `updates`..."""
    hardware: float | None
    """Share of the packets before the fault that hardware forwarded, as Millrace counts."""
    waited: dict[str, float]
    """Share of the time before, during and after the fault that others had the worker's core or the sender's."""


def run(scene: Scene, fault: Fault, load: Load) -> Course:
    """Has a fault during a load."""
    length = fault.length * load.scale if fault.scales else fault.length
    end = load.begin + length + load.calm
    streams = [
        Stream(STEADY, PORT, load.rate, 0, end, FLOWS),
        Stream(STEADY, PORT, load.opened, load.warm - 0.5, end, 50_000),
        *fault.streams(load, load.begin, load.begin + length),
    ]
    probe = scene.start(streams)
    probe.wait(load.warm)
    first, waits = scene.millrace.metrics(), [(probe.now(), scene.waited_ns())]
    probe.wait(load.begin - 0.1)
    second = scene.millrace.metrics()
    probe.wait(load.begin)
    waits.append((probe.now(), scene.waited_ns()))
    began, ended, told = fault.act(scene, probe, length)
    waits.append((probe.now(), scene.waited_ns()))
    probe.wait(end)
    waits.append((probe.now(), scene.waited_ns()))
    pairs = zip(("before", "during", "after"), waits, waits[1:])
    waited = {stage: (to[1] - since[1]) / 1e9 / (to[0] - since[0]) for stage, since, to in pairs}
    return Course(began, ended, probe.finish(), told, _in_hardware(first, second), waited)


def _in_hardware(first: Metrics, second: Metrics) -> float:
    total = second.forwarded("packets") - first.forwarded("packets")
    return (second.in_hardware() - first.in_hardware()) / max(total, 1)


def _nothing(_: Scene, probe: Probe, length: float) -> tuple[float, float, dict]:
    begin = probe.now()
    probe.wait(begin + length)
    return begin, probe.now(), {}


def _watched(scene: Scene, probe: Probe, until: float, sees: Callable[[Metrics], bool]) -> float | None:
    """When Millrace's metrics first show something, within the time; they are asked every 20 ms."""
    seen = None
    while seen is None and probe.now() < until:
        seen = probe.now() if sees(scene.millrace.metrics()) else None
        time.sleep(0.02)
    probe.wait(until)
    return seen


def _flap(scene: Scene, probe: Probe, length: float) -> tuple[float, float, dict]:
    return _cut(scene, probe, length, FRONT_LINK, lambda page: page.sum("port_link_up", port="front") == 0)


def _death(scene: Scene, probe: Probe, length: float) -> tuple[float, float, dict]:
    return _cut(scene, probe, length, DEAD_LINK,
                lambda page: page.sum("lb_backend_state", service="steady", state="down") > 0)


def _cut(scene: Scene, probe: Probe, length: float, link: str,
         sees: Callable[[Metrics], bool]) -> tuple[float, float, dict]:
    """Takes a link of the switch down for so long: Millrace's, or a backend's carrier goes."""
    begin = probe.now()
    scene.carrier(link, up=False)
    try:
        seen = _watched(scene, probe, begin + length, sees)
    finally:
        end = probe.now()
        scene.carrier(link, up=True)
    return begin, end, {"detected_s": None if seen is None else seen - begin}


def _storm(scene: Scene, probe: Probe, length: float) -> tuple[float, float, dict]:
    """Connections come and go; and reloads take one of their backends out, and put it back."""
    millrace, before, begin = scene.millrace, scene.millrace.metrics(), probe.now()
    storm, reloads = millrace.service("storm"), 0
    all_backends = storm["backend"]
    while probe.now() < begin + length:
        storm["backend"] = all_backends[reloads % 2:]
        millrace.reload()
        reloads += 1
        probe.wait(min(begin + reloads / RELOADS_PER_SECOND, begin + length))
    end, after = probe.now(), millrace.metrics()
    storm["backend"] = all_backends
    millrace.reload()
    told = {"reloads": reloads, "insertions": 0, "removals": 0}
    if scene.path.offloaded:
        for key, name in (("insertions", "offload_insertions_total"), ("removals", "offload_removals_total")):
            told[key] = after.sum(name) - before.sum(name)
        told["updates_per_second"] = round((told["insertions"] + told["removals"]) / (end - begin))
    return begin, end, told


def _storms_streams(load: Load, begin: float, end: float) -> list[Stream]:
    return [Stream(STORM, PORT, load.storm * STORM_EACH, begin, end, 50_000, STORM_EACH)]


def _spikes_streams(load: Load, begin: float, end: float) -> list[Stream]:
    more = SPIKE_TIMES - 1
    return [Stream(STEADY, PORT, load.rate * more, begin, end, FLOWS, clients=1),
            Stream(STEADY, PORT, load.opened * more, begin, end, 50_000)]


def _no_streams(_: Load, __: float, ___: float) -> list[Stream]:
    return []


@dataclasses.dataclass(frozen=True)
class Fault:
    """One of them."""

    name: str
    about: str
    length: float
    """Seconds."""
    act: Callable[[Scene, Probe, float], tuple[float, float, dict]] = _nothing
    """Does it; gives when it began and ended, and what Millrace said."""
    streams: Callable[[Load, float, float], list[Stream]] = _no_streams
    """What is sent because of it."""
    scales: bool = True


FAULTS = [
    Fault("none", "nothing happens", 1.0),
    Fault("link-flap", "the clients' link loses its carrier, and has it again", 0.5, _flap),
    Fault("rule-storm", f"{Load.storm} connections a second of {STORM_EACH} datagrams come and go, and "
          f"{RELOADS_PER_SECOND} reloads a second take a backend of theirs out or put it back", 2.0, _storm,
          _storms_streams),
    Fault("spike", f"{SPIKE_TIMES} times the load: of observed connections, and of new ones", 1.0, _nothing,
          _spikes_streams),
    # Long enough for health checks at their defaults.
    Fault("backend-death", "one of three backends loses its carrier, and has it again", 2.5, _death, scales=False),
]


def settle(scene: Scene) -> None:
    """Waits until a fault has left nothing behind."""
    wait_until("backends to be up", scene.backends_up, timeout=40, pause=0.2)
    if not scene.millrace.process.alive():
        raise LabError("Millrace has ended")


def by_backend(course: Course, load: Load) -> dict[int, int]:
    """Which backend each observed connection had before the fault."""
    packets = itertools.takewhile(lambda one: one.sent_ns < course.begin * 1e9, course.result.streams[0])
    return {one.flow: one.backend for one in packets if one.backend in BACKENDS and one.sent_ns > load.warm * 1e9}
