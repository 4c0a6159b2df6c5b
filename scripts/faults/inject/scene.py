"""What is measured on real packets: Millrace between a client and three backends, in software or on the software
eSwitch.

::

    probe, core A -> eth0 [client] -> front -> p0 [Millrace, its worker on core B] p1 -> back -> [b1] [b2] [b3] -> probe

Latency is one way. Health checks are echo requests, which the backends' Linux answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from bench.machine import Forwarder, cores, stolen_ns
from lab.eswitch import Eswitch
from lab.lab import Lab
from lab.millrace import Millrace, service
from lab.net import LabError, wait_until
from lab.topology import CLIENT4, VIP4, Shape

from .probe import Probe, Stream, build

BACKENDS = (1, 2, 3)
PORT = 7000
STEADY, STORM = VIP4.format(7), VIP4.format(8)
PROFILE = "bf3-hws"
# From linux/sockios.h and linux/if.h.
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


@dataclasses.dataclass(frozen=True)
class Path_:
    """One way through Millrace."""

    name: str
    about: str
    steering: str | None
    """Of the software eSwitch; `None`: without one."""

    @property
    def offloaded(self) -> bool:
        return self.steering is not None


PATHS = [
    Path_("software", "Millrace's workers, net_af_packet", None),
    Path_("eswitch-sws", f"software eSwitch, profile {PROFILE}, dv_flow_en=1 (MODEL of the device)", "sws"),
    Path_("eswitch-hws", f"software eSwitch, profile {PROFILE}, dv_flow_en=2 (MODEL of the device)", "hws"),
]


class Scene:
    """A lab with Millrace, that loads and faults can be had in."""

    def __init__(self, lab: Lab, millrace: Millrace, path: Path_, binary: Path, sinks: list[socket.socket]):
        self.lab, self.millrace, self.path = lab, millrace, path
        self._binary, self._sinks, self._runs = binary, sinks, 0
        self.core, self.worker_core = cores()
        self._forwarder = Forwarder(millrace.process.pid, self.worker_core)
        self.gateway = self._gateway()

    def waited_ns(self) -> int:
        """How long programs have kept the worker from running, and the host its core or the sender's, ever. The sender
        goes before all programs."""
        return self._forwarder.waited_ns() + stolen_ns(self.worker_core) + stolen_ns(self.core)

    def _gateway(self) -> str:
        client = self.lab.client

        def known() -> re.Match | None:
            client.run(["ping", "-c", "1", "-W", "1", "192.0.2.1"], check=False)
            return re.search(r"lladdr (\S+)", client.run(["ip", "neigh", "show", "192.0.2.1"]))

        return wait_until("the client to know Millrace's MAC address", known, timeout=20)[1]

    def start(self, streams: list[Stream]) -> Probe:
        """Starts a load."""
        self._runs += 1
        network = self.lab.network
        backends = [(netns, "back") for netns in network.backends]
        client = (network.client, "eth0", self.gateway)
        probe = Probe(self._binary, client, backends, streams, self.core, self._runs)
        self.lab.processes.append(probe.process)
        return probe

    def carrier(self, link: str, up: bool) -> None:
        """Takes a link of the switch up or down, at once: whose other end it is has carrier, or not."""
        with self.lab.network.switch.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            request = struct.pack("16sH14x", link.encode(), IFF_UP if up else 0)
            fcntl.ioctl(control, SIOCSIFFLAGS, request)

    def backends_up(self) -> bool:
        rows = self.millrace.show("backends")
        return all(row["state"] == "active" and row["health"] and row["health"]["state"] == "up"
                   for row in rows if row["service"] == "steady")


@contextlib.contextmanager
def scene(path: Path_) -> Iterator[Scene]:
    """Builds it, and removes it."""
    eswitch = Eswitch(path.steering, profile=PROFILE) if path.steering else None
    core, worker_core = cores()
    with Lab(Shape(backends=len(BACKENDS)), eswitch=eswitch, servers=False) as lab:
        binary = build(lab.directory)
        # What Linux has nobody for it would answer to; and what nobody reads is dropped at once.
        sinks = [_sink(netns) for netns in lab.network.backends]
        keys = {"protocol": "udp", "backends": BACKENDS}
        services = [
            service("steady", 7, PORT, health={"type": "icmp", "on_down": "reset"}, **keys),
            service("storm", 8, PORT, on_remove="reset", timeouts={"udp_unreplied_s": 2}, **keys),
        ]
        millrace = lab.start_millrace(
            services, ports={"front": {"gateway": CLIENT4}}, workers={"cores": [worker_core], "idle": "poll"},
            offload={"core": core, "idle_s": 1}, limits={"connections": 400_000})
        _before_others(millrace.process.pid, worker_core)
        usable = os.sched_getaffinity(0)
        try:
            made = Scene(lab, millrace, path, binary, sinks)
            # What is started here from now on, a command line's reload for one, leaves the worker its core.
            os.sched_setaffinity(0, {core})
            wait_until("backends to be up", made.backends_up, timeout=30, pause=0.2)
            yield made
        except LabError as error:
            raise LabError(f"{error}\n{lab.log_tails()}") from error
        finally:
            os.sched_setaffinity(0, usable)
            for sink in sinks:
                sink.close()


def _sink(netns) -> socket.socket:
    sink = netns.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sink.bind(("0.0.0.0", PORT))
    return sink


def _before_others(pid: int, core: int) -> None:
    """The threads bound to this core go before what else runs there: on a device the core would be theirs alone."""
    # Where Linux shares out time among sessions first.
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text("-20")
    for task in Path(f"/proc/{pid}/task").iterdir():
        if re.search(rf"^Cpus_allowed_list:\t{core}$", (task / "status").read_text(), re.MULTILINE):
            os.setpriority(os.PRIO_PROCESS, int(task.name), -20)
