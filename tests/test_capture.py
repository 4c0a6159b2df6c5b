"""`millrace capture`: what is received and sent of chosen connections is in the file, byte by byte; connections
in hardware come back to software for it and return; what is dropped is there with the reason."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import clients, pcapng, servers
from lab.eswitch import Eswitch
from lab.lab import Lab
from lab.millrace import Millrace, service
from lab.net import wait_until
from lab.topology import CLIENT4, VIP4, Shape, backend4
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader

VIP, OTHER = VIP4.format(1), VIP4.format(2)


class Capture:
    """`millrace capture` at work."""

    def __init__(self, millrace: Millrace, file: Path, *words: str):
        self.file = file
        argv = [str(millrace.binary), "--socket", str(millrace.socket), "--json", "capture", "-w", str(file), *words]
        self.popen = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.popen.stderr.readline().startswith("capturing for "), self.popen.communicate()

    def stop(self) -> dict:
        self.popen.send_signal(signal.SIGINT)
        return self.result()

    def result(self) -> dict:
        """The summary, once it has ended."""
        told, error = self.popen.communicate(timeout=60)
        assert self.popen.returncode == 0, error
        return json.loads(told)


@contextlib.contextmanager
def capturing(millrace: Millrace, file: Path, *words: str) -> Iterator[Capture]:
    capture = Capture(millrace, file, *words)
    try:
        yield capture
    finally:
        if capture.popen.poll() is None:
            capture.popen.kill()
            capture.popen.communicate()


def stream(packets: list[pcapng.Packet], source: str) -> bytes:
    """What the first connection's end at `source` has sent, in the order of its sequence numbers."""
    parts, first = {}, None
    for packet in packets:
        ip = Ether(packet.frame)[IP]
        if ip.src != source or TCP not in ip:
            continue
        if ip[TCP].flags.S:
            first = ip[TCP].seq + 1
        payload = packet.frame[14 + 4 * ip.ihl + 4 * ip[TCP].dataofs : 14 + ip.len]
        if payload:
            parts[ip[TCP].seq] = payload
    assert first is not None, "the beginning is missing"
    data = b""
    for seq in sorted(parts, key=lambda seq: (seq - first) % 2**32):
        at = (seq - first) % 2**32
        assert at <= len(data), f"{at - len(data)} bytes are missing at {len(data)}"
        data = data[:at] + parts[seq]
    return data


@pytest.mark.parametrize("workers", [1, 2])
def test_a_download_is_captured_whole(labs, workers):
    lab = labs(Shape(backends=1), workers=workers)
    millrace = lab.start_millrace([service("web", 1, backends=[1]), service("other", 2, backends=[1])])
    servers.make_file(lab.files / "some", 300_000)
    file = lab.directory / "web.pcapng"
    with capturing(millrace, file, f"client={CLIENT4}", "service=web", "protocol=tcp") as capture:
        for vip in (OTHER, VIP, OTHER):
            clients.http_sha256(lab.client, vip, "/files/some")
        summary = capture.stop()
    packets, lost = pcapng.read(file)
    assert (summary["packets"], summary["lost"], summary["ended"]) == (len(packets), 0, "stopped")
    assert lost == {"front": 0, "back": 0} and sum(packet.length for packet in packets) == summary["bytes"]
    times = [packet.nanoseconds for packet in packets]
    assert times == sorted(times) and abs(times[0] / 1e9 - time.time()) < 120
    # Every packet twice: as it came, and as it left.
    sides = {
        (name, inbound): [packet for packet in packets if (packet.interface, packet.inbound) == (name, inbound)]
        for name in ("front", "back")
        for inbound in (True, False)
    }
    assert len(sides["front", True]) == len(sides["back", False]) > 0
    assert len(sides["back", True]) == len(sides["front", False]) > 100
    expected = (lab.files / "some").read_bytes()
    as_sent, as_received = stream(sides["front", False], VIP), stream(sides["back", True], backend4(1))
    assert as_sent == as_received and as_sent.endswith(expected) and as_sent.startswith(b"HTTP/1.1 200")
    assert b"GET /files/some" in stream(sides["back", False], CLIENT4)
    # Others read the same.
    reader = RawPcapNgReader(str(file))
    assert [frame for frame, _ in reader] == [packet.frame for packet in packets]
    reader.close()


def test_captures_end_by_themselves_and_one_at_a_time(labs):
    lab = labs(Shape(backends=1))
    millrace = lab.start_millrace([service("web", 1, backends=[1])])
    file = lab.directory / "few.pcapng"
    with capturing(millrace, file, "--count", "7", "--snaplen", "60", f"vip={VIP}:80") as capture:
        second = millrace.cli("capture", "-w", "/dev/null")
        assert second.returncode == 1 and "captures; that ends within" in second.stderr, second
        # What is refused costs no file.
        kept = lab.directory / "kept.pcapng"
        kept.write_text("kept")
        assert millrace.cli("capture", "-w", str(kept)).returncode == 1 and kept.read_text() == "kept"
        assert file.stat().st_mode & 0o777 == 0o600
        clients.count_answers(lab.client, VIP, 5)
        summary = capture.result()
    packets, _ = pcapng.read(file)
    assert (summary["ended"], summary["packets"], len(packets)) == ("count", 7, 7)
    assert all(len(packet.frame) == min(packet.length, 60) for packet in packets)
    with capturing(millrace, file, "--seconds", "1") as capture:
        assert capture.result()["ended"] == "seconds"
    # Whoever reads no more has left; its place is free soon.
    with capturing(millrace, file):
        pass
    wait_until("the place", lambda: millrace.cli("capture", "-s", "1", "-w", "/dev/null").returncode == 0, 20)
    for wrong, code in [("host=a", "is no term"), ("service=none", "no service"), ("dropped=why", "is no reason")]:
        refused = millrace.cli("capture", "-w", "/dev/null", wrong)
        assert refused.returncode == 1 and code in refused.stderr, refused


def path(millrace: Millrace, name: str) -> list[str]:
    return [one["path"] for one in millrace.show("connections", "--service", name)["connections"]]


def test_hardware_gives_back_what_is_captured_and_gets_it_again(labs):
    lab = labs(Shape(backends=1), eswitch=Eswitch("hws"))
    made = [service("web", 1, backends=[1]), service("other", 2, backends=[1])]
    millrace = lab.start_millrace(made)
    servers.make_file(lab.files / "slow", 10_000_000)
    into = lab.directory / "download"
    urls = [f"http://{vip}/files/slow?rate=100000" for vip in (VIP, OTHER)]
    argv = ["curl", "-sS", "--no-buffer", "--max-time", "100"]
    watched = clients.Background(lab.client, [*argv, "-o", str(into), urls[0]])
    other = clients.Background(lab.client, [*argv, "-o", "/dev/null", urls[1]])
    wait_until("hardware to have both", lambda: path(millrace, "web") == path(millrace, "other") == ["hardware"], 20)
    file = lab.directory / "web.pcapng"
    with capturing(millrace, file, "--count", "1000000", "--seconds", "90", "service=web") as capture:
        wait_until("software to have it", lambda: path(millrace, "web") == ["software"], 20)
        assert path(millrace, "other") == ["hardware"]
        wait_until("packets", lambda: file.stat().st_size > 50_000, 20)
        summary = capture.stop()
    packets, _ = pcapng.read(file)
    assert (summary["recalled"], summary["ended"], len(packets)) == (1, "stopped", summary["packets"])
    assert {packet.interface for packet in packets} == {"front", "back"}
    wait_until("hardware to have it again", lambda: path(millrace, "web") == ["hardware"], 20)
    watched.kill()
    other.kill()
    arrived = into.read_bytes()
    assert arrived and (lab.files / "slow").read_bytes().startswith(arrived)


def drops(lab: Lab, file: Path, *words: str) -> dict[str, list[str]]:
    """What is captured of dropped packets while some are: source and destination, by comment."""
    with capturing(lab.millrace, file, "--seconds", "30", *words) as capture:
        for port in (80, 81):
            argv = ["curl", "-sS", "--max-time", "1", f"http://{VIP}:{port}/"]
            subprocess.run(lab.client.enter(argv), capture_output=True, timeout=30, check=False)
        capture.stop()
    found: dict[str, list[str]] = {}
    for packet in pcapng.read(file)[0]:
        ip = Ether(packet.frame)[IP]
        assert packet.inbound
        found.setdefault(packet.comment, []).append(f"{packet.interface} {ip.src} {ip.dst}:{ip[TCP].dport}")
    return found


def test_drops_are_captured_with_their_reason(labs):
    lab = labs(Shape(backends=1))
    denied = {"name": "closed", "action": "deny", "to": [VIP], "ports": [80], "protocol": "tcp"}
    lab.start_millrace([service("web", 1, backends=[1])], policy=[denied])
    found = drops(lab, lab.directory / "drops.pcapng", "dropped", "protocol=tcp")
    assert set(found["dropped: policy_denied"]) == {f"front {CLIENT4} {VIP}:80"}
    assert set(found["dropped: no_service"]) == {f"front {CLIENT4} {VIP}:81"}
    found = drops(lab, lab.directory / "denied.pcapng", "dropped=policy_denied", "service=web")
    assert set(found) == {"dropped: policy_denied"}
