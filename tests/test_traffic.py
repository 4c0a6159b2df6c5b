"""The packet source as a user would try it: Debian's testpmd between a source and a sink."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from lab.net import LabError, wait_until
from lab.testpmd import Testpmd

ROOT = Path(__file__).resolve().parents[1]


def built_driver() -> Path:
    """The driver, or what TRAFFIC_DRIVER names."""
    path = Path(os.environ.get("TRAFFIC_DRIVER") or ROOT / "target/driver/libtraffic.so")
    if not path.exists():
        raise LabError(f"{path} is not there: cargo build --profile driver -p traffic --features pmd")
    return path


def eal_options(*devices: str) -> list[str]:
    options = ["--no-huge", "-m", "256", "--no-pci", "--no-shconf", "-d", str(built_driver())]
    return [*options, *(word for device in devices for word in ("--vdev", device))]


class TrafficTestpmd(Testpmd):
    """testpmd with these devices for ports."""

    def __init__(self, log: Path, *devices: str, options: tuple[str, ...] = ()):
        self.devices = devices
        # Before it forwards, testpmd empties all receive queues; these never are.
        super().__init__(log, wires=(), options=("--no-flush-rx", *options))

    def eal_options(self, devargs: str, driver: str) -> list[str]:
        return eal_options(*self.devices)

    def run(self, port: int, statistic: str, least: int) -> list[dict[str, int]]:
        """Forwards until a statistic of a port is as much as that; then those of all ports, nothing on its way."""
        self.command("start")
        wait_until(f"{statistic} of port {port}", lambda: self.xstats(port)[statistic] >= least, 20, pause=0.05)
        assert "Done." in self.command("stop")
        return [self.xstats(port) for port in range(len(self.devices))]


@pytest.mark.parametrize(
    ("mode", "arguments", "size"),
    [
        ("io", "flows=1000", 60),
        ("macswap", "flows=100000,ipv6=1,flags=syn,fresh=1", 74),
        ("5tswap", "flows=10000000,protocol=udp,size=1000", 1000),
    ],
)
def test_what_is_received_is_sent(tmp_path, mode, arguments, size):
    devices = (f"net_traffic0,{arguments}", "net_traffic1,flows=0,check=1")
    with TrafficTestpmd(tmp_path / "testpmd.log", *devices, options=(f"--forward-mode={mode}",)) as testpmd:
        source, sink = testpmd.run(1, "tx_good_packets", 10_000)
        packets = source["rx_good_packets"]
        assert packets == sink["tx_good_packets"] and packets * size == sink["tx_good_bytes"] == source["rx_good_bytes"]
        assert source["fresh"] == (packets if "fresh" in arguments else 0)
        assert sink["tx_bad_checksum"] == sink["rx_good_packets"] == source["tx_good_packets"] == 0
        assert 0 < source["rx_turn_p50_ns"] <= source["rx_turn_p99_ns"] <= source["rx_turn_max_ns"]
        # Another start goes on counting.
        again, _ = testpmd.run(1, "tx_good_packets", packets + 1000)
        assert again["fresh"] == (again["rx_good_packets"] if "fresh" in arguments else 0)
        testpmd.command("clear port xstats all")
        assert not any(testpmd.xstats(0).values()), "a reset leaves nothing"
        assert testpmd.quit() == 0


def test_the_far_end_answers(tmp_path):
    devices = ("net_traffic0,flows=500,new=100000,check=1", "net_traffic1,flows=0,answers=1000,check=1")
    with TrafficTestpmd(tmp_path / "testpmd.log", *devices, options=("--forward-mode=io",)) as testpmd:
        source, sink = testpmd.run(1, "answers", 3_000)
        assert sink["rx_good_packets"] <= sink["answers"], "what was still waiting goes with the end"
        assert source["tx_good_packets"] == sink["rx_good_packets"] > 2_000
        # The first thousand, and a SYN and a FIN of each connection.
        assert source["fresh"] <= sink["answers"] <= 2 * source["fresh"] + 1000
        assert sink["answers_dropped"] == sink["tx_bad_checksum"] == source["tx_bad_checksum"] == 0
        assert testpmd.quit() == 0


def test_queues_share_the_flows(tmp_path):
    options = ("--forward-mode=io", "--rxq=3", "--txq=3")
    devices = ("net_traffic0,flows=2", "net_traffic1,flows=0")
    with TrafficTestpmd(tmp_path / "testpmd.log", *devices, options=options) as testpmd:
        source, sink = testpmd.run(1, "tx_good_packets", 10_000)
        received = [source[f"rx_q{queue}_packets"] for queue in range(3)]
        assert received == [sink[f"tx_q{queue}_packets"] for queue in range(3)]
        assert min(received[:2]) > 0 and received[2] == 0, "there is no third flow"
        # Another start is another beginning, and what was counted stays.
        again, _ = testpmd.run(1, "tx_good_packets", sum(received) + 10_000)
        assert again["rx_good_packets"] > source["rx_good_packets"]
        for command, answer in (("port stop all", "Done"), ("port close 1", "Done"), ("port start 0", "Done")):
            assert answer in testpmd.command(command)
        assert testpmd.quit() == 0


def ended(*devices: str) -> str:
    """What testpmd says that cannot start its ports, and ends when nobody types."""
    argv = ["dpdk-testpmd", "-l", "0,1", *eal_options(*devices), "--", "-i", "--total-num-mbufs=2048"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def test_bad_arguments_are_refused():
    said = ended("net_traffic7,flow=1")
    assert "net_traffic: net_traffic7: bad argument flow=1: no such key; there are flows, protocol" in said


def test_buffers_too_small_are_refused():
    said = ended("net_traffic0,size=9000", "net_traffic1,flows=0")
    assert "packets of Rx queue 0 hold 2048 bytes, frames need 9000" in said


def test_a_rate_is_kept_and_the_time_is_read(tmp_path):
    devices = ("net_traffic0,flows=100,protocol=udp,rate=20000,stamp=1", "net_traffic1,flows=0,check=1,stamp=1")
    with TrafficTestpmd(tmp_path / "testpmd.log", *devices, options=("--forward-mode=io",)) as testpmd:
        began = time.monotonic()
        source, sink = testpmd.run(1, "tx_good_packets", 5000)
        took = time.monotonic() - began
        assert source["rx_good_packets"] == sink["tx_good_packets"] <= 20_000 * took
        assert sink["tx_latencies"] == sink["tx_good_packets"] and sink["tx_bad_checksum"] == 0
        # From one call of the same loop to the next but one.
        assert 0 < sink["tx_latency_p50_ns"] <= sink["tx_latency_p999_ns"] <= sink["tx_latency_max_ns"]
        assert source["tx_latencies"] == 0
