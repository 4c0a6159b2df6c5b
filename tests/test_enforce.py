"""A reload denies connections that hardware forwards: at once no packet of theirs reaches a backend, and the
others go on."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from lab import traffic
from lab.eswitch import Eswitch
from lab.net import Process, wait_until
from lab.topology import Shape
from test_offload import installed, wait_for_hardware

# The first of the clients' ports: tests/traffic.c.
FIRST_PORT = 1024
# From the reload's answer to the last packet that it denies. Removals take milliseconds; the rest is for what
# is under way in the lab, whose processes share a few cores.
BOUND_SECONDS = 0.5


def last_packet(file: Path) -> float:
    """When the last packet of a capture came, Unix time; 0: there was none."""
    data, at, last = file.read_bytes(), 24, 0.0
    while at + 16 <= len(data):
        seconds, micros, length = struct.unpack_from("<III", data, at)
        last, at = max(last, seconds + micros / 1e6), at + 16 + length
    return last


@pytest.mark.parametrize("eswitch", [Eswitch("sws"), Eswitch("hws", profile="bf3-hws")], ids=["sws", "hws"])
def test_what_a_reload_denies_leaves_hardware_at_once(labs, full, eswitch):
    # A client address has 50,000 ports.
    few = 400 if eswitch.steering == "sws" else 2_000
    flows, period_ms, seconds = (50_000, 5000, 180) if full else (few, 500, 16)
    lab = labs(Shape(backends=2), eswitch=eswitch)
    offload = {"rules_max": 4 * flows, "idle_s": 30}
    limits = {"connections": 400_000}
    lab.start_millrace([traffic.service(lab, "udp")], ports=traffic.ports(lab), offload=offload, limits=limits)
    millrace, raw = lab.millrace, traffic.Traffic(lab)
    datagrams = raw.udp(flows, period_ms, seconds)
    wait_for_hardware(millrace, flows, timeout=seconds * 0.75)

    ports = f"{FIRST_PORT}-{FIRST_PORT + flows // 2 - 1}"
    captures = []
    for number, netns in enumerate(lab.network.backends, 1):
        file = lab.directory / f"denied{number}.pcap"
        argv = ["tcpdump", "-p", "-n", "-i", "back", "-s", "64", "-B", "65536", "-U", "-w", str(file)]
        argv.append(f"udp and dst port {traffic.PORT} and src portrange {ports}")
        process = Process(f"tcpdump at {number}", netns.enter(argv), lab.directory / f"denied{number}.log")
        wait_until("tcpdump to listen", lambda process=process: "listening on" in process.tail())
        captures.append((process, file))
    # All of them are sent to meanwhile.
    time.sleep(period_ms / 1000)
    millrace.config["policy"] = [{"name": "no-more", "action": "deny", "from_ports": [ports]}]
    millrace.reload()
    answered = time.time()
    wait_until("its connections to leave", lambda: installed(millrace) <= flows // 2, timeout=60, pause=0.01)
    flowed = datagrams.finish()
    for process, _ in captures:
        process.stop()

    late = max(last_packet(file) for _, file in captures) - answered
    metrics = millrace.metrics()
    enforced = metrics.sum("policy_time_to_enforce_seconds_count")
    fences = metrics.sum("offload_fences_total")
    print(f"{enforced} of {flows} enforced, the last packet {late * 1e3:.1f} ms after the answer, {fences} fences")
    assert -seconds < late < BOUND_SECONDS
    # Each is timed: by the machine, or by the worker that saw its packet first.
    assert flows // 2 <= enforced <= flows // 2 + 16
    assert flowed["never"] == 0
    assert flowed["silent"] == flows // 2, flowed
    assert metrics.sum("offload_connections", state="installed") == flows - flows // 2
    assert metrics.sum("offload_miss_packets_total") == 0
    assert metrics.sum("drops_total", reason="policy_denied") > 0
