"""TRex: its server as a process of the runner's or one that runs already, and its Python client.

TRex is the user's installation: `--trex-dir` or TREX_DIR names the directory with `t-rex-64`, which also has the
client. A server is for stateless load (STL) or for stateful load (ASTF); to change, it is started anew.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import time
import warnings
from pathlib import Path
from types import ModuleType

from lab.net import LabError, Process, wait_until

from .. import astf, stl
from ..device import memif, worker_core
from ..ledger import Side
from ..scene import Testbed
from ..traffic import LATENCY_PPS, Stateful, Stateless
from . import GeneratorError, Sample

CLIENT = Path("automation/trex_control_plane/interactive")
START_SECONDS = 120.0
# Until flows that are open when a trial ends have ended.
DRAIN_SECONDS = 30.0
# TRex's own counters of a stateful trial that mean that a connection did not go well.
FAILURES = ("tcps_conndrops", "tcps_drops", "udps_keepdrops", "tcps_rexmttimeo_syn", "err_no_tcp", "err_cwf")
RESENT = ("tcps_sndrexmitpack",)
# Quantiles told of a histogram, which TRex keeps in steps of 10 us below 100, 100 below 1000, and so on.
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


def find(given: str | None) -> Path:
    """The installation that `--trex-dir` or TREX_DIR names, absolute."""
    named = given or os.environ.get("TREX_DIR")
    remedy = (
        "TRex is not part of this tree: unpack a release from https://trex-tgn.cisco.com and name its directory, "
        "the one with t-rex-64, with --trex-dir or TREX_DIR; or use --generator testpmd"
    )
    if not named:
        raise GeneratorError(f"where is TRex? {remedy}")
    directory = Path(named).expanduser().resolve()
    if not (directory / "t-rex-64").exists():
        raise GeneratorError(f"{directory} has no t-rex-64. {remedy}")
    if not (directory / CLIENT / "trex").is_dir():
        raise GeneratorError(f"{directory} has no Python client at {CLIENT}. {remedy}")
    return directory


def api(directory: Path, kind: str) -> ModuleType:
    """TRex's client for `stl` or `astf`, of this installation."""
    path = str(directory / CLIENT)
    if path not in sys.path:
        sys.path.insert(0, path)
    # Its packages are of their time.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()) as said:
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(f"trex.{kind}.api")
        except (ImportError, SystemExit) as error:
            raise GeneratorError(f"TRex's client does not load in this Python: {error} {said.getvalue()}") from error


def server_config(testbed: Testbed, directory: Path, ports: tuple[int, int]) -> dict:
    """TRex's configuration, of which the testbed has the last word."""
    scene = testbed.scene
    config: dict[str, object] = {
        "version": 2,
        "port_limit": 2,
        "prefix": directory.name,
        "zmq_rpc_port": ports[0],
        "zmq_pub_port": ports[1],
        "port_info": [
            {"src_mac": mac, "dest_mac": to}
            for mac, to in zip((scene.client_mac, scene.server_mac), scene.device_macs)
        ],
    }
    if testbed.lab:
        cores = [core for core in sorted(os.sched_getaffinity(0)) if core != worker_core()] or [0]
        config |= {
            "interfaces": [f"--vdev={memif(number, directory, 'client')}" for number in (0, 1)],
            "low_end": True,
            "low_end_core": cores[0],
            "memory": {"dp_flows": 400_000},
            "limit_memory": 1536,
        }
    return config | testbed.trex


def to_yaml(value: object) -> str:
    """YAML of what `server_config` makes, in JSON's words, of which YAML takes all."""
    return "- " + json.dumps(value) + "\n"


class Server:
    """TRex's server, started here."""

    def __init__(
        self, installation: Path, testbed: Testbed, directory: Path, ports: tuple[int, int], *, stateful: bool
    ):
        file = directory / "trex.yaml"
        file.write_text(to_yaml(server_config(testbed, directory, ports)))
        argv = ["sh", "-c", 'cd "$0" && exec ./t-rex-64 "$@"', str(installation), "-i", "--cfg", str(file)]
        argv += ["--no-scapy-server", "--no-ofed-check", *(["--astf"] if stateful else [])]
        name = "trex-astf" if stateful else "trex-stl"
        self.process = Process(name, argv, directory / f"{name}.log")

    def must_be_alive(self) -> None:
        self.process.must_be_alive()

    def close(self) -> None:
        # Its wrapper script has children.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 2)
        self.process.stop(timeout=20)


class Trex:
    """Load from TRex. `wait` is called once its server is up: its links may need a moment."""

    name = "trex"

    def __init__(
        self, installation: Path, testbed: Testbed, directory: Path, ports: tuple[int, int], wait=lambda: None
    ):
        self.installation, self.testbed, self.directory = installation, testbed, directory
        self._ports, self._wait = ports, wait
        self._server: Server | None = None
        self._client = None
        self._kind: str | None = None
        self._version: dict = {}

    @staticmethod
    def can(load: Stateless | Stateful) -> str | None:
        """Nothing: TRex makes every load there is."""
        return None

    def describe(self) -> dict[str, object]:
        return {"name": "TRex", **self._version}

    def about(self, load: Stateless | Stateful) -> str:
        return load.about

    def quantiles(self) -> str:
        return (
            "TRex counts latencies in steps (10 us wide up to 100 us, then 100 us, and so on); a quantile is the upper "
            "end of its step, or the greatest latency there was. The average is exact."
        )

    def close(self) -> None:
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.disconnect()
        if self._server:
            self._server.close()
        self._client = self._server = self._kind = None

    def _connect(self, kind: str):
        """The client, connected to a server of this kind."""
        if self._kind == kind:
            return self._client
        self.close()
        module = api(self.installation, kind)
        if self.testbed.start:
            self._server = Server(
                self.installation, self.testbed, self.directory, self._ports, stateful=kind == "astf"
            )
        make = module.ASTFClient if kind == "astf" else module.STLClient
        self._client = make(
            server=self.testbed.server, sync_port=self._ports[0], async_port=self._ports[1], sync_timeout=30,
            async_timeout=30,
        )
        self._kind = kind

        def connected() -> bool:
            if self._server:
                self._server.must_be_alive()
            try:
                self._client.connect()
                return True
            except module.TRexError as error:
                if not self._server:
                    raise GeneratorError(f"TRex's server at {self.testbed.server}: {error}") from error
                return False

        wait_until("TRex's server answers", connected, timeout=START_SECONDS, pause=1.0)
        self._version = dict(self._client.get_server_version())
        self._client.reset()
        # The testbed's MAC addresses need not be the NICs' own.
        with contextlib.suppress(module.TRexError):
            self._client.set_port_attr(promiscuous=True)
        self._wait()
        return self._client

    def _sides(self, stats: dict) -> tuple[Side, Side]:
        return tuple(Side(sent=int(stats[port]["opackets"]), received=int(stats[port]["ipackets"])) for port in (0, 1))

    def _settled(self, client) -> dict:
        """Its statistics, when nothing arrives any more."""
        last = client.get_stats()
        while True:
            time.sleep(0.2)
            before, last = last, client.get_stats()
            if self._sides(before) == self._sides(last):
                return last

    def recount(self, sample: Sample) -> None:
        sample.clients, sample.servers = self._sides(self._client.get_stats())

    def stateless(self, load: Stateless, pps: float, seconds: float, *, latency: bool = False) -> Sample:
        client = self._connect("stl")
        module = api(self.installation, "stl")
        client.reset(ports=[0, 1])
        client.add_streams(stl.streams(module, load, self.testbed.scene, latency=latency), ports=[0])
        client.clear_stats()
        # The multiplier's rate is that of all streams, those of a fixed rate included.
        total = max(pps, 2 * LATENCY_PPS) if latency else pps
        try:
            client.start(ports=[0], mult=f"{total}pps", duration=seconds, force=True)
            client.wait_on_traffic(ports=[0], timeout=seconds + 60, rx_delay_ms=200)
        except module.TRexError as error:
            raise LabError(f"TRex, {load.name} at {pps:.0f} pps: {error}") from error
        stats = self._settled(client)
        clients, servers = self._sides(stats)
        found = Sample(pps, seconds, clients, servers, clients.sent)
        found.notes["queue_full"] = float(stats.get("global", {}).get("queue_full", 0))
        if latency:
            found.latency_us = quantiles(client.get_pgid_stats([stl.LATENCY_PG]))
        return found

    def stateful(self, load: Stateful, cps: float, seconds: float) -> Sample:
        client = self._connect("astf")
        module = api(self.installation, "astf")
        client.reset()
        client.load_profile(astf.profile(module, load, self.testbed.scene, cps))
        client.clear_stats()
        try:
            client.start(mult=1, duration=seconds, nc=False, t_duration=seconds + DRAIN_SECONDS)
            client.wait_on_traffic(timeout=seconds + DRAIN_SECONDS + 60)
        except module.TRexError as error:
            raise LabError(f"TRex, {load.name} at {cps:.0f} connections/s: {error}") from error
        stats = self._settled(client)
        clients, servers = self._sides(stats)
        return connections(stats["traffic"], Sample(cps, seconds, clients, servers, 0))


def connections(traffic: dict, found: Sample) -> Sample:
    """Adds what TRex's TCP and UDP say of connections."""
    ours, theirs = traffic.get("client", {}), traffic.get("server", {})
    begun = ours.get("tcps_connattempt", 0) + ours.get("udps_connects", 0)
    made = ours.get("tcps_connects", 0) + ours.get("udps_connects", 0)
    found.begun = begun
    found.failed = begun - made + sum(side.get(key, 0) for side in (ours, theirs) for key in FAILURES)
    found.retransmitted = sum(side.get(key, 0) for side in (ours, theirs) for key in RESENT)
    payload = sum(side.get(key, 0) for side in (ours, theirs) for key in ("tcps_sndbyte_ok", "udps_sndbyte"))
    found.notes = {"payload_bytes": float(payload)}
    for side, counters in (("client", ours), ("server", theirs)):
        told = {key for key in counters if key in FAILURES or key.startswith("err_")}
        found.notes |= {f"{side} {key}": float(counters[key]) for key in sorted(told) if counters[key]}
    return found


def quantiles(stats: dict) -> dict[str, float] | None:
    """Round figures of TRex's latency statistics, in microseconds. A quantile is the upper end of the histogram's
    step that it lies in, but at most the greatest latency there was."""
    found = stats.get("latency", {}).get(stl.LATENCY_PG)
    if not found:
        return None
    latency = found["latency"]
    steps = sorted((int(low), count) for low, count in latency["histogram"].items())
    total = sum(count for _, count in steps)
    if not total:
        return None
    ends = [low + 10 ** max(len(str(low)) - 1, 1) for low, _ in steps]
    # TRex's maximum is now and then 0, while its histogram is not.
    most = float(latency["total_max"] or ends[-1])
    told = {"average": float(latency["average"]), "most": most, "packets": float(total)}
    for name, share in QUANTILES.items():
        below = 0
        for (_, count), end in zip(steps, ends):
            below += count
            if below >= share * total:
                told[name] = min(float(end), most)
                break
    return told
