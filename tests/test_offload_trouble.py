"""What a device does on a bad day, while it carries traffic: connections must not notice, and metrics must say why.

Faults are the software eSwitch's own (docs/eswitch.md), injected by its telemetry.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import pytest
from lab import traffic
from lab.eswitch import Eswitch
from lab.lab import Lab
from lab.millrace import Metrics, Millrace, service
from lab.net import wait_until
from lab.topology import VIP4, Shape
from test_offload import Downloads, installed, wait_for_hardware, wait_for_none

STEERING = pytest.mark.parametrize("steering", ["sws", "hws"])
# Long enough for what is to be in hardware to be there.
LONG_FLOWS = 8


def start(labs: Callable[..., Lab], eswitch: Eswitch, **sections: dict) -> tuple[Lab, traffic.Traffic]:
    """A web service on nginx, and one each for raw TCP and UDP."""
    lab = labs(Shape(backends=2), eswitch=eswitch)
    offload = {"idle_s": 1, **sections.pop("offload", {})}
    limits = {"connections": 400_000, **sections.pop("limits", {})}
    # Raw servers forget a connection with its last packet; entries need not outlive them by much.
    timeouts = {"tcp_time_wait_s": 2, "tcp_closing_s": 2}
    services = [
        service("web-v4", 1, backends=(1, 2)),
        traffic.service(lab, timeouts=timeouts),
        traffic.service(lab, "udp"),
    ]
    lab.start_millrace(services, ports=traffic.ports(lab), offload=offload, limits=limits, **sections)
    return lab, traffic.Traffic(lab)


def results(metrics: Metrics) -> dict[str, int]:
    """What became of requests for hardware."""
    return metrics.by("offload_requests_total", "result")


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault, and how it shows."""

    faults: str
    shows: Callable[[Metrics], object]
    steering: tuple[str, ...] = ("sws", "hws")
    """Where there is such a thing."""
    usual: tuple[str, ...] = ("sws", "hws")
    """Where it is tried when not everything is."""


def any_of(*names: str) -> Callable[[Metrics], object]:
    return lambda metrics: sum(results(metrics).get(name, 0) for name in names)


def recovered(metrics: Metrics) -> object:
    return metrics.sum("offload_recoveries_total")


def slow(metrics: Metrics) -> object:
    """Some rule took longer than 20 ms."""
    below = [count for le, count in metrics.buckets("offload_insert_seconds").items() if float(le) <= 0.02]
    return metrics.sum("offload_insert_seconds_count") > max(below, default=0)


def nothing(_: Metrics) -> object:
    """A fault that costs nothing but time, or that nobody can tell."""
    return True


def is_owed(fault: Fault, millrace: Millrace) -> bool:
    """A fault that only new requests meet does not show: connections begun before it may all have asked by then."""
    return fault.shows not in (nothing, recovered) and not fault.shows(millrace.metrics())


def is_used(lab: Lab) -> bool:
    """Whether hardware takes connections that are made now."""
    downloads, most = Downloads(lab, 2, 500_000, 1, vips=(VIP4,)), 0
    while downloads.running():
        most = max(most, installed(lab.millrace))
        time.sleep(0.1)
    downloads.finish()
    return most >= 2


FAULTS = [
    Fault("refuse=0.5,seed=1", any_of("rejected", "full")),
    Fault("fail=0.5,seed=2", any_of("failed"), ("hws",)),
    Fault("delay_us=50000", slow, usual=("sws",)),
    Fault("reorder=0.5,seed=3", nothing, ("hws",)),
    Fault("lose_completions=0.2,seed=4", recovered, ("hws",)),
    Fault("lose_counters=1", nothing, usual=("sws",)),
    Fault("age_early=1", nothing, usual=("hws",)),
    Fault("full_at=20", any_of("full", "failed"), usual=("hws",)),
    Fault("counters_at=20", any_of("full", "failed", "rejected"), usual=("sws",)),
    Fault("reset", recovered),
    Fault("hang_ms=2000", nothing, usual=("sws",)),
    Fault("hang_ms=6000", recovered, usual=("hws",)),
]
CASES = [
    pytest.param(
        steering,
        fault,
        id=f"{steering}-{fault.faults.partition(',')[0]}",
        marks=() if steering in fault.usual else pytest.mark.full,
    )
    for fault in FAULTS
    for steering in fault.steering
]


@pytest.mark.parametrize(("steering", "fault"), CASES)
def test_a_fault_breaks_no_connection(labs, full, steering, fault):
    # A profile without long waits of its own, so that many connections meet the fault.
    lab, raw = start(labs, Eswitch(steering, profile="ideal"))
    millrace = lab.millrace
    base_rules = millrace.eswitch.rules()
    seconds = 20 if full else 4
    downloads = Downloads(lab, LONG_FLOWS, seconds * 500_000, seconds, vips=(VIP4,))
    datagrams = raw.udp(100, 50, seconds)
    # Some 400 ms each, most of it in hardware.
    short = raw.tcp(100, seconds - 1, rounds=10, think_ms=40)
    wait_for_hardware(millrace, LONG_FLOWS + 100)
    millrace.eswitch.set_faults(fault.faults)
    time.sleep(seconds / 3)
    if is_owed(fault, millrace):
        downloads.finish()
        # More at a time than any of the faults lets in.
        downloads = Downloads(lab, 24, 1_000_000, 2, vips=(VIP4,))
        wait_until("the fault to show", lambda: not is_owed(fault, millrace), timeout=20)
    millrace.eswitch.set_faults("none")
    downloads.finish()
    opened, flowed = short.finish(), datagrams.finish()
    print(opened, flowed)
    assert opened["completed"] == opened["opened"] and opened["failed"] == opened["reset"] == 0, opened
    assert flowed["never"] == flowed["silent"] == 0, flowed
    wait_until("the fault to show", lambda: fault.shows(millrace.metrics()), timeout=5)
    wait_for_none(millrace, base_rules, timeout=30)
    metrics = millrace.at_rest(timeout=10)
    print(results(metrics), metrics.by("offload_removals_total", "reason"))
    wait_until("hardware to be used as before", lambda: is_used(lab), timeout=40)
    wait_until("readiness", lambda: millrace.get("/readyz")[0] == 200)
    wait_for_none(millrace, base_rules)


def unready(millrace: Millrace) -> tuple[int, str] | None:
    """What /readyz complains of."""
    answer = millrace.get("/readyz")
    return answer if answer[0] != 200 else None


@STEERING
def test_a_reset_costs_no_second(labs, full, steering):
    """Everything is lost behind Millrace's back: software forwards at once, hardware again later."""
    lab, raw = start(labs, Eswitch(steering))
    millrace = lab.millrace
    base_rules = millrace.eswitch.rules()
    seconds = 20 if full else 12
    downloads = Downloads(lab, LONG_FLOWS, seconds * 500_000, seconds, vips=(VIP4,))
    datagrams = raw.udp(50, 50, seconds - 2)
    wait_for_hardware(millrace, LONG_FLOWS + 50)
    time.sleep(1)
    before = millrace.metrics()
    came, missed = millrace.eswitch.from_wires(), millrace.eswitch.missed()
    millrace.eswitch.set_faults("reset")
    wait_until("software to forward", lambda: millrace.metrics().received() > before.received() + 200, timeout=2)
    delay = millrace.eswitch.from_wires() - came
    print(f"{delay} packets later workers had taken {millrace.eswitch.missed() - missed}")
    lost = LONG_FLOWS + 50
    wait_until("the loss to be noticed", lambda: millrace.metrics().sum("offload_lost_total") >= lost, timeout=5)
    assert recovered(millrace.metrics())
    wait_for_hardware(millrace, lost, timeout=10)
    downloads.finish()
    flowed = datagrams.finish()
    # None is lost on the way: what hardware does not take, software does.
    assert flowed["answered"] == flowed["sent"], flowed
    wait_for_none(millrace, base_rules)


def test_hardware_that_forwards_nothing_shows_in_readiness(labs):
    """When packets come to workers that hardware should forward, /readyz says so, though no call has failed."""
    lab, raw = start(labs, Eswitch("hws"), offload={"idle_s": 10})
    millrace = lab.millrace
    datagrams = raw.udp(200, 20, 14)
    wait_for_hardware(millrace, 200)
    # Misses count from two seconds after installation on.
    time.sleep(3)
    assert millrace.get("/readyz")[0] == 200
    millrace.eswitch.set_faults("miss=0.5")
    _, text = wait_until("readiness to fail", lambda: unready(millrace), timeout=8)
    assert "reach the workers" in text, text
    assert millrace.metrics().sum("offload_miss_packets_total") > 0
    millrace.eswitch.set_faults("none")
    wait_until("readiness", lambda: not unready(millrace), timeout=8)
    flowed = datagrams.finish()
    assert flowed["answered"] == flowed["sent"], flowed


def test_a_link_that_is_cut_shows_in_readiness(labs):
    lab, _ = start(labs, Eswitch("hws"))
    assert lab.millrace.get("/readyz")[0] == 200
    lab.millrace.eswitch.set_faults("stop_port=1")
    wait_until("readiness to fail", lambda: lab.millrace.get("/readyz")[0] == 503, timeout=5)
    assert "back" in lab.millrace.get("/readyz")[1]


def test_churn_beyond_what_hardware_takes(labs, full):
    """10,000 new connections a second on a device that takes 3,000 rules: the long ones are in hardware."""
    rate, seconds = 10_000, 60 if full else 10
    lab, raw = start(labs, Eswitch("sws", profile="bf2-sws"), limits={"connections": 1_000_000})
    millrace = lab.millrace
    base_rules = millrace.eswitch.rules()
    downloads = Downloads(lab, 10, (seconds + 6) * 300_000, seconds + 6, vips=(VIP4,))
    wait_for_hardware(millrace, 10)
    begin, before = time.monotonic(), millrace.metrics()
    # Each carries eleven packets: enough to ask for a rule, too few to be worth one.
    churned = raw.tcp(rate, seconds, rounds=3).finish()
    took, after = time.monotonic() - begin, millrace.metrics()
    achieved = churned["opened"] / churned["seconds"]
    # On a machine of its own it is the rate asked for.
    inserted = after.sum("offload_insertions_total") - before.sum("offload_insertions_total")
    in_hardware = installed(millrace)
    print(f"{achieved:,.0f} connections/s, {inserted / took:,.0f} rules/s, {churned}, {results(after)}")
    assert churned["completed"] == churned["opened"] and churned["failed"] == churned["reset"] == 0
    # 305 us a rule, of which half the time may be taken.
    assert inserted <= took * 1_000_000 / 305 / 2 * 1.1 + 100
    assert downloads.running() and in_hardware >= 10
    hardware = after.in_hardware() - before.in_hardware()
    assert hardware > 0.9 * 10 * 300_000 / 1448 * took, "the long ones' packets"
    downloads.finish()
    wait_for_none(millrace, base_rules, timeout=60)


def test_a_removed_backend_leaves_hardware(labs, full):
    """All its rules go with the reload that removes it; a histogram says how long that took."""
    flows, seconds = (20_000, 20) if full else (2_000, 10)
    lab, raw = start(labs, Eswitch("hws", profile="bf3-hws"), offload={"rules_max": 65536, "idle_s": 20})
    millrace = lab.millrace
    datagrams = raw.udp(flows, 500 if not full else 1000, seconds)
    wait_for_hardware(millrace, flows, timeout=15)
    one = millrace.service("raw-udp")["backend"].pop(0)["address"]
    of_one = millrace.metrics().sum("lb_connections", service="raw-udp", backend=one)
    begin = time.monotonic()
    millrace.reload()
    reloaded = time.monotonic() - begin
    wait_until("its connections to leave", lambda: installed(millrace) <= flows - of_one, timeout=5, pause=0.01)
    metrics = millrace.metrics()
    enforced = metrics.sum("policy_time_to_enforce_seconds_count")
    assert enforced >= 1
    buckets = sorted((float(le), count) for le, count in metrics.buckets("policy_time_to_enforce_seconds").items())
    longest = next(le for le, count in buckets if count >= enforced)
    print(f"{of_one} of {flows} connections: reload {reloaded * 1e3:.0f} ms, all out within {longest:g} s")
    flowed = datagrams.finish()
    assert flowed["never"] == 0, flowed


def test_a_device_that_takes_no_tables_of_the_usual_size(labs):
    """Nothing is offloaded, no packet is lost, and the log names the key to change."""
    lab = labs(Shape(backends=1), eswitch=Eswitch(profile="bf3-xenoflow"), servers=False)
    millrace = lab.start_millrace([traffic.service(lab, "udp")], ports=traffic.ports(lab))
    done = traffic.Traffic(lab).udp(flows=10, period_ms=50, seconds=1).finish()
    assert done["answered"] > 0 == done["never"], done
    log = millrace.process.log
    wait_until("the log to name the remedy", lambda: "lower [offload] rules_max" in log.read_text(), timeout=20)
    assert millrace.metrics().in_hardware() == 0
