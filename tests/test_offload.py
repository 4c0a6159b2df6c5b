"""Established connections move into the eSwitch, and nobody notices: real clients and servers, and Millrace on
the software eSwitch between them, under software and under hardware steering."""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import clients, servers
from lab.eswitch import Eswitch
from lab.lab import Lab
from lab.millrace import Millrace, service
from lab.net import LabError, Netns, Process, wait_until
from lab.topology import VIP4, VIP6, Shape

STEERING = pytest.mark.parametrize("steering", ["sws", "hws"])
# Rules go soon after the last datagram, so that tests end.
SOON = {"idle_s": 2}
# What is left in software of a connection in hardware: neighbours' upkeep, and packets that close it.
STRAY_SHARE = 0.01
# The same of a test of seconds, where one of twenty connections that was declined at first, and asked for again later,
# is half a percent.
STRAY_SHARE_BRIEF = 0.02
# From linux/in6.h.
IPV6_RECVERR = 25


def services() -> list[dict]:
    """HTTP and DNS on both families, every connection and every client's questions to one backend."""
    made = []
    for family in (4, 6):
        made.append(service(f"web-v{family}", 1, family=family, backends=(1, 2)))
        made.append(service(f"dns-v{family}", 1, 53, family=family, backends=(1, 2), protocol="udp"))
    return made


def begin(labs: Callable[..., Lab], eswitch: Eswitch, shape: Shape = Shape(backends=2), **sections: dict) -> Lab:
    lab = labs(shape, eswitch=eswitch)
    offload = {**SOON, **sections.pop("offload", {})}
    lab.start_millrace(sections.pop("services", services()), offload=offload, **sections)
    return lab


class Downloads:
    """Long downloads over both families at a bounded rate, each into a file of its own."""

    def __init__(self, lab: Lab, each: int, size: int, seconds: int, vips: tuple[str, ...] = (VIP4, VIP6)):
        self.directory = lab.directory / f"downloads-{time.monotonic_ns()}"
        self.directory.mkdir()
        self.digest = servers.make_file(lab.files / "long", size)
        self.number = each * len(vips)
        argv = ["curl", "-sS", "--parallel", "--parallel-max", str(self.number), "--parallel-immediate"]
        argv += ["--no-progress-meter", "--max-time", "150"]
        for vip in vips:
            netloc = clients.host(vip.format(1)).replace("[", "\\[").replace("]", "\\]")
            path = self.directory / f"{'6' if ':' in vip else '4'}-#1"
            argv += ["-o", str(path), f"http://{netloc}/files/long?rate={size // seconds}&n=[1-{each}]"]
        self.curl = clients.Background(lab.client, argv)

    def running(self) -> bool:
        return self.curl.running()

    def finish(self) -> None:
        """They must all have arrived as they were sent."""
        self.curl.output()
        digests = collections.Counter(servers.sha256(path) for path in self.directory.iterdir())
        assert digests == {self.digest: self.number}


def installed(millrace: Millrace) -> int:
    """Connections whose packets hardware forwards."""
    return millrace.metrics().sum("offload_connections", state="installed")


def wait_for_hardware(millrace: Millrace, connections: int, timeout: float = 10) -> None:
    wait_until(f"{connections} connections in hardware", lambda: installed(millrace) >= connections, timeout)


def wait_for_none(millrace: Millrace, base_rules: int, timeout: float = 20) -> None:
    """All rules of connections have gone: in Millrace's books and in the device."""

    def none() -> bool:
        metrics = millrace.metrics()
        connections = metrics.sum("offload_connections", state="installed")
        connections += metrics.sum("offload_connections", state="removing")
        left = metrics.sum("offload_rules") + connections + metrics.sum("offload_queue", queue="settling")
        return left == 0 and millrace.eswitch.rules() == base_rules

    try:
        wait_until("all rules of connections to go", none, timeout, pause=0.2)
    except LabError as error:
        left = millrace.do("show", "offload"), *millrace.eswitch.rule_lines()
        raise LabError("\n".join([str(error), *left])) from error


@contextlib.contextmanager
def questions(lab: Lab, seconds: int, rate: int) -> Iterator[None]:
    """A steady stream of DNS questions from sockets that stay the same."""
    load = clients.dnsperf(
        lab.client, VIP4.format(1), lab.directory / "dnsperf.log", seconds=seconds, clients=4, rate=rate
    )
    yield
    answered = load.finish()
    assert answered.failed == 0 and answered.completed > 0, answered


@pytest.mark.parametrize(
    "eswitch",
    [Eswitch("sws"), Eswitch("hws"), Eswitch("hws", service_core=min(os.sched_getaffinity(0)))],
    ids=["sws", "hws", "hws-service-core"],
)
def test_established_connections_leave_the_workers(labs, full, eswitch):
    lab = begin(labs, eswitch)
    millrace = lab.millrace
    base_rules = millrace.eswitch.rules()
    assert base_rules > 0, "without rules that lead to those of connections, nothing can be offloaded"
    seconds, rate, stray = (40, 4_000_000, STRAY_SHARE) if full else (8, 1_000_000, STRAY_SHARE_BRIEF)
    with questions(lab, seconds, rate=500):
        downloads = Downloads(lab, 10, seconds * rate, seconds)
        wait_until("connections", lambda: millrace.metrics().sum("lb_connections") >= 20)
        time.sleep(2)
        # 20 downloads, and the sockets that ask.
        assert installed(millrace) >= 24
        before, came = millrace.metrics().received(), millrace.eswitch.from_wires()
        time.sleep(seconds / 4)
        came = millrace.eswitch.from_wires() - came
        seen = millrace.metrics().received() - before
        assert came > 1000 and seen <= came * stray, f"workers saw {seen} of {came} packets"
        downloads.finish()
    wait_for_none(millrace, base_rules)
    metrics = millrace.at_rest()
    came, seen = millrace.eswitch.from_wires(), metrics.received()
    assert came == seen + metrics.in_hardware(), "every packet took one of the two paths"
    print(f"{eswitch.steering}: workers saw {seen} of {came} packets, {seen / came:.3%}")
    assert seen <= came * stray
    assert metrics.sum("offload_miss_packets_total") == 0
    assert metrics.sum("offload_orphans_total") == 0


class Capture:
    """Counts TCP and UDP packets at an interface, and their IP bytes, by direction."""

    def __init__(self, lab: Lab, netns: Netns, interface: str, name: str):
        self.file = lab.directory / f"{name}.pcap"
        argv = ["tcpdump", "-p", "-n", "-i", interface, "-s", "96", "-B", "65536", "-w", str(self.file), "-U"]
        filter_ = "tcp port 80 or udp port 53"
        self.process = Process(f"tcpdump at {name}", netns.enter([*argv, filter_]), lab.directory / f"{name}.log")
        wait_until("tcpdump to listen", lambda: "listening on" in self.process.tail())

    def stop(self) -> dict[str, tuple[int, int]]:
        """Packets and bytes, `original` (towards servers) and `reply`."""
        time.sleep(0.5)
        self.process.stop()
        assert "0 packets dropped by kernel" in self.process.tail(), self.process.tail()
        totals = {"original": [0, 0], "reply": [0, 0]}
        for frame in frames_of(self.file):
            ip = frame[14:]
            size = struct.unpack_from("!H", ip, 2)[0] if ip[0] >> 4 == 4 else 40 + struct.unpack_from("!H", ip, 4)[0]
            header = (ip[0] & 15) * 4 if ip[0] >> 4 == 4 else 40
            to_server = struct.unpack_from("!H", ip, header + 2)[0] in (80, 53)
            total = totals["original" if to_server else "reply"]
            total[0] += 1
            total[1] += size
        return {direction: tuple(total) for direction, total in totals.items()}


def frames_of(path: Path) -> Iterator[bytes]:
    data, at = path.read_bytes(), 24
    while at + 16 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 8)
        yield data[at + 16 : at + 16 + length]
        at += 16 + length


@STEERING
def test_the_books_agree_with_what_was_on_the_wires(labs, full, steering):
    """Packets and bytes, in software and hardware together, are those that clients and servers saw, exactly."""
    lab = begin(labs, Eswitch(steering))
    millrace = lab.millrace
    base_rules = millrace.eswitch.rules()
    ends = [(lab.client, "eth0", "client")]
    ends += [(netns, "back", f"b{n}") for n, netns in enumerate(lab.network.backends, 1)]
    captures = [Capture(lab, *end) for end in ends]
    seconds = 20 if full else 4
    with questions(lab, seconds, rate=200):
        Downloads(lab, 4, seconds * 1_000_000, seconds).finish()
    clients.count_answers(lab.client, VIP4.format(1), 50)
    wait_for_none(millrace, base_rules)
    metrics = millrace.at_rest()
    client, *backends = (capture.stop() for capture in captures)
    for direction in ("original", "reply"):
        counted = tuple(metrics.forwarded(what, direction=direction) for what in ("packets", "bytes"))
        summed = tuple(map(sum, zip(*(backend[direction] for backend in backends), strict=True)))
        assert counted == client[direction] == summed, direction
    assert metrics.in_hardware() > 0.9 * metrics.forwarded("packets")


@STEERING
def test_live_figures_follow_hardware(labs, steering):
    """What is shown of a connection grows while hardware forwards it, and never shrinks."""
    lab = begin(labs, Eswitch(steering), offload={"poll_ms": 100})
    millrace = lab.millrace
    base_rules = millrace.eswitch.rules()
    downloads = Downloads(lab, 2, 6_000_000, 6, vips=(VIP4,))
    wait_for_hardware(millrace, 2)
    # A rule each way.
    assert millrace.metrics().sum("offload_rules") == 4
    assert millrace.eswitch.rules() == base_rules + 4
    last = [0, 0]

    def grown() -> bool:
        nonlocal last
        rows = millrace.show("connections")["connections"]
        before, last = last, [row["reply"]["bytes"] for row in sorted(rows, key=lambda row: row["client"])]
        assert last[0] >= before[0] and last[1] >= before[1], "they shrink"
        return last[0] > since[0] and last[1] > since[1]

    for _ in range(3):
        since = last
        wait_until("figures to grow", grown, timeout=4, pause=0.2)
    assert millrace.show("rules"), "no rules are shown"
    downloads.finish()
    wait_for_none(millrace, base_rules)


@STEERING
def test_services_and_engines_can_be_left_out(labs, steering):
    lab = begin(labs, Eswitch(steering), services=[service("web-v4", 1, backends=(1, 2), offload=False)])
    downloads = Downloads(lab, 5, 2_000_000, 2, vips=(VIP4,))
    downloads.finish()
    assert lab.millrace.metrics().in_hardware() == 0
    assert lab.millrace.metrics().sum("offload_insertions_total") == 0
    lab.millrace.stop()
    lab.start_millrace(services(), offload={"engine": "none"})
    Downloads(lab, 5, 2_000_000, 2, vips=(VIP4,)).finish()
    assert lab.millrace.metrics().in_hardware() == 0
    assert lab.millrace.eswitch.rules() == 0


@STEERING
def test_expiring_packets_and_fragments_reach_software(labs, steering):
    """Of a flow in hardware: TTL 1 gets its ICMP error from Millrace, fragments are forwarded by it."""
    echo = service("echo", 1, 7, family=6, backends=(1,), protocol="udp")
    lab = begin(labs, Eswitch(steering), services=[echo])
    servers.Echo(lab.network.backends[0])
    # Of IPv6, since fragments of IPv4 do not pass net_af_packet.
    with lab.client.socket(socket.AF_INET6, socket.SOCK_DGRAM) as flow:
        flow.settimeout(3)
        flow.connect((VIP6.format(1), 7))

        def ask(size: int) -> None:
            flow.send(bytes(size))
            assert len(flow.recv(65536)) == size

        for _ in range(20):
            ask(100)
        wait_for_hardware(lab.millrace, 1)
        before = lab.millrace.metrics().received()
        for _ in range(50):
            ask(100)
        assert lab.millrace.metrics().received() - before <= 10
        ask(4000)
        flow.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        flow.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        flow.send(b"last hop")
        with pytest.raises(OSError) as error:
            flow.recv(100)
        assert error.value.errno == errno.EHOSTUNREACH, "what an ICMP error about the hop limit comes to"
