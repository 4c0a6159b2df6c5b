"""A reload denies connections that hardware forwards: at once no packet of theirs reaches a backend, and the
others go on."""

from __future__ import annotations

import dataclasses
import math
import struct
import time
from pathlib import Path

import pytest
from lab import traffic
from lab.api import ask
from lab.eswitch import Eswitch
from lab.lab import Lab
from lab.millrace import Millrace
from lab.net import Process, wait_until
from lab.topology import Shape
from test_offload import installed

# The first of the clients' ports, and how many each address has: tests/traffic.c.
FIRST_PORT, PORTS = 1024, 50_000
FIRST_CLIENT = "10.1.0.0"
# From the reload's answer to the last packet that it denies. Removals take milliseconds; the rest is for what
# is under way in the lab, whose processes share a few cores.
BOUND_SECONDS = 0.5
# By when nothing may be forwarded any more at full size, from before the new configuration is read.
FULL_SECONDS = 0.1
BUCKETS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
TIME_TO_ENFORCE = "policy_time_to_enforce_seconds"


@dataclasses.dataclass(frozen=True)
class Size:
    """How much of it."""

    flows: int
    """Connections, each of a datagram and its answer every so often; half of them are denied."""
    period_ms: int
    rules: int = 0
    """Rules of the policy that say nothing of these connections."""

    def denied(self) -> dict:
        """The rule that denies half of them."""
        if self.flows == 2 * PORTS:
            return {"name": "no-more", "action": "deny", "from": [f"{FIRST_CLIENT}/32"]}
        return {"name": "no-more", "action": "deny", "from_ports": [f"{FIRST_PORT}-{self.last_port()}"]}

    def last_port(self) -> int:
        return FIRST_PORT + self.flows // 2 - 1

    def filter(self) -> str:
        """What the backends get of those that are denied, for tcpdump."""
        ports = f"{FIRST_PORT}-{self.last_port()}"
        return f"udp and dst port {traffic.PORT} and src {FIRST_CLIENT} and src portrange {ports}"


FEW = {"sws": Size(400, 500), "hws": Size(2_000, 500)}
FULL = {"sws": Size(2_000, 2000, 10_000), "hws": Size(100_000, 8000, 10_000)}


def others(rules: int) -> list[dict]:
    """Rules that say nothing of the lab's clients."""
    return [
        {"action": "allow", "from": [f"172.{16 + n // 4096}.{n // 16 % 256}.{n % 16 * 16}/28"], "ports": [f"{1 + n}"]}
        for n in range(rules)
    ]


def packets(file: Path) -> list[tuple[float, int]]:
    """When the packets of a capture came, Unix time, and from which port."""
    data, at, found = file.read_bytes(), 24, []
    while at + 16 <= len(data):
        seconds, micros, length = struct.unpack_from("<III", data, at)
        ip = at + 16 + 14
        if at + 16 + length <= len(data):
            (port,) = struct.unpack_from(">H", data, ip + (data[ip] & 15) * 4)
            found.append((seconds + micros / 1e6, port))
        at += 16 + length
    return found


def held(millrace: Millrace) -> float:
    """Connections in hardware, as soon as Millrace has time to say so."""
    try:
        return installed(millrace)
    except OSError:
        return math.nan


class Captures:
    """What each backend gets of the denied connections."""

    def __init__(self, lab: Lab, packets: str):
        self.files, self.processes = [], []
        for number, netns in enumerate(lab.network.backends, 1):
            file = lab.directory / f"denied{number}.pcap"
            argv = ["tcpdump", "-p", "-n", "-i", "back", "-s", "64", "-B", "65536", "-U", "-w", str(file), packets]
            process = Process(f"tcpdump at {number}", netns.enter(argv), lab.directory / f"denied{number}.log")
            wait_until("tcpdump to listen", lambda process=process: "listening on" in process.tail())
            self.files.append(file)
            self.processes.append(process)

    def stop(self) -> list[tuple[float, int]]:
        for process in self.processes:
            process.stop()
        return sorted(packet for file in self.files for packet in packets(file))


def histogram(title: str, milliseconds: list[float]) -> str:
    """How many are below each bound that are not below the one before."""
    none = sum(value == 0 for value in milliseconds)
    lines, below = [f"{title}: {len(milliseconds)}", *([f"    none after  {none:>6}"] if none else [])], 1e-9
    for bound in [*BUCKETS_MS, float("inf")]:
        count = sum(below <= value < bound for value in milliseconds)
        lines += [f"  < {bound:>6} ms  {count:>6}"] if count else []
        below = bound
    return "\n".join(lines)


HWS = Eswitch("hws", profile="bf3-hws")
# A device that does everything late: removals take too long, so a fence is raised before the rules, and falls.
LATE = "delay_us=20000"


@pytest.mark.parametrize(
    ("eswitch", "faults"), [(Eswitch("sws"), None), (HWS, None), (HWS, LATE)], ids=["sws", "hws", "hws-late"]
)
def test_what_a_reload_denies_leaves_hardware_at_once(labs, full, eswitch, faults):
    if full and faults:
        pytest.skip("as large as it has to be without --full")
    size = (FULL if full else FEW)[eswitch.steering]
    flows, denied, period = size.flows, size.flows // 2, size.period_ms / 1000
    seconds = 400 if full else 40
    lab = labs(Shape(backends=2), eswitch=eswitch)
    offload = {"rules_max": 4 * flows, "idle_s": 60}
    limits = {"connections": 4 * flows, "half_open_percent": 100}
    policy = {"policy": others(size.rules)} if size.rules else {}
    lab.start_millrace(
        [traffic.service(lab, "udp")], ports=traffic.ports(lab), offload=offload, limits=limits, **policy
    )
    millrace, raw = lab.millrace, traffic.Traffic(lab)
    datagrams = raw.udp(flows, size.period_ms, seconds)
    wait_until(f"{flows} connections in hardware", lambda: held(millrace) >= flows, seconds * 0.75, pause=0.5)

    captures = Captures(lab, size.filter())
    # All of them are sent to meanwhile.
    time.sleep(1.5 * period)
    before = millrace.metrics()
    millrace.config.setdefault("policy", []).append(size.denied())
    millrace.write()
    if faults:
        millrace.eswitch.set_faults(faults)
    asked = time.time()
    # As the command does it, without the time that takes to start.
    status, told = ask(millrace.socket, "POST", "/v1/reload")
    answered = time.time()
    assert status == 200, told
    wait_until("its connections to leave", lambda: held(millrace) <= flows - denied, timeout=60, pause=0.1)
    # Until those that are answered no more count as silent.
    time.sleep(4.5 * period)
    flowed = datagrams.stop()
    seen = captures.stop()

    late = [(1000 * (at - asked), port) for at, port in seen if at > asked]
    last = dict.fromkeys((port for _, port in seen), 0.0) | {port: at for at, port in late}
    metrics = millrace.metrics()
    enforced = metrics.sum("policy_time_to_enforce_seconds_count")
    fences = metrics.sum("offload_fences_total")
    took = 1000 * (answered - asked)
    print(f"{flows} connections, {size.rules} rules, {len(seen)} packets of {len(last)} denied connections seen")
    print(f"the reload took {took:.1f} ms, {fences} fences; {enforced} enforced, by its own account:")
    print("\n".join(f"  <= {bound:>7} s  {n}" for bound, n in metrics.buckets(TIME_TO_ENFORCE).items()))
    print(histogram("denied connections by their last packet after the reload was asked for", list(last.values())))
    print(histogram("packets forwarded after it was asked for", [at for at, _ in late]))
    latest = max(last.values(), default=0)
    print(f"the last one {latest:.1f} ms after it was asked for, {latest - took:.1f} ms after the answer")
    assert len(last) == denied, "each has been seen"
    assert latest - took < 1000 * BOUND_SECONDS
    if full:
        # A percentile of connections would be of those that happened to send in this short time.
        assert latest < 1000 * FULL_SECONDS
    # Each is timed: by the machine, or by the worker that saw its packet first.
    assert denied <= enforced <= denied + 16
    assert flowed["never"] == 0
    assert flowed["silent"] == denied, flowed
    assert metrics.sum("offload_connections", state="installed") == flows - denied
    assert fences > 0 or (eswitch.steering == "hws" and not faults)
    assert metrics.sum("offload_miss_packets_total") == before.sum("offload_miss_packets_total")
    assert metrics.sum("offload_orphans_total") == metrics.sum("offload_recoveries_total") == 0
    assert metrics.sum("drops_total", reason="policy_denied") > 0
