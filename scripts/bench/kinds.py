"""What packets there are to choose from: where they come from, who answers, and what should become of them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from lab.lab import ROOT
from lab.net import LabError

from . import packets

# Open vSwitch has 262144 packet buffers whatever it is told, and net_pcap keeps its file's packets in them.
PCAP_FLOWS_MAX = 200_000
MEMORY_FLOWS_MAX = 10_000_000
CHURN_PER_SECOND = 100_000
FEW, MANY, MILLION = (64, 10_000, 100_000), (1_000_000, 10_000_000), (1_000_000,)


@dataclasses.dataclass(frozen=True)
class Kind:
    """Packets of one kind."""

    name: str
    about: str
    frames: str = "tcp"
    """What the packets of a file are: of `packets.KINDS`."""
    memory: str | None = None
    """Arguments of net_traffic, which makes the packets; `None`: they come from a file."""
    answered: bool = False
    """Whether each flow is answered once, so that its connection is established."""
    flows: tuple[int, ...] = FEW
    """How many there are unless the user says."""
    flows_min: int = 1
    """Fewer would be another task."""
    half_open_percent: int = 100
    """Share of Millrace's table for connections nobody answered."""
    spare: float = 2.0
    """Connections that there is room for in Millrace's table, as a multiple of the flows."""
    held: tuple[float, float] = (1.0, 1.0)
    """Connections that there must be, as multiples of the flows."""
    room: int = 0
    """Connections that may come beside those."""
    refusals: frozenset[str] = frozenset()
    """Reasons for which packets may be dropped: then the cost is that of a packet that came, not of one that left."""
    looked_at: bool = False
    """Whether what leaves can be checked without anybody who answers."""
    peer_flows_max: int = 1_000_000
    """Flows up to which Open vSwitch can be given the same task; more than a million was not tried."""

    @property
    def flows_max(self) -> int:
        return PCAP_FLOWS_MAX if self.memory is None else MEMORY_FLOWS_MAX

    @property
    def turns(self) -> bool:
        """Whether the time of a burst is of interest: while connections come and go."""
        return self.room > 0

    def expected(self, flows: int) -> tuple[int, int]:
        """How many connections there must be at least and at most."""
        least, most = (round(part * flows) for part in self.held)
        return least, most + self.room

    def source(self, pcap: Path, flows: int) -> str:
        """The device that packets come from."""
        if self.memory is None:
            return f"net_pcap0,rx_pcap={pcap},infinite_rx=1"
        settled = f",turns_after={4 * flows}" if self.turns else ""
        return f"net_traffic0,flows={flows}{self.memory}{settled}"

    def sink(self, flows: int) -> str:
        """The device they go to. Two rounds of answers: a program may send something of its own first."""
        if self.memory is None and not self.answered:
            return "net_null0,no-rx=1"
        return f"net_traffic1,flows=0,answers={2 * flows if self.answered else 0}"

    @property
    def plugin(self) -> bool:
        """Whether net_traffic is needed."""
        return self.memory is not None or self.answered


KINDS = {
    kind.name: kind
    for kind in (
        Kind("tcp", "TCP data, nobody answers", looked_at=True),
        Kind("udp", "UDP datagrams, nobody answers", "udp", looked_at=True),
        Kind("syn", "the same SYNs again and again", "syn", looked_at=True),
        Kind("answered", "TCP data, established connections", answered=True),
        Kind("memory", "as answered, from memory: up to 10M flows", memory="", answered=True, flows=MANY),
        Kind(
            "new",
            "every packet opens a connection, in place of the oldest of so many that are half-open",
            memory=",flags=syn,fresh=1",
            flows=MILLION,
            # Nothing is pushed out that is younger than a tenth of a second.
            flows_min=1_000_000,
            half_open_percent=50,
            held=(0.98, 1.0),
            peer_flows_max=0,
        ),
        Kind(
            "flood",
            "SYNs, of which a table of so many takes a tenth as half-open: cost of a SYN, refused or not",
            memory=",flags=syn,fresh=1",
            flows=MILLION,
            half_open_percent=10,
            spare=1.0,
            held=(0.098, 0.1),
            refusals=frozenset({"half_open_limit"}),
            peer_flows_max=0,
        ),
        Kind(
            "churn",
            "as memory, while 100k connections a second come and go",
            memory=f",new={CHURN_PER_SECOND}",
            answered=True,
            flows=MILLION,
            # Closed connections stay for ten seconds.
            room=20 * CHURN_PER_SECOND,
            peer_flows_max=0,
        ),
    )
}
assert {kind.frames for kind in KINDS.values()} <= set(packets.KINDS)


def plugin() -> Path:
    """The driver net_traffic, or what TRAFFIC_DRIVER names."""
    path = Path(os.environ.get("TRAFFIC_DRIVER") or ROOT / "target/driver/libtraffic.so")
    if not path.exists():
        raise LabError(f"{path} is not there: cargo build --profile driver -p traffic --features pmd")
    return path
