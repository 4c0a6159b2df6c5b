"""Whether everybody counted the same packets.

A number of a generator alone is a claim. Around each trial both books are read at rest: the generator's, and
Millrace's with those of its ports. They must agree to the packet::

    sent by the generator     = taken in by the device (its port's counter, and what hardware forwarded itself)
    received by the generator = given out by the device
    sent - received           = dropped by the device, for reasons it names

What Millrace makes and takes for itself (ARP, health checks) passes the same ports, and is the only slack there is.
"""

from __future__ import annotations

import dataclasses


class Disagreement(Exception):
    """Two books that must agree do not."""


@dataclasses.dataclass(frozen=True)
class Side:
    """What a generator counted at one of its ports."""

    sent: int = 0
    received: int = 0


@dataclasses.dataclass(frozen=True)
class Book:
    """What the device counted, since it was started or between two readings."""

    rx: dict[str, int]
    """Packets received by its ports: `clients` and `servers`."""
    tx: dict[str, int]
    missed: dict[str, int]
    """Packets that ports could not take, by port."""
    refused: int
    """Packets that ports could not send."""
    hw: dict[str, int]
    """Packets that hardware forwarded by itself: `original` (towards servers) and `reply`."""
    sw: dict[str, int]
    """Packets of services that workers forwarded."""
    drops: dict[str, int]
    """Packets dropped by workers, by reason."""
    own: int
    """Packets made and taken in by Millrace itself."""
    unsent: dict[str, int]
    """Packets that an eSwitch was to give to a link that was full or down, by port."""

    def since(self, before: Book) -> Book:
        """What was added since an earlier reading."""

        def less(now: dict[str, int], then: dict[str, int]) -> dict[str, int]:
            return {key: now[key] - then.get(key, 0) for key in now}

        return Book(
            rx=less(self.rx, before.rx),
            tx=less(self.tx, before.tx),
            missed=less(self.missed, before.missed),
            refused=self.refused - before.refused,
            hw=less(self.hw, before.hw),
            sw=less(self.sw, before.sw),
            drops={key: n for key, n in less(self.drops, before.drops).items() if n},
            own=self.own - before.own,
            unsent=less(self.unsent, before.unsent),
        )

    def lost(self) -> int:
        """Packets that the device did not forward, as it says itself."""
        return sum(self.drops.values()) + sum(self.missed.values()) + self.refused + sum(self.unsent.values())


def check(clients: Side, servers: Side, book: Book) -> list[str]:
    """Everything in which a generator with these two sides and the device do not agree, in words; nothing is well."""
    told = []
    for what, theirs, ours in (
        ("sent by clients", clients.sent, book.rx["clients"] + book.missed["clients"] + book.hw["original"]),
        ("received by servers", servers.received, book.tx["servers"] + book.hw["original"] - book.unsent["servers"]),
        ("sent by servers", servers.sent, book.rx["servers"] + book.missed["servers"] + book.hw["reply"]),
        ("received by clients", clients.received, book.tx["clients"] + book.hw["reply"] - book.unsent["clients"]),
    ):
        if abs(theirs - ours) > book.own:
            told.append(f"{what}: the generator counted {theirs}, the device {ours} ({theirs - ours:+d})")
    gone = clients.sent + servers.sent - clients.received - servers.received
    if abs(gone - book.lost()) > book.own:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(book.drops.items())) or "no drops"
        told.append(
            f"lost on the way: the generator misses {gone}, the device names {book.lost()} "
            f"({reasons}, {sum(book.missed.values())} missed by ports, {book.refused} refused by ports, "
            f"{sum(book.unsent.values())} that found a full link)"
        )
    return told


def must_agree(clients: Side, servers: Side, book: Book) -> None:
    """As `check`; anything but agreement is an error."""
    if told := check(clients, servers, book):
        raise Disagreement("; ".join(told))
