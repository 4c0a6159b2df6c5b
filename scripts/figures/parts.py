"""What there is to see, and the command that makes each part of it."""

from __future__ import annotations

import dataclasses

MODEL = "MODEL: computed in virtual time; nothing in it was measured on a device."
HERE = (
    "Measured on this machine, on real packets. The software eSwitch is a MODEL of the device, a program that takes "
    "the worker's time."
)


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    title: str
    what: str
    nature: str
    command: list[str]
    quick: list[str]
    """More arguments for a first impression."""
    output: str
    """The option that says where results go."""
    page: str
    """Of docs/."""
    needs: tuple[str, ...] = ()
    """What is built for it beforehand. What needs Millrace needs root as well, to make namespaces."""


PARTS = (
    Part(
        "xenoflow",
        "XenoFlow's figures 4 to 8",
        "A balancer of few rules on a BlueField-3, from a model of the paper's testbed, beside the paper's numbers.",
        MODEL,
        ["scripts/xenoflow/run.py"],
        ["--packets", "50000"],
        "--output",
        "xenoflow.md",
    ),
    Part(
        "latency",
        "What Millrace adds to a packet's way",
        "One-way latencies through a wire, a bridge, an XDP program, Millrace in software, and its software eSwitch.",
        HERE,
        ["scripts/latency/run.py"],
        ["--quick"],
        "--output",
        "latency.md",
        needs=("millrace", "eswitch"),
    ),
    Part(
        "faults",
        "Faults under load",
        "A link flap, a storm of rule updates, a traffic spike and a backend's death: latency, loss, recovery.",
        f"{HERE} What its report calls the model's is in virtual time (MODEL).",
        # A minute more for what this machine disturbs, whatever it does.
        ["scripts/faults/run.py", "--again-for", "60"],
        ["--quick"],
        "--output",
        "faults.md",
        needs=("millrace", "eswitch"),
    ),
    Part(
        "load",
        "Rates without loss, latency against load, connections per second",
        "Trials of one second, found to 10 %, of small datagrams, new flows and short HTTP, with DPDK's testpmd and "
        "our own source of packets as generators; with TRex, long trials, DNS and IMIX: scripts/trex/run.py.",
        HERE,
        [
            *["scripts/trex/run.py", "--generator", "testpmd", "--quick", "--only", "no-drop,latency,cps"],
            *["--modes", "nat,dsr,source-partition", "--paths", "software,eswitch"],
            *["--loads", "udp-18,fresh,http-short"],
        ],
        ["--modes", "nat"],
        "--out",
        "trex.md",
        needs=("millrace", "eswitch", "traffic"),
    ),
)
