"""Who makes load: TRex, or DPDK's own testpmd with the tree's packet source.

Each gives `Sample`s: one trial, from the first packet until nothing is on its way any more.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

from ..ledger import Side
from ..traffic import Stateful, Stateless


class GeneratorError(Exception):
    """The generator cannot be had or does not work; the message says what to do."""


@dataclasses.dataclass
class Sample:
    """One trial, as the generator counted it."""

    wanted: float
    """Packets, or connections, per second that were asked for."""
    seconds: float
    """How long load was made."""
    clients: Side
    servers: Side
    begun: float
    """Packets, or connections, that were sent or begun for `wanted`."""
    failed: int = 0
    """Of connections begun, those that did not end well."""
    retransmitted: int = 0
    """TCP segments that were sent again."""
    latency_us: dict[str, float] | None = None
    """Round figures of the time from one port of the generator to the other, microseconds: `p50`, `p99`, ..."""
    notes: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def rate(self) -> float:
        """What was really made, per second."""
        return self.begun / self.seconds

    @property
    def lost(self) -> int:
        """Packets, of both directions, that did not arrive."""
        return self.clients.sent + self.servers.sent - self.clients.received - self.servers.received


class Generator(Protocol):
    """What experiments need of a generator."""

    name: str

    @staticmethod
    def can(load: Stateless | Stateful) -> str | None:
        """Nothing if it can make this load, or why it cannot."""

    def about(self, load: Stateless | Stateful) -> str:
        """What it makes of this load."""

    def quantiles(self) -> str:
        """What its latencies are, and how fine."""

    def stateless(self, load: Stateless, pps: float, seconds: float, *, latency: bool = False) -> Sample:
        """One trial of so many packets per second."""

    def stateful(self, load: Stateful, cps: float, seconds: float) -> Sample:
        """One trial of so many new connections per second."""

    def recount(self, sample: Sample) -> None:
        """Reads anew what both sides of the last trial have sent and received."""

    def describe(self) -> dict[str, object]:
        """What it is, for the report."""

    def close(self) -> None:
        """Ends it."""
