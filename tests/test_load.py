"""Many connections: short ones, from many clients, on two workers, and under a SYN flood."""

import contextlib
import os
import random
import socket
import struct
import threading
import time

import pytest
from lab import clients, servers
from lab.frames import Wire
from lab.millrace import service
from lab.net import wait_until
from lab.topology import CLIENT4, VIP4, VIP6, Shape

VIP = VIP4.format(1)
SHORT = {"tcp_half_open_s": 2, "tcp_closing_s": 2, "tcp_time_wait_s": 2, "tcp_reset_s": 2}

@pytest.fixture
def two_cores() -> None:
    """Two workers need a core each: a smaller machine fails here, and says why."""
    assert len(os.sched_getaffinity(0)) >= 2, "needs two cores"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("two_cores")
def test_short_connections_all_succeed_and_leave_nothing_behind(labs, full, workers):
    lab = labs(workers=workers)
    millrace = lab.start_millrace([service("web", 1, timeouts=SHORT)])
    wanted, done = 100_000 if full else 20_000, 0
    while done < wanted:
        load = clients.wrk(lab.client, VIP, lab.directory / f"wrk{done}.log", seconds=4, close=True).finish()
        assert load.failed == 0, load
        assert load.completed > 0
        done += load.completed
    assert millrace.metrics().sum("lb_connections_total") >= wanted
    millrace.wait_for_no_connections(timeout=30)
    assert millrace.metrics().sum("lb_connections") == 0


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("family", [4, 6])
def test_two_workers_translate_both_directions_for_many_clients(labs, family):
    lab = labs(Shape(sources=100), workers=2)
    digest = servers.make_file(lab.files / "file", 1 << 20)
    millrace = lab.start_millrace([service("web", 1, family=family)])
    address = (VIP4 if family == 4 else VIP6).format(1)
    for source in lab.network.sources(family):
        answers = clients.count_answers(lab.client, address, 10, "--interface", source)
        assert answers.total() == 10
        assert clients.http_get(lab.client, address, "/client", "--interface", source) == source
    assert clients.http_sha256(lab.client, address, "/files/file") == digest
    metrics = millrace.at_rest()
    received = metrics.by("worker_received_packets_total", "worker")
    assert len(received) == 2, f"one worker did nothing: {received}"
    assert metrics.imbalance() == {"0": 0, "1": 0}
    # This device spreads by the whole tuple, which NAT changes: replies arrive at the wrong worker.
    out, taken = (metrics.sum(f"worker_handed_{way}_packets_total") for way in ("out", "in"))
    assert out == taken > 0


class Flood:
    """SYNs from spoofed sources, until it is stopped."""

    def __init__(self, lab, rate: int):
        self.rate, self.sent, self._stop = rate, 0, threading.Event()
        self.wire = Wire(lab.client, "eth0")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        choose, started = random.Random(1), time.monotonic()
        while not self._stop.is_set():
            while self.sent < self.rate * (time.monotonic() - started):
                # A full queue takes no more for a moment.
                with contextlib.suppress(OSError):
                    self.wire.send(syn(choose, self.wire.mac))
                    self.sent += 1
            time.sleep(0.001)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self.wire.socket.close()


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def syn(choose: random.Random, mac: bytes) -> bytes:
    """A SYN to the VIP from a random client of 10.0.0.0/8."""
    source = bytes([10, choose.randrange(256), choose.randrange(256), choose.randrange(1, 255)])
    addresses = source + socket.inet_aton(VIP)
    port, sequence = choose.randrange(1024, 65536), choose.getrandbits(32)
    tcp = struct.pack("!HHIIBBHHH", port, 80, sequence, 0, 0x50, 0x02, 64240, 0, 0)
    tcp = tcp[:16] + struct.pack("!H", checksum(addresses + struct.pack("!HH", 6, len(tcp)) + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + addresses
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return bytes.fromhex("020000000101") + mac + b"\x08\x00" + ip + tcp


def test_established_connections_survive_a_syn_flood(labs):
    lab = labs()
    servers.make_file(lab.files / "slow", 1_000_000)
    capacity, share = 20_000, 10
    millrace = lab.start_millrace(
        [service("web", 1, timeouts=SHORT)],
        # The answers to spoofed SYNs have to go somewhere: to the client, who ignores them.
        ports={"front": {"gateway": CLIENT4}},
        limits={"connections": capacity, "half_open_percent": share},
    )
    half_open_max = capacity * share // 100
    url = f"http://{VIP}/files/slow?rate=100000&n=[1-20]"
    downloads = clients.Background(
        lab.client,
        ["curl", "-sS", "--parallel", "--parallel-immediate", "-o", "/dev/null", "-w", "%{size_download} ", url],
    )
    wait_until("the downloads to run", lambda: millrace.metrics().sum("lb_connections") >= 20)
    flood = Flood(lab, rate=10_000)
    try:
        while flood.sent < 10 * half_open_max or downloads.running():
            metrics = millrace.metrics()
            assert metrics.sum("ct_half_open") <= half_open_max
            assert metrics.sum("ct_entries") <= capacity
            time.sleep(0.2)
    finally:
        flood.stop()
    assert downloads.output().split() == ["1000000"] * 20
    metrics = millrace.at_rest()
    refused = metrics.sum("drops_total", reason="half_open_limit")
    evicted = metrics.sum("ct_evicted_total", kind="half_open")
    assert refused + evicted >= flood.sent - half_open_max - metrics.sum("ct_expired_total")
    assert metrics.sum("ct_evicted_total", kind="idle") == 0
    wait_until("half-open connections to expire", lambda: millrace.metrics().sum("ct_half_open") == 0, timeout=10)
    assert clients.count_answers(lab.client, VIP, 200).total() == 200
