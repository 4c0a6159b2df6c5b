"""The device under test: what it counts, and in the lab its process."""

from __future__ import annotations

import os
import socket
import time
import urllib.request
from pathlib import Path

from lab.eswitch import DEVICES, NAME, STEERING
from lab.millrace import Metrics, to_toml
from lab.net import LabError, Process, wait_until
from lab.telemetry import Telemetry
from lab.testpmd import built_driver

from .ledger import Book
from .scene import Scene, Testbed
from .traffic import HTTP_PORTS

# What the lab can be asked for.
MODES = ("nat", "dsr", "source-partition")
# Of the last of these: `dsr` by the low bits of the client's address, as XenoFlow does it.
PARTITIONS = 64
PATHS = ("software", "eswitch")
# Hardware's counters are read twice a second.
SETTLE_SECONDS = {"software": 0.1, "eswitch": 0.6}
REST_TIMEOUT = 30.0


class Device:
    """A running Millrace, by its metrics."""

    def __init__(self, url: str, ports: tuple[str, str], path: str):
        self.url, self.ports, self.path = url, ports, path

    def metrics(self) -> Metrics:
        """The page as it is now."""
        try:
            with urllib.request.urlopen(self.url, timeout=10) as answer:
                return Metrics(answer.read().decode())
        except OSError as error:
            raise LabError(f"{self.url}: {error}: is Millrace running, with [metrics] listen there?") from error

    def build(self) -> str:
        """Which build of Millrace this is: version and commit, as it says itself."""
        labels = [have for name, have, _ in self.metrics().series if name == "build_info"]
        return f"{labels[0]['version']} ({labels[0]['commit']})" if labels else "unknown"

    def book(self) -> Book:
        """What it has counted until now."""
        page = self.metrics()
        sides = dict(zip(("clients", "servers"), self.ports))

        def by_side(name: str) -> dict[str, int]:
            return {side: page.sum(name, port=port) for side, port in sides.items()}

        def by_direction(path: str) -> dict[str, int]:
            return {way: page.sum("lb_packets_total", direction=way, path=path) for way in ("original", "reply")}

        return Book(
            rx=by_side("port_rx_packets_total"),
            tx=by_side("port_tx_packets_total"),
            missed=by_side("port_rx_missed_total"),
            refused=sum(by_side("port_tx_errors_total").values()),
            hw=by_direction("hw"),
            sw=by_direction("sw"),
            drops=page.by("drops_total", "reason"),
            own=page.sum("worker_generated_packets_total") + page.sum("worker_consumed_packets_total"),
            unsent=self.unsent(),
        )

    def unsent(self) -> dict[str, int]:
        """Packets that left Millrace and found a link full, where that can be known."""
        return {"clients": 0, "servers": 0}

    def at_rest(self, timeout: float = REST_TIMEOUT) -> Book:
        """What it has counted when nothing comes any more: two readings in a row that are the same."""
        deadline = time.monotonic() + timeout
        last = self.book()
        while True:
            time.sleep(SETTLE_SECONDS.get(self.path, SETTLE_SECONDS["eswitch"]))
            before, last = last, self.book()
            if before == last:
                return last
            if time.monotonic() > deadline:
                raise LabError(
                    f"Millrace still counted packets {timeout:g} s after the load had ended: nothing else may send to "
                    "its ports, and its services may have no health checks while it is measured"
                )

    def loads(self) -> dict[str, float]:
        """What else is of interest after a trial."""
        page = self.metrics()
        return {
            "connections": page.sum("ct_entries"),
            "half_open": page.sum("ct_half_open"),
            "opened": page.sum("lb_opened_total"),
        }

    def close(self) -> None:
        """Ends what was started with it."""


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def memif(number: int, directory: Path, role: str) -> str:
    """The DPDK device that is one end of the lab's link 0 (clients) or 1 (servers)."""
    path = directory / f"link{number}.sock"
    return f"net_memif{number},role={role},id=0,socket={path},socket-abstract=no,rsize=12"


class LabDevice(Device):
    """Millrace on memif ports: its ports are the servers of the links, so that a generator may come and go."""

    def __init__(self, binary: Path, directory: Path, testbed: Testbed, mode: str, path: str):
        port = free_port()
        super().__init__(f"http://127.0.0.1:{port}/metrics", testbed.ports, path)
        self._telemetry = Telemetry(directory.name)
        config = configuration(directory, testbed, mode, path, port)
        file = directory / "millrace.toml"
        file.write_text(to_toml(config))
        argv = [str(binary), "run", "--config", str(file)]
        self.process = Process("millrace", argv, directory / "millrace.log")
        try:
            wait_until("Millrace serves its metrics", self._serves, timeout=30)
        except LabError:
            self.close()
            raise

    def _serves(self) -> bool:
        self.process.must_be_alive()
        try:
            self.metrics()
        except LabError:
            return False
        return True

    def unsent(self) -> dict[str, int]:
        """What the software eSwitch's wires could not take: by its ports 0 and 1."""
        told = super().unsent()
        if self.path == "eswitch":
            for port, side in enumerate(told):
                counters = self._telemetry.ask(f"/ethdev/xstats,{port}")
                told[side] = counters["wire_tx_full"] + counters["wire_tx_down"]
        return told

    def wait_for_links(self) -> None:
        """Waits until the generator is at the other end of both links."""

        def up() -> bool:
            self.process.must_be_alive()
            page = self.metrics()
            return all(page.sum("port_link_up", port=port) == 1 for port in self.ports)

        wait_until("both memif links are up", up, timeout=60, pause=0.2)

    def close(self) -> None:
        self.process.stop(timeout=10)


def worker_core() -> int:
    """The core that forwards: the last one. The generator has those before it."""
    return sorted(os.sched_getaffinity(0))[-1]


def configuration(directory: Path, testbed: Testbed, mode: str, path: str, metrics_port: int) -> dict:
    """Millrace between two links, serving what the scene says."""
    scene = testbed.scene
    links = [f"{memif(number, directory, 'server')},mac={scene.device_macs[number]}" for number in (0, 1)]
    dpdk: dict[str, object] = {"hugepages": False, "memory_mb": 1024, "file_prefix": directory.name, "mbufs": 65536}
    offload: dict[str, object] = {"engine": "none"}
    devices = links
    if path == "eswitch":
        device = f"{NAME},uplink=net_memif0,host=net_memif1,dv_flow_en={STEERING['hws']},mbufs=65536"
        # The eSwitch first, so that its ports are 0 and 1, as on a BlueField.
        dpdk["eal_args"] = ["-d", str(built_driver()), "--vdev", device]
        dpdk["eal_args"] += [word for link in links for word in ("--vdev", link)]
        devices, offload = DEVICES, {"rules_max": 1 << 18}
    front = {
        "name": testbed.ports[0],
        "device": devices[0],
        "addresses": ["192.0.2.1/24"],
        "gateway": "192.0.2.254",
        "faces": "clients",
        "neighbour": [{"address": "192.0.2.254", "mac": scene.client_mac}],
    }
    back = {
        "name": testbed.ports[1],
        "device": devices[1],
        "addresses": ["198.51.100.1/24"],
        "faces": "backends",
        "neighbour": [{"address": server, "mac": scene.server_mac} for server in scene.servers],
    }
    return {
        "dpdk": dpdk,
        "workers": {"cores": [worker_core()]},
        "metrics": {"listen": f"127.0.0.1:{metrics_port}"},
        "control": {"socket": str(directory / "control.sock")},
        "limits": {"connections": 1_000_000},
        "offload": offload,
        "port": [front, back],
        "service": services(scene, mode),
    }


def services(scene: Scene, mode: str) -> list[dict]:
    """What is served: datagrams, DNS, HTTP."""
    http = list(range(scene.http_port, scene.http_port + HTTP_PORTS))
    how: dict[str, object] = {"mode": mode}
    if mode == "source-partition":
        how = {"mode": "dsr", "scheduler": mode, "partitions": PARTITIONS}
    return [
        {
            "name": name,
            "vip": scene.vip,
            "protocol": protocol,
            "ports": ports,
            **how,
            "backend": [{"address": server} for server in scene.servers],
        }
        for name, protocol, ports in (
            ("datagrams", "udp", [scene.udp_port]),
            ("dns", "udp", [scene.dns_port]),
            ("web", "tcp", http),
        )
    ]
