"""Connections by the thousand from raw frames: tests/traffic.c in the client's and the backends' namespaces.

Its clients are 10.1.0.0 and on, and its servers 198.51.100.111 and on: addresses that no kernel answers for.
Millrace reaches the former by way of the client, and knows the MAC addresses of the latter.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from .lab import ROOT, Lab
from .net import LabError, Process, run
from .topology import CLIENT4, VIP4

PORT = 7000
# The virtual address of the service that `serve` makes, and that Millrace answers ARP for.
VIP = VIP4.format(7)
# What `start_millrace` has to add to its ports.
FRONT = {"gateway": CLIENT4}


def backend(number: int) -> str:
    """The address of the raw server on backend `number`, counted from 1."""
    return f"198.51.100.{110 + number}"


def ports(lab: Lab) -> dict:
    """What Millrace's ports need to know of these clients and servers."""
    neighbours = [
        {"address": backend(n), "mac": mac_of(netns, "back")} for n, netns in enumerate(lab.network.backends, 1)
    ]
    return {"front": FRONT, "back": {"neighbour": neighbours}}


def service(lab: Lab, protocol: str = "tcp", **keys: object) -> dict:
    """A service of all raw servers."""
    members = [{"address": backend(n), "weight": 1} for n in range(1, len(lab.network.backends) + 1)]
    name = f"raw-{protocol}"
    return {"name": name, "vip": VIP, "protocol": protocol, "ports": [PORT], **keys, "backend": members}


def mac_of(netns, interface: str) -> str:
    return json.loads(netns.run(["ip", "-j", "link", "show", "dev", interface]))[0]["address"]


class Traffic:
    """The program, and the servers; they end with the lab's namespaces."""

    def __init__(self, lab: Lab):
        self.lab, self.binary = lab, lab.directory / "traffic"
        flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
        run(["cc", *flags, str(ROOT / "tests/traffic.c"), "-o", str(self.binary)])
        for n, netns in enumerate(lab.network.backends, 1):
            argv = [str(self.binary), "serve", "back", str(PORT)]
            lab.processes.append(Process(f"raw server {n}", netns.enter(argv), lab.directory / f"raw{n}.log"))

    def tcp(self, rate: int, seconds: int, rounds: int = 2, think_ms: int = 0) -> Clients:
        """Starts opening so many connections a second."""
        return self._clients("tcp", rate, seconds, rounds, think_ms)

    def udp(self, flows: int, period_ms: int, seconds: int) -> Clients:
        """Starts so many flows, each of a datagram every so often."""
        return self._clients("udp", flows, period_ms, seconds)

    def _clients(self, mode: str, *numbers: int) -> Clients:
        client = self.lab.client
        client.run(["ping", "-c", "1", "-W", "2", "192.0.2.1"], check=False)
        found = re.search(r"lladdr (\S+)", client.run(["ip", "neigh", "show", "192.0.2.1"]))
        if not found:
            raise LabError("the client does not know Millrace's MAC address")
        argv = [str(self.binary), mode, "eth0", found[1], VIP, str(PORT), *map(str, numbers)]
        clients = Clients(client.enter(argv), self.lab.directory / f"traffic-{mode}-{len(self.lab.processes)}.log")
        self.lab.processes.append(clients.process)
        return clients


class Clients:
    """Raw clients at work."""

    def __init__(self, argv: list[str], log: Path):
        self.process = Process("raw clients", argv, log)

    def running(self) -> bool:
        return self.process.alive()

    def finish(self, timeout: float = 300) -> dict:
        """What happened, when all is done."""
        self.process.popen.wait(timeout)
        return self._result()

    def stop(self) -> dict:
        """What has happened until now."""
        self.process.popen.send_signal(signal.SIGTERM)
        return self.finish(30)

    def _result(self) -> dict:
        text = self.process.log.read_text()
        if self.process.popen.returncode != 0 or not text.startswith("{"):
            raise LabError(f"raw clients ended with {self.process.popen.returncode}: {text}")
        return json.loads(text)
