"""Millrace on the software eSwitch: the device's arguments, and what the device says of itself.

::

    front segment --- p0 === net_af_packet0 --- uplink -+- net_eswitch0 -+- host --- net_af_packet1 === p1 --- back
                                                        |                |
                                             port "front" (proxy)   port "back"
                                             net_eswitch0           net_eswitch0_representor_vf65535
"""

from __future__ import annotations

import dataclasses

from .net import LabError
from .telemetry import Telemetry
from .testpmd import built_driver

NAME = "net_eswitch0"
# As a port each: the uplink's representor, and the host's.
DEVICES = [NAME, f"{NAME}_representor_vf65535"]
STEERING = {"sws": 1, "hws": 2}


@dataclasses.dataclass(frozen=True)
class Eswitch:
    """Which eSwitch Millrace runs on."""

    steering: str = "hws"
    """`sws`: rules one by one; `hws`: by templates and flow queues."""
    profile: str | None = None
    """What it is modelled after; `None`: a BlueField-2 with `sws`, a BlueField-3 with `hws`."""
    devargs: str = ""
    """Further arguments of the device."""
    service_core: int | None = None
    """The core that drives the device; `None`: whoever polls does."""

    def eal_args(self, wires: int = 2) -> list[str]:
        """What makes the device and its wires: an uplink, and a host if there are two."""
        ends = [f"{name}=net_af_packet{number}" for number, name in enumerate(["uplink", "host"][:wires])]
        arguments = [f"dv_flow_en={STEERING[self.steering]}", "mbufs=16384"]
        arguments += [f"profile={self.profile}"] if self.profile else []
        arguments += [self.devargs] if self.devargs else []
        # The eSwitch first, so that its ports are 0 and 1, as on a BlueField.
        options = ["-d", str(built_driver()), "--vdev", ",".join([NAME, *ends, *arguments])]
        for number in range(wires):
            wire = f"net_af_packet{number},iface=p{number},blocksz=65536,framesz=2048,framecnt=8192"
            options += ["--vdev", wire]
        if self.service_core is not None:
            options += ["-S", str(self.service_core)]
        return options


class EswitchTelemetry(Telemetry):
    """What the software eSwitch tells of itself, and its faults."""

    def stats(self) -> dict:
        return self.ask(f"/eswitch/stats,{NAME}")

    def rules(self) -> int:
        """How many rules it has."""
        return self.stats()["rules"]

    def rule_lines(self) -> list[str]:
        """All rules, as the commands that make them; long ones go on in further lines."""
        lines, command = [], f"/eswitch/rules,{NAME}"
        while command:
            page = self.ask(command)
            lines += page["rules"]
            command = page.get("next")
        return lines

    def set_faults(self, faults: str = "none") -> None:
        """Puts these faults in force, and no others."""
        answer = self.ask(f"/eswitch/faults,{NAME},{faults}")
        if "error" in answer:
            raise LabError(f"faults {faults}: {answer['error']}")

    def from_wires(self) -> int:
        """Packets that came from the wires."""
        return self._sum("in_packets")

    def missed(self) -> int:
        """Of these, packets that no rule forwarded: the workers'."""
        return self._sum("miss_packets")

    def _sum(self, name: str) -> int:
        return sum(counts[name] for port, counts in self.stats().items() if port.startswith("port"))
