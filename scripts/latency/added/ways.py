"""Ways from one end to the other, with nothing between them, or something that forwards.

::

    veth      [from] eth0 ------------------------------------------------ eth0 [to]
    others    [from] eth0 --- p0 [bridge, XDP program, or Millrace] p1 --- eth0 [to]

All lines are veth pairs, each way has its own, and its namespaces. A process that forwards is stopped (SIGSTOP) but
when it is its turn: one that polls takes a core whether or not there are packets.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.machine import Forwarder
from lab.eswitch import Eswitch
from lab.lab import ROOT, built_binary
from lab.millrace import Metrics, Millrace, configuration, device, on_eswitch
from lab.net import LabError, Netns, run, unload, wait_until
from lab.telemetry import runtime_directory
from lab.topology import CLIENT4, VIP4, backend4

SOURCES = ROOT / "scripts/latency"
VIP, PORT = VIP4.format(9), 7000
# Of both ends, and of what forwards.
FROM, TO = "02:00:00:00:0a:01", "02:00:00:00:0b:01"
NEAR, FAR = "02:00:00:00:01:01", "02:00:00:00:02:01"
# Before each run, and a connection has a rule after 8 packets (`price_min`).
WARM_RATE, WARM_PACKETS = 2000, 500
SHARE_IN_HARDWARE = 0.99


class Unavailable(LabError):
    """This machine has not what a way needs."""


@dataclasses.dataclass(frozen=True)
class Counted:
    """What a way says it has forwarded since it began."""

    forwarded: int = 0
    by_device: int = 0
    """Of these, by the device."""
    dropped: int = 0
    busy_seconds: float = 0.0
    """The worker's, in turns that found packets."""
    waited_seconds: float = 0.0
    """How long the worker was kept from running by other programs."""

    def since(self, before: Counted) -> Counted:
        return Counted(*(now - then for now, then in zip(dataclasses.astuple(self), dataclasses.astuple(before))))


class Way:
    """Two ends that have been connected, and what is between them if `forwards`."""

    about = "one veth pair: the floor"
    forwards = False
    rewrites = False
    """Whether frames come with the far end's MAC address as their destination because somebody wrote it."""

    def __init__(self, name: str, directory: Path, core: int):
        self.name, self.directory, self.core = name, directory, core
        self.carried = 0
        """Packets that have come through, both ways, since it began."""
        self.undo = contextlib.ExitStack()
        try:
            prefix = directory.name
            self.sender, self.receiver = self._netns(f"{prefix}-from"), self._netns(f"{prefix}-to")
            if self.forwards:
                self.middle = self._netns(f"{prefix}-mid")
                self._pair(self.sender, "eth0", FROM, self.middle, "p0", NEAR)
                self._pair(self.middle, "p1", FAR, self.receiver, "eth0", TO)
            else:
                self._pair(self.sender, "eth0", FROM, self.receiver, "eth0", TO)
            self.start()
        except BaseException:
            self.undo.close()
            raise

    def _netns(self, name: str) -> Netns:
        netns = Netns.create(name)
        self.undo.callback(netns.remove)
        netns.sysctl(ipv6__conf__default__disable_ipv6=1)
        return netns

    @staticmethod
    def _pair(one: Netns, name: str, mac: str, other: Netns, peer: str, peer_mac: str) -> None:
        one.ip(f"link add {name} address {mac} type veth peer name {peer} address {peer_mac} netns {other.name}")
        for netns, interface in ((one, name), (other, peer)):
            netns.ip(f"link set {interface} up")
            unload(netns, interface)

    def start(self) -> None:
        """Puts there what forwards."""

    @property
    def target(self) -> str:
        """The MAC address that frames are sent to."""
        return NEAR if self.rewrites else TO

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Lets it forward for a while."""
        yield

    def counted(self) -> Counted | None:
        """What it has counted, if it counts."""
        return None

    def warm(self, probe) -> None:
        """Before anything counts: caches, and connections, which have to be there."""
        probe(self, WARM_RATE, WARM_PACKETS)

    def close(self) -> None:
        self.undo.close()


class Bridge(Way):
    about = "two veth pairs and the kernel's bridge"
    forwards = True

    def start(self) -> None:
        self.middle.ip(
            "link add br0 type bridge mcast_snooping 0 forward_delay 0",
            "link set p0 master br0",
            "link set p1 master br0",
            "link set br0 up",
        )


class Xdp(Way):
    about = "two veth pairs and an XDP program, native, that writes MAC addresses and redirects"
    forwards = True
    rewrites = True

    def start(self) -> None:
        binary = self.directory / "mac.o"
        number = self.middle.run(["ip", "-o", "link", "show", "dev", "p1"]).split(":")[0]
        compile_xdp(binary, int(number))
        # Who takes redirected frames has to have a program, too: only with one veth receives as XDP sends.
        for netns, interface, section in ((self.middle, "p0", "xdp_mac"), (self.receiver, "eth0", "xdp_pass")):
            try:
                netns.run(["ip", "link", "set", "dev", interface, "xdpdrv", "obj", str(binary), "sec", section])
            except LabError as error:
                raise Unavailable(f"this kernel takes no XDP program for a veth: {error}") from error


def compile_xdp(binary: Path, interface: int) -> None:
    """The program that redirects to the interface of this number."""
    if not shutil.which("clang"):
        raise Unavailable("clang, which compiles the XDP program, is not there: run scripts/setup.sh")
    macs = {name: ",".join(f"0x{part}" for part in mac.split(":")) for name, mac in (("FROM", FAR), ("TO", TO))}
    # The kernel's headers for programs, of this machine's kind: clang looks for those of BPF.
    headers = f"/usr/include/{run(['cc', '-print-multiarch']).strip()}"
    flags = ["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-I", headers, f"-DIFINDEX={interface}"]
    run(["clang", *flags, *(f"-D{name}={mac}" for name, mac in macs.items()),
         "-c", str(SOURCES / "mac.c"), "-o", str(binary)])


class Balanced(Way):
    """Millrace, on the kernel's interfaces or on a software eSwitch."""

    forwards = True
    rewrites = True
    mode = "nat"
    driver: str | None = "af_packet"
    """Of its ports; `None`: it has a software eSwitch, whose wires are af_packet."""

    def start(self) -> None:
        devices = [device(self.driver or "af_packet", number, 1) for number in (0, 1)]
        config = configuration(self.directory, devices)
        if not self.driver:
            on_eswitch(config, Eswitch())
            # So that the books are soon complete.
            config["offload"] = {"poll_ms": 100}
        config["workers"] = {"cores": [self.core], "idle": "poll"}
        # Nothing may speak between packets, so that nobody is asked for by ARP.
        for port, address, mac in zip(config["port"], (CLIENT4, backend4(1)), (FROM, TO)):
            port["neighbour"] = [{"address": address, "mac": mac}]
        backend = [{"address": backend4(1), "weight": 1}]
        config["service"] = [{"name": "probe", "vip": VIP, "protocol": "udp", "ports": [PORT], "mode": self.mode,
                              "backend": backend}]
        self.undo.callback(shutil.rmtree, runtime_directory(self.directory.name), ignore_errors=True)
        try:
            self.millrace = Millrace(self.middle, built_binary(), self.directory, config)
        except LabError as error:
            raise (Unavailable(f"no AF_XDP ports: {error}") if self.driver == "af_xdp" else error) from error
        self.undo.callback(self._end)
        self.worker = Forwarder(self.millrace.process.pid, self.core)
        urgent(self.millrace.process.pid, self.core)
        self._signal(signal.SIGSTOP)

    def _end(self) -> None:
        self._signal(signal.SIGCONT)
        self.millrace.process.stop()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.millrace.process.pid, number)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self._signal(signal.SIGCONT)
        try:
            self.millrace.process.must_be_alive()
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def counted(self) -> Counted:
        page: Metrics = self.millrace.metrics()
        cycles, hertz = page.sum("worker_busy_cycles_total"), page.sum("tsc_frequency_hertz")
        by_device = self.millrace.eswitch.from_wires() - self.millrace.eswitch.missed() if not self.driver else 0
        return Counted(page.forwarded("packets"), by_device, page.sum("drops_total"), cycles / hertz,
                       self.worker.waited_ns() / 1e9)

    def warm(self, probe) -> None:
        # With `nat`, a connection is one when it was answered; with `dsr`, answers take another way.
        answers = self.mode == "nat"
        probe(self, WARM_RATE, WARM_PACKETS, answers=answers)
        if self.driver:
            return

        def in_device() -> bool:
            before = self.counted()
            made = probe(self, WARM_RATE, WARM_PACKETS, answers=answers)
            return self.counted().since(before).by_device >= SHARE_IN_HARDWARE * (made.sent + made.answered)

        wait_until("the device to forward nearly all packets", in_device, timeout=30)


def urgent(pid: int, core: int) -> None:
    """Puts those threads of a process that are bound to this core before other programs, for want of a core that
    others keep off; probe.c does the same for itself."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if os.sched_getaffinity(int(task.name)) == {core}:
            os.setpriority(os.PRIO_PROCESS, int(task.name), -20)
    # Where Linux groups tasks by session, that holds among those of a session, and this between sessions.
    with contextlib.suppress(FileNotFoundError):
        Path(f"/proc/{pid}/autogroup").write_text("-20")


def _kind(about: str, mode: str, driver: str | None) -> type[Balanced]:
    return type("Balanced", (Balanced,), {"about": about, "mode": mode, "driver": driver})


WAYS: dict[str, type[Way]] = {
    "veth": Way,
    "bridge": Bridge,
    "xdp": Xdp,
    "software-nat": _kind("Millrace, nat, on AF_PACKET ports", "nat", "af_packet"),
    "software-dsr": _kind("Millrace, dsr, on AF_PACKET ports", "dsr", "af_packet"),
    "software-nat-af-xdp": _kind("Millrace, nat, on AF_XDP ports", "nat", "af_xdp"),
    "eswitch-nat": _kind("Millrace's software eSwitch, nat, connections in its rules (MODEL)", "nat", None),
    "eswitch-dsr": _kind("Millrace's software eSwitch, dsr, connections in its rules (MODEL)", "dsr", None),
}


@contextlib.contextmanager
def connected(names: list[str], core: int) -> Iterator[tuple[list[Way], dict[str, str]]]:
    """These ways, all there, none running; and which this machine cannot have, with the reason."""
    with contextlib.ExitStack() as undo:
        ways, left_out = [], {}
        for name in names:
            # Short, because paths of Unix sockets and names of interfaces are bounded.
            directory = Path(tempfile.mkdtemp(prefix="mrl", dir="/tmp"))
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            try:
                ways.append(WAYS[name](name, directory, core))
            except Unavailable as error:
                left_out[name] = str(error)
            else:
                undo.callback(ways[-1].close)
        yield ways, left_out
