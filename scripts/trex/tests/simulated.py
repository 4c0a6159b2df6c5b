"""A generator and a device that are neither, for whole runs in no time."""

from __future__ import annotations

import dataclasses

from stress.generators import Sample
from stress.ledger import Book, Side

CAPACITY, CONNECTIONS = 500_000.0, 20_000.0
MADE = 0.99


class Device:
    """Counts what the generator tells it."""

    path = "software"
    built = "0.1.0 (abc)"

    def build(self) -> str:
        return self.built

    def __init__(self):
        zero = {"clients": 0, "servers": 0}
        self.now = Book(zero, zero, zero, 0, {"original": 0, "reply": 0}, {"original": 0, "reply": 0}, {}, 0, zero)

    def at_rest(self) -> Book:
        return self.now

    def loads(self) -> dict[str, float]:
        return {"connections": 7}

    def took(self, sent: int, lost: int, answers: int) -> None:
        old = self.now
        self.now = dataclasses.replace(
            old,
            rx={"clients": old.rx["clients"] + sent, "servers": old.rx["servers"] + answers},
            tx={"clients": old.tx["clients"] + answers, "servers": old.tx["servers"] + sent - lost},
            drops={"tx_ring_full": old.drops.get("tx_ring_full", 0) + lost},
        )


class Generator:
    """Makes 1 % less than it is asked for. Loses what is above the device's capacity. With `lying`, it counts a packet
    too few."""

    name = "simulated"

    def __init__(self, device: Device, *, lying: bool = False):
        self.device, self.lying, self.trials = device, lying, 0

    @staticmethod
    def can(load) -> str | None:
        return None if load.name != "imix" else "it has no mixes"

    def describe(self) -> dict[str, object]:
        return {"name": "simulated"}

    def about(self, load) -> str:
        return f"{load.about}, simulated"

    def quantiles(self) -> str:
        return "Quantiles are made up."

    def recount(self, sample) -> None:
        pass

    def close(self) -> None:
        pass

    def stateless(self, load, pps, seconds, *, latency=False) -> Sample:
        self.trials += 1
        sent = round(MADE * pps * seconds)
        lost = max(sent - round(CAPACITY * seconds), 0)
        self.device.took(sent, lost, 0)
        found = Sample(pps, seconds, Side(sent - self.lying, 0), Side(0, sent - lost), sent)
        if latency:
            share = pps / CAPACITY
            found.latency_us = {"p50": 5 + share, "p99": 9 + 9 * share, "p999": 12.0, "most": 40.0, "packets": 1000}
        return found

    def stateful(self, load, cps, seconds) -> Sample:
        self.trials += 1
        begun = round(cps * seconds)
        self.device.took(5 * begun, 0, 4 * begun)
        found = Sample(cps, seconds, Side(5 * begun, 4 * begun), Side(4 * begun, 5 * begun), begun)
        found.failed = max(begun - round(CONNECTIONS * seconds), 0)
        found.notes = {"payload_bytes": 170.0 * begun}
        return found
