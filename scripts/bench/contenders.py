"""Who takes part in the bench against others: how each is started with the same ports, and what it tells of itself.

All are DPDK programs and have its telemetry socket, so packets are counted in one way: by the ports.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import json
import signal
import time
from pathlib import Path

from lab.lab import built_binary
from lab.millrace import to_toml
from lab.net import LabError, Process, run, wait_until
from lab.telemetry import Telemetry

from . import packets
from .kinds import Kind, plugin

BACKENDS = [f"10.0.1.{11 + n}" for n in range(8)]
BACKEND_PORT = 8080
# What ports, queues and caches hold beside the packets that a source keeps.
SPARE_MBUFS = 16384
# What they need besides, without huge pages: MiB.
BASE_MB = 256
# Reading both counters takes less, unless this process was kept from running.
READ_NS = 600_000


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a contender is put into."""

    kind: Kind
    flows: int
    source: str
    """The device packets come from, with its arguments."""
    sink: str
    """The device they go to."""
    directory: Path
    """For sockets, logs and configurations: a new one, with a short path."""
    cores: tuple[int, int]
    """The core for everything else and the one that forwards."""
    hugepages: bool

    @property
    def mbufs(self) -> int:
        """Packet buffers needed: net_pcap keeps all packets of its file in some."""
        return (self.flows if self.kind.memory is None else 0) + SPARE_MBUFS

    @property
    def connections_max(self) -> int:
        """What a table of connections should hold."""
        return max(round(self.kind.spare * self.flows) + self.kind.room, 64)

    def plugins(self) -> list[str]:
        """EAL's options for drivers that are not DPDK's own."""
        return ["-d", str(plugin())] if self.kind.plugin else []

    def eal_memory(self, base_mb: int) -> list[str]:
        """EAL's options for memory, the same for all; `base_mb` is what is needed besides `mbufs`."""
        # --in-memory needs no mounted hugetlbfs, and 22.11 refuses it together with --no-huge.
        return ["--in-memory"] if self.hugepages else ["--no-huge", "--no-shconf", "-m", str(self.memory_mb(base_mb))]

    def memory_mb(self, base_mb: int) -> int:
        """Without huge pages a buffer may take a page, and EAL wants twice that."""
        return base_mb + self.mbufs * 8 // 1024


@dataclasses.dataclass(frozen=True)
class Count:
    """Packets so far, and when."""

    ns: int
    received: int
    sent: int
    doubt: int = 0
    """Nanoseconds within which both were read, one after the other."""


class Contender(abc.ABC):
    """A program that forwards from a source to a sink, from its making until it is closed."""

    name: str
    title: str
    rewrites = True
    """Whether the destination becomes a backend's."""

    def __init__(self, scene: Scene):
        self.scene = scene
        self.telemetry = Telemetry(scene.directory.name)
        self._undo = contextlib.ExitStack()
        self._undo.callback(self.telemetry.remove)
        try:
            self.process = self.start()
            ports = wait_until(f"{self.name} has its ports", self._ports, timeout=60)
            self._source, self._sink = ports
        except BaseException:
            self.close()
            raise

    @abc.abstractmethod
    def start(self) -> Process:
        """Starts it; gives the process that has the telemetry socket."""

    def connections(self) -> tuple[int, str] | None:
        """How many connections it has and which state one of them is in; `None`: it has no such thing."""
        return None

    def dropped(self) -> dict[str, int]:
        """What it says it has dropped, by reason."""
        return {}

    def run(self, name: str, argv: list[str]) -> Process:
        """Starts a program that is ended with this contender; it goes before most others of the machine."""
        process = Process(name, ["nice", "-n", "-20", *argv], self.scene.directory / f"{name}.log")
        self._undo.callback(process.stop, signal.SIGTERM, 5)
        # Where Linux groups processes by session, niceness counts within the group, and the group has its own.
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/autogroup").write_text("-20")
        return process

    def _ports(self) -> tuple[int, int] | None:
        """The numbers of source and sink once both are up."""
        self.process.must_be_alive()
        names = {}
        try:
            for port in self.telemetry.ask("/ethdev/list"):
                names[self.telemetry.ask(f"/ethdev/info,{port}")["name"]] = port
        except (LabError, KeyError, TypeError):
            return None
        wanted = [device.partition(",")[0] for device in (self.scene.source, self.scene.sink)]
        return tuple(names[name] for name in wanted) if all(name in names for name in wanted) else None

    def count(self) -> Count:
        """Reads the ports' counters, as close to one another as a few tries bring them; the time is the sink's."""
        best, distance = None, READ_NS
        for _ in range(8):
            before = time.perf_counter_ns()
            received = self.telemetry.ask(f"/ethdev/stats,{self._source}")["ipackets"]
            between = time.perf_counter_ns()
            sent = self.telemetry.ask(f"/ethdev/stats,{self._sink}")["opackets"]
            after = time.perf_counter_ns()
            if best is None or after - before < distance:
                distance = after - before
                best = Count((between + after) // 2, received, sent, distance)
            if distance < READ_NS:
                break
        return best

    def turns(self) -> dict[str, int]:
        """How long a burst of the source kept it, nanoseconds by percentile; connections begun, and when."""
        began = time.perf_counter_ns()
        stats = self.telemetry.ask(f"/ethdev/xstats,{self._source}")
        percentiles = {name: stats[f"rx_turn_{name}_ns"] for name in ("p50", "p99", "p999")}
        return {**percentiles, "fresh": stats["fresh"], "ns": (began + time.perf_counter_ns()) // 2}

    def close(self) -> None:
        """Ends it and all it left behind."""
        self._undo.close()

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Testpmd(Contender):
    """DPDK's own forwarder, which swaps addresses and ports and knows no connections: the floor."""

    __test__ = False  # for pytest: no test, whatever its name
    name, title, rewrites = "testpmd", "testpmd 5tswap", False

    def start(self) -> Process:
        scene = self.scene
        argv = ["dpdk-testpmd", "-l", ",".join(map(str, scene.cores)), "--main-lcore", str(scene.cores[0]), "--no-pci"]
        argv += [f"--file-prefix={scene.directory.name}", *scene.eal_memory(BASE_MB), *scene.plugins()]
        argv += ["--vdev", scene.source, "--vdev", scene.sink, "--", f"--total-num-mbufs={scene.mbufs}"]
        # With a period for statistics it waits for a signal instead of the end of its input.
        argv += ["--forward-mode=5tswap", "--auto-start", "--no-flush-rx", "--stats-period=86400"]
        return self.run("testpmd", argv)


class Millrace(Contender):
    """The release build, as anyone would run it: stateful NAT to eight backends."""

    name, title = "millrace", "Millrace nat"

    def start(self) -> Process:
        self._file = self.scene.directory / "millrace.toml"
        self._file.write_text(to_toml(self.configuration()))
        process = self.run("millrace", [str(built_binary()), "run", "--config", str(self._file)])

        def ready() -> bool:
            process.must_be_alive()
            return self._socket.exists()

        wait_until("millrace has its control socket", ready, timeout=60)
        return process

    @property
    def _socket(self) -> Path:
        return self.scene.directory / "control.sock"

    def configuration(self) -> dict:
        """Two ports, two services and static neighbours; room for all connections, half-open ones too."""
        scene = self.scene
        dpdk = {"hugepages": scene.hugepages, "file_prefix": scene.directory.name, "mbufs": scene.mbufs}
        if scene.kind.plugin:
            dpdk["eal_args"] = scene.plugins()
        if not scene.hugepages:
            dpdk["memory_mb"] = scene.memory_mb(BASE_MB)
        neighbours = [{"address": address, "mac": f"02:00:00:00:01:{n:02x}"} for n, address in enumerate(BACKENDS)]
        front = {"name": "front", "device": scene.source, "addresses": ["10.0.0.1/24"], "gateway": "10.0.0.254"}
        front |= {"faces": "clients", "neighbour": [{"address": "10.0.0.254", "mac": "02:00:00:00:00:64"}]}
        back = {"name": "back", "device": scene.sink, "addresses": ["10.0.1.1/24"], "faces": "backends"}
        services = [
            {
                "name": protocol,
                "vip": ".".join(map(str, packets.VIP)),
                "protocol": protocol,
                "ports": [packets.VIP_PORT],
                "mode": "nat",
                "backend": [{"address": f"{address}:{BACKEND_PORT}"} for address in BACKENDS],
            }
            for protocol in ("tcp", "udp")
        ]
        return {
            "dpdk": dpdk,
            "workers": {"cores": [scene.cores[1]]},
            "control": {"socket": str(self._socket)},
            "limits": {"connections": scene.connections_max, "half_open_percent": scene.kind.half_open_percent},
            "offload": {"engine": "none"},
            "port": [front, {**back, "neighbour": neighbours}],
            "service": services,
        }

    def connections(self) -> tuple[int, str] | None:
        shown = self.show("connections", "--limit", "1")
        return shown["entries"], ",".join(sorted({one["state"] for one in shown["connections"]}))

    def dropped(self) -> dict[str, int]:
        return {one["reason"]: one["packets"] for one in self.show("drops")}

    def show(self, *words: str) -> object:
        """`millrace show words... --json`, parsed."""
        said = run([str(built_binary()), "show", *words, "--json", "--socket", str(self._socket)])
        return json.loads(said)
