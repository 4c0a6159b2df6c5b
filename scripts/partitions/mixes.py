#!/usr/bin/env python3
"""Made-up clients' addresses, for `millrace partitions --addresses`; see --help and docs/partitions.md."""

from __future__ import annotations

import argparse
import ipaddress
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

MANY = 100_000
Clients = Iterator[tuple[int, int]]
"""Address and packets."""


def at_random(dice: random.Random) -> Clients:
    """100,000 at random"""
    return ((dice.getrandbits(32), 1) for _ in range(MANY))


def nats(dice: random.Random) -> Clients:
    """20 NATs with 2500 packets each, 50,000 clients with one"""
    return ((dice.getrandbits(32), 2500 if number < 20 else 1) for number in range(20 + 50_000))


def net(_: random.Random) -> Clients:
    """a /24, .1 to .254, 100 packets each"""
    return ((int(ipaddress.IPv4Address(f"198.51.100.{last}")), 100) for last in range(1, 255))


def even(dice: random.Random) -> Clients:
    """100,000 even ones"""
    return ((dice.getrandbits(31) << 1, 1) for _ in range(MANY))


def eights(dice: random.Random) -> Clients:
    """100,000 that are multiples of 8"""
    return ((dice.getrandbits(29) << 3, 1) for _ in range(MANY))


def routers(dice: random.Random) -> Clients:
    """100,000 that end in .1"""
    return ((dice.getrandbits(24) << 8 | 1, 1) for _ in range(MANY))


MIXES: dict[str, Callable[[random.Random], Clients]] = {
    "random": at_random, "nats": nats, "net": net, "even": even, "eights": eights, "routers": routers,
}


def main() -> int:
    """The command's exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/partitions/mixes.py",
        description="Writes lists of made-up clients' addresses, one a line with its packets, for `millrace partitions "
        "CONFIG --addresses FILE`: " + "; ".join(f"{name}.txt, {mix.__doc__}" for name, mix in MIXES.items()) + ".",
    )
    parser.add_argument("directory", type=Path, help="where they go")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the dice (1)")
    wanted = parser.parse_args()
    try:
        wanted.directory.mkdir(parents=True, exist_ok=True)
        for name, mix in MIXES.items():
            # Each has dice of its own, so that none depends on those before it.
            clients = mix(random.Random(f"{name} {wanted.seed}"))
            lines = (f"{ipaddress.IPv4Address(address)} {packets}\n" for address, packets in clients)
            (wanted.directory / f"{name}.txt").write_text("".join(lines))
    except OSError as error:
        print(f"mixes: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
