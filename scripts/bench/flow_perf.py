#!/usr/bin/env python3
"""Rates of rules through the synchronous API, as DPDK's own dpdk-test-flow-perf measures them, unmodified.

::

    scripts/bench/flow_perf.py                 # all cases: the driver's own speed, then the profiles' promises
    scripts/bench/flow_perf.py port count      # some cases
    scripts/bench/flow_perf.py --rules 100000 --runs 5

The driver's own speed is measured with profile `ideal`, which takes no time. A profile that takes time is to
give its mean, which is printed beside: the driver keeps the caller so long in each call. What the tool itself
does between two calls, some 0.2 us, comes on top. Runs take turns with whatever else the machine does, so the
median is printed, and with root's rights the process is put before others (chrt -f 1).
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab.testpmd import ROOT, built_driver  # noqa: E402

RATE = re.compile(r":: Port (\d+) :: Core 0 :: Rules (insertion|deletion) rate -> ([\d.]+) K Rule/Sec")
# The tool counts packets of nobody, so the wires need not exist; without a value --port-id would crash it.
CASES = {
    "port": "--transfer --ether --ipv4 --port-id=1",
    "count": "--transfer --ether --ipv4 --count --port-id=1",
    "nat": "--transfer --ether --ipv4 --tcp --count --set-dst-mac --set-dst-ipv4 --set-dst-tp --dec-ttl --port-id=1",
    "jump": "--transfer --group=1 --ether --ipv4 --jump",
    "drop": "--transfer --group=1 --ether --ipv6 --count --drop",
    "queue": "--ingress --ether --ipv4 --queue",
    "rss": "--ingress --group=1 --ether --ipv4 --udp --rss --rxq=2 --txq=2",
    "encap": "--transfer --group=1 --ether --ipv4 --raw-encap=ether,ipv4,udp,vxlan --port-id=1",
    "vxlan": "--transfer --group=1 --ether --ipv4 --udp --vxlan --vxlan-decap --port-id=1",
}
# Profiles that take time, with the rules to try them with: less than a second's, for then Linux throttles
# processes that go before others by 50 ms.
PROFILES = {"bf2-sws": 1500, "cx6dx": 300_000}


class PerfError(Exception):
    """The tool did not print what it should; the message has its output."""


def run(case: str, *, profile: str = "ideal", rules: int, prefix: tuple[str, ...] = ()) -> dict[str, float]:
    """Rules a second: `insertion` and `deletion`."""
    argv = [*prefix, "dpdk-test-flow-perf", "-l", "0,1", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry"]
    argv += ["--no-shconf", "-d", str(built_driver())]
    argv += ["--vdev", f"net_eswitch0,uplink=net_null0,host=net_null1,mbufs=1024,dv_flow_en=1,profile={profile}"]
    argv += ["--vdev", "net_null0,no-rx=1", "--vdev", "net_null1,no-rx=1"]
    batch = rules if rules <= 100_000 else 100_000
    argv += ["--", "--total-mbuf-count=2048", "--portmask=1", "--deletion-rate"]
    argv += [f"--rules-count={rules}", f"--rules-batch={batch}", *CASES[case].split()]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    output = done.stdout + done.stderr
    rates = {kind: float(rate) * 1e3 for _, kind, rate in RATE.findall(output)}
    if done.returncode != 0 or set(rates) != {"insertion", "deletion"} or "internal error" in output:
        raise PerfError(f"{' '.join(argv)}\nended with {done.returncode}:\n{output}")
    return rates


def median(case: str, runs: int, **options) -> dict[str, float]:
    """The median of some runs."""
    rates = [run(case, **options) for _ in range(runs)]
    return {kind: statistics.median(rate[kind] for rate in rates) for kind in rates[0]}


def spread(profile: str, operation: str) -> tuple[int, int]:
    """Median and 99th percentile of what an operation costs, as the profile has it: nanoseconds."""
    text = (ROOT / f"eswitch/profiles/{profile}.toml").read_text()
    found = re.search(rf"^{operation}_cost_ns = {{ median = ([\d_]+), p99 = ([\d_]+) }}", text, re.MULTILINE)
    return int(found[1].replace("_", "")), int(found[2].replace("_", ""))


def mean_ns(profile: str, operation: str) -> float:
    """The mean of that cost, as the model draws it: log-logistic, cut off, 256 steps (model/timing.rs)."""
    from math import log

    middle, high = spread(profile, operation)
    exponent = log(high / middle) / log(99)
    steps = [min(max(2 * step, 1), 511) for step in range(257)]
    quantiles = [middle * (at / (512 - at)) ** exponent for at in steps]
    return sum(low + high for low, high in zip(quantiles, quantiles[1:])) / 512


def scheduling() -> tuple[str, ...]:
    """Before others, where that is allowed."""
    allowed = subprocess.run(["chrt", "-f", "1", "true"], capture_output=True).returncode == 0
    return ("chrt", "-f", "1") if allowed else ()


def machine() -> str:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    load = " ".join(f"{load:.1f}" for load in os.getloadavg())
    name = model[1] if model else "unknown CPU"
    return f"{name}, {os.cpu_count()} cores, load {load}; commit {commit.stdout.strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; none: all, and the profiles")
    parser.add_argument("--rules", type=int, default=1_000_000, help="rules of a case")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    prefix = scheduling()
    print(machine())
    print(f"{options.rules} rules, profile ideal, median of {options.runs} runs")
    for case in options.cases or CASES:
        rates = median(case, options.runs, rules=options.rules, prefix=prefix)
        inserted, deleted = rates["insertion"] / 1e6, rates["deletion"] / 1e6
        print(f"{case:6} {inserted:5.2f} M inserted/s {deleted:5.2f} M deleted/s  {CASES[case]}", flush=True)
    for profile, rules in {} if options.cases else PROFILES.items():
        rates = median("nat", options.runs, profile=profile, rules=rules, prefix=prefix)
        for kind, operation in (("insertion", "create"), ("deletion", "destroy")):
            took, promised = 1e9 / rates[kind], mean_ns(profile, operation)
            off = 100 * (took / promised - 1)
            print(f"{profile}: {kind} {took:.0f} ns each, promised {promised:.0f} ns: {off:+.1f} %", flush=True)


if __name__ == "__main__":
    main()
