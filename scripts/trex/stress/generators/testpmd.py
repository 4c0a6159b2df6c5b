"""DPDK's own testpmd with the tree's packet source, `net_traffic`: for where TRex is not.

::

    net_traffic0, the clients  --(io)--  net_memif0  ==  [front] Millrace [back]  ==  net_memif1  --(io)--  net_traffic1

testpmd carries packets between its ports in pairs and changes nothing. The clients' port makes packets at a rate
(`rate=`, `new=`) and gets the answers; the servers' port looks at checksums and at the times that packets carry, and
answers what opens or closes a connection. Both have the same clock, so latency is one way.

It makes datagrams of one size, SYNs, and TCP connections of four segments; for anything else there is TRex.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

from lab.lab import ROOT
from lab.net import LabError
from lab.testpmd import Testpmd

from ..device import Device, LabDevice, memif, worker_core
from ..ledger import Side
from ..scene import Testbed
from ..traffic import HTTP_SHORT, Stateful, Stateless
from . import GeneratorError, Sample

SOURCE, FRONT, BACK, SINK = range(4)
# With answers, each SYN and FIN is answered.
SINK_DEVICE = "net_traffic1,flows=0,check=1,stamp=1,answers=1"
SETTLE_SECONDS = 0.1


def plugin() -> Path:
    """The driver net_traffic, or what TRAFFIC_DRIVER names."""
    path = Path(os.environ.get("TRAFFIC_DRIVER") or ROOT / "target/driver/libtraffic.so")
    if not path.exists():
        raise GeneratorError(f"{path} is not there: cargo build --profile driver -p traffic --features pmd")
    return path


class _Testpmd(Testpmd):
    """testpmd with both ends of everything, at its prompt."""

    def __init__(self, testbed: Testbed, directory: Path):
        self._directory = directory
        cores = [core for core in sorted(os.sched_getaffinity(0)) if core != worker_core()] or [worker_core()]
        # One core for its prompt and its work: it sleeps at the one while it does the other.
        self.cores = ("--lcores", f"0@{cores[0]},1@{cores[0]}")
        options = ("--no-flush-rx", "--forward-mode=io", "--total-num-mbufs=65536", "--rxd=2048", "--txd=2048")
        super().__init__(directory / "testpmd.log", wires=(), options=options)

    def eal_options(self, devargs: str, driver: str) -> list[str]:
        options = ["--no-huge", "-m", "512", "--no-pci", "--no-shconf", "-d", str(plugin())]
        devices = ["net_traffic0,flows=0", *(memif(number, self._directory, "client") for number in (0, 1))]
        return [*options, *(word for device in [*devices, SINK_DEVICE] for word in ("--vdev", device))]


class TestpmdGenerator:
    """Load from testpmd."""

    __test__ = False  # for pytest: no test, whatever its name
    name = "testpmd"

    def __init__(self, testbed: Testbed, directory: Path, device: Device):
        self._scene, self._device = testbed.scene, device
        self._testpmd = _Testpmd(testbed, directory)
        self._forwarding = False
        if isinstance(device, LabDevice):
            device.wait_for_links()

    @staticmethod
    def can(load: Stateless | Stateful) -> str | None:
        """Why it cannot make this load, if so."""
        if isinstance(load, Stateless):
            if len(load.parts) > 1:
                return "testpmd's source has packets of one size; TRex has mixes"
            return "testpmd's source has no DNS queries; TRex has" if load.parts[0].protocol == "dns" else None
        if load.parts != ((1.0, HTTP_SHORT),):
            return "testpmd's connections are opened and closed, and carry nothing; TRex has real ones"
        return None

    def describe(self) -> dict[str, object]:
        found = re.search(r"DPDK ([\d.]+)", self._testpmd.banner)
        return {"name": "dpdk-testpmd and net_traffic", **({"dpdk": found[1]} if found else {})}

    def about(self, load: Stateless | Stateful) -> str:
        if isinstance(load, Stateful):
            return "connections that are opened and closed and carry nothing; one ended well if no packet was lost"
        return load.about

    def quantiles(self) -> str:
        return "Quantiles are those of the packets that carried a stamp, rounded up to 3 %."

    def stateless(self, load: Stateless, pps: float, seconds: float, *, latency: bool = False) -> Sample:
        part, scene = load.parts[0], self._scene
        flows = min(scene.flows, 1_000_000)
        if part.protocol == "syn":
            arguments = f"flows=1,protocol=tcp,flags=syn,fresh=1,port={scene.http_port}"
        else:
            size = round(load.size.frame)
            arguments = f"protocol=udp,size={size},port={scene.udp_port}"
            arguments += ",flows=1,fresh=1" if part.protocol == "fresh" else f",flows={flows}"
            arguments += ",stamp=1" if latency else ""
        rate = max(round(pps), 1)
        counts = self._trial(f"{arguments},rate={rate},count={max(round(rate * seconds), 1)}", rate, seconds)
        found = self._sample(counts, pps, seconds)
        found.begun = found.clients.sent
        if latency:
            sunk = counts[SINK]
            names = {"p50": "p50", "p99": "p99", "p999": "p999", "most": "max"}
            if sunk["tx_latencies"]:
                found.latency_us = {name: sunk[f"tx_latency_{key}_ns"] / 1000 for name, key in names.items()}
                found.latency_us["packets"] = sunk["tx_latencies"]
        return found

    def stateful(self, load: Stateful, cps: float, seconds: float) -> Sample:
        rate = max(round(cps), 1)
        arguments = f"flows=0,protocol=tcp,new={rate},count={max(round(rate * seconds), 1)}"
        arguments += f",port={self._scene.http_port}"
        counts = self._trial(arguments, rate, seconds)
        found = self._sample(counts, cps, seconds)
        found.begun = counts[SOURCE]["fresh"]
        return found

    def recount(self, sample: Sample) -> None:
        counts = self._counts()
        sample.clients, sample.servers = _side(counts[FRONT]), _side(counts[BACK])

    def _trial(self, arguments: str, rate: float, seconds: float) -> list[dict[str, int]]:
        """Makes load until its end, and waits until all of it has arrived; the ports' statistics."""
        scene, say = self._scene, self._say
        target = f"vip={scene.vip},client={scene.client},mac={scene.device_macs[0]}"
        if self._forwarding:
            say("stop")
        say(f"port stop {SOURCE}", f"port close {SOURCE}", "device detach net_traffic0")
        say(f"port attach net_traffic0,{arguments},{target}", f"port start {SOURCE}")
        say(f"set portlist {SOURCE},{FRONT},{BACK},{SINK}", "set fwd io")
        say("clear port xstats all", "clear port stats all", "start")
        self._forwarding = True
        time.sleep(seconds)
        return self._settled(max(SETTLE_SECONDS, 3 / rate))

    def _settled(self, seconds: float) -> list[dict[str, int]]:
        """All counters, when they stand still for so long: the load has an end, and what is on its way is still
        carried."""
        last = self._counts()
        while True:
            time.sleep(seconds)
            before, last = last, self._counts()
            if [_side(one) for one in before] == [_side(one) for one in last]:
                return last

    def _counts(self) -> list[dict[str, int]]:
        return [self._testpmd.xstats(port) for port in (SOURCE, FRONT, BACK, SINK)]

    def _say(self, *lines: str) -> None:
        for line in lines:
            said = self._testpmd.command(line)
            if re.search(r"(?i)fail|error|invalid|cannot|bad argument|please", said):
                raise LabError(f"testpmd, {line}: {said}")

    def _sample(self, counts: list[dict[str, int]], wanted: float, seconds: float) -> Sample:
        return Sample(wanted, seconds, _side(counts[FRONT]), _side(counts[BACK]), 0)

    def close(self) -> None:
        with contextlib.suppress(LabError):
            self._testpmd.quit()
        self._testpmd.close()


def _side(counts: dict[str, int]) -> Side:
    return Side(sent=counts["tx_good_packets"], received=counts["rx_good_packets"])
