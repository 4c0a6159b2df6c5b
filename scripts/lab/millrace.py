"""Millrace itself: its configuration, its process, its command line and its metrics."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from .eswitch import DEVICES as eswitch_devices
from .eswitch import Eswitch, EswitchTelemetry
from .net import LabError, Netns, Process, wait_until
from .topology import BACK4, BACK6, FRONT4, FRONT6, VIP4, VIP6, backend4, backend6

METRICS_PORT = 9090
# What it may take to stop under load.
STOP_SECONDS = 2.0


def service(
    name: str, host: int, port: int = 80, *, family: int = 4, backends: Iterable[int] = (1, 2, 3), **keys: object
) -> dict:
    """A `[[service]]` on the VIP with this host part, with these of the lab's backends."""
    vip, address = (VIP4, backend4) if family == 4 else (VIP6, backend6)
    members = [{"address": address(n), "weight": 1} for n in backends]
    return {"name": name, "vip": vip.format(host), "protocol": "tcp", "ports": [port], **keys, "backend": members}


def configuration(directory: Path, devices: list[str], *, workers: int = 1) -> dict:
    """A configuration of the lab's two ports, or of its one for two, without services."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < workers:
        raise LabError(f"{workers} workers need as many cores; here are {len(cores)}")
    front, back = [f"{FRONT4}/24", f"{FRONT6}/64"], [f"{BACK4}/24", f"{BACK6}/64"]
    if len(devices) == 1:
        ports = [{"name": "lan", "device": devices[0], "addresses": front + back}]
    else:
        ports = [
            {"name": "front", "device": devices[0], "addresses": front, "faces": "clients"},
            {"name": "back", "device": devices[1], "addresses": back, "faces": "backends"},
        ]
    return {
        "dpdk": {"hugepages": False, "memory_mb": 512, "file_prefix": directory.name, "mbufs": 16384},
        # The cores belong to clients and servers too.
        "workers": {"cores": cores[:workers], "idle": "backoff"},
        "metrics": {"listen": f"127.0.0.1:{METRICS_PORT}"},
        "control": {"socket": str(directory / "control.sock")},
        "limits": {"connections": 100_000},
        "port": ports,
        "service": [],
    }


def device(driver: str, number: int, workers: int) -> str:
    """The DPDK device for the interface p0 or p1."""
    if driver == "af_xdp":
        # Without the kernel's fragment reassembly that net_af_packet asks for.
        return f"net_af_xdp{number},iface=p{number}"
    return f"net_af_packet{number},iface=p{number},qpairs={workers},blocksz=65536,framesz=2048,framecnt=4096"


def on_eswitch(config: dict, eswitch: Eswitch) -> None:
    """Makes the configuration's ports those of a software eSwitch: its uplink, and its host if there are two."""
    config["dpdk"]["eal_args"] = eswitch.eal_args(wires=len(config["port"]))
    for port, name in zip(config["port"], eswitch_devices):
        port["device"] = name


def to_toml(config: dict) -> str:
    """The configuration as TOML. Tables hold scalars, lists of scalars, tables and lists of tables."""
    return "\n".join(_table(config, "")) + "\n"


def _table(table: dict, path: str) -> Iterable[str]:
    nested = {}
    for key, value in table.items():
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            nested[f"{path}.{key}" if path else key] = value
        elif not (value == [] and path == ""):
            # JSON's strings, numbers, booleans and lists are TOML's.
            yield f"{key} = {json.dumps(value)}"
    for name, value in nested.items():
        header = f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
        for one in value if isinstance(value, list) else [value]:
            yield from ("", header, *_table(one, name))


class Metrics:
    """One scrape of the metrics page."""

    _LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
    _LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

    def __init__(self, page: str):
        self.series: list[tuple[str, dict[str, str], float]] = []
        for line in page.splitlines():
            if found := self._LINE.match(line):
                self.series.append((found[1], dict(self._LABEL.findall(found[2] or "")), float(found[3])))

    def sum(self, name: str, **labels: str) -> int:
        """The sum of a metric's series that have these labels; it is an error if there is no such metric."""
        values = [value for series, have, value in self.series if series == name and labels.items() <= have.items()]
        if not values and not any(series == name for series, _, _ in self.series):
            raise LabError(f"no metric {name}")
        return round(sum(values))

    def by(self, name: str, label: str, **labels: str) -> dict[str, int]:
        """A metric's values by one label, without zeros."""
        values: dict[str, int] = {}
        for series, have, value in self.series:
            if series == name and labels.items() <= have.items() and value:
                values[have[label]] = values.get(have[label], 0) + round(value)
        return values

    def buckets(self, name: str) -> dict[str, int]:
        """The buckets of a histogram by their upper bounds, each with all that are below."""
        return self.by(f"{name}_bucket", "le")

    def received(self) -> int:
        """Packets that workers took from ports."""
        return self.sum("worker_received_packets_total")

    def forwarded(self, what: str, **labels: str) -> int:
        """Packets or bytes forwarded for backends, in software and in hardware."""
        return self.sum(f"lb_{what}_total", **labels)

    def in_hardware(self) -> int:
        """Packets forwarded by hardware."""
        return self.forwarded("packets", path="hw")

    def imbalance(self) -> dict[str, int]:
        """What each worker took minus what it gave; anything but zero, at rest, is a packet lost sight of."""
        workers = {have["worker"] for series, have, _ in self.series if series == "worker_received_packets_total"}
        taken = ("received_packets_total", "handed_in_packets_total", "generated_packets_total")
        given = ("sent_packets_total", "consumed_packets_total", "dropped_packets_total")
        given += ("handed_out_packets_total", "held_packets")
        balance = {}
        for worker in sorted(workers):
            total = sum(self.sum(f"worker_{name}", worker=worker) for name in taken)
            balance[worker] = total - sum(self.sum(f"worker_{name}", worker=worker) for name in given)
        return balance


class Millrace:
    """A running Millrace. `config` may be changed and `reload`ed."""

    def __init__(self, netns: Netns, binary: Path, directory: Path, config: dict, *, outlive: bool = False):
        self.netns, self.binary, self.config = netns, binary, config
        self.socket = directory / "control.sock"
        # Answers if there is an eSwitch.
        self.eswitch = EswitchTelemetry(config["dpdk"]["file_prefix"])
        self.file = directory / "millrace.toml"
        self.write()
        argv = [str(binary), "run", "--config", str(self.file)]
        self.process = Process("millrace", netns.enter(argv), directory / "millrace.log", outlive=outlive)
        wait_until("millrace answers /readyz", self._ready, timeout=30)

    def write(self) -> None:
        self.file.write_text(to_toml(self.config))

    def _ready(self) -> bool:
        self.process.must_be_alive()
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, str]:
        """An HTTP request to the metrics port."""
        connection = http.client.HTTPConnection("127.0.0.1", METRICS_PORT, timeout=5)
        connection.sock = self.netns.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.sock.settimeout(5)
        try:
            connection.sock.connect(("127.0.0.1", METRICS_PORT))
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metrics(self) -> Metrics:
        status, page = self.get("/metrics")
        if status != 200:
            raise LabError(f"/metrics: HTTP {status}: {page}")
        return Metrics(page)

    def at_rest(self, timeout: float = 5) -> Metrics:
        """A scrape in which the counters are those of the scrape before it, but for what Millrace itself
        sends and takes in: health checks never cease.

        A worker counts a packet in and out at different moments and a scrape may fall between them, so one
        that shows an imbalance is taken again; what is really lost stays lost.
        """
        last = self.metrics()

        def forwarded(page: Metrics) -> tuple[float, float]:
            def count(what: str) -> float:
                return page.sum(f"worker_{what}_packets_total")

            return count("received") - count("consumed"), count("sent") - count("generated")

        def unchanged() -> Metrics | None:
            nonlocal last
            before, last = last, self.metrics()
            same = forwarded(before) == forwarded(last)
            settled = same and (not any(last.imbalance().values()) or time.monotonic() > patience)
            return last if settled else None

        patience = time.monotonic() + timeout / 2
        return wait_until("traffic to cease", unchanged, timeout, pause=0.3)

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs `millrace words...` against this process."""
        argv = [str(self.binary), "--socket", str(self.socket), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)

    def do(self, *words: str) -> str:
        """Runs a command that must succeed."""
        done = self.cli(*words)
        if done.returncode != 0:
            raise LabError(f"millrace {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def show(self, *words: str) -> object:
        """`millrace show words... --json`, parsed."""
        return json.loads(self.do("show", *words, "--json"))

    def wait_for_no_connections(self, timeout: float) -> None:
        """Until the last connection is forgotten; tells of those that stay."""
        try:
            wait_until("connections to end", lambda: self.metrics().sum("ct_entries") == 0, timeout)
        except LabError as error:
            raise LabError(f"{error}\n{self.do('show', 'connections')}") from None

    def service(self, name: str) -> dict:
        """The configuration of one service, to be changed before `reload`."""
        return next(one for one in self.config["service"] if one["name"] == name)

    def reload(self) -> None:
        """Makes `config` take effect."""
        self.write()
        self.do("reload")

    def stop(self) -> float:
        """Ends it politely; gives the seconds that took. A crash or a hang is an error."""
        self.process.must_be_alive()
        seconds = self.process.stop(signal.SIGTERM, timeout=STOP_SECONDS + 3)
        if self.process.popen.returncode != 0:
            raise LabError(f"millrace ended with {self.process.popen.returncode}:\n{self.process.tail()}")
        return seconds
