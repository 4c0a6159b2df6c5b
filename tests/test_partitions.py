"""Services by source partition: the eSwitch chooses among the backends by the low bits of the client's address, and
workers see none of it."""

from __future__ import annotations

import pytest
from lab import clients
from lab.eswitch import Eswitch
from lab.lab import Lab
from lab.millrace import service
from lab.net import wait_until
from lab.topology import DSR_HOSTS, VIP4, VIP6, Shape

HOST = DSR_HOSTS[0]
PARTITIONS = 8
BACKENDS = {"b1", "b2", "b3"}


def parted(family: int) -> dict:
    keys = {"mode": "dsr", "protocol": "udp", "scheduler": "source-partition", "partitions": PARTITIONS}
    return service(f"dns-v{family}", HOST, 53, family=family, **keys)


def rules(lab: Lab, state: str) -> int:
    return lab.millrace.metrics().sum("offload_partitions", state=state)


def answers(lab: Lab, family: int = 4) -> dict[int, str]:
    """Who answers a question of each partition."""
    vip = (VIP4 if family == 4 else VIP6).format(HOST)
    sources = lab.network.sources(family)
    return {n: clients.dig(lab.client, vip, "whoami.lab", "-b", source) for n, source in enumerate(sources)}


def wait_for_rules(lab: Lab, number: int) -> None:
    wait_until(f"{number} rules of partitions", lambda: rules(lab, "installed") == number, timeout=30)


def moved(lab: Lab, rules_: int, backends: set[str]) -> None:
    """All partitions have a rule, to one of these."""

    def all_there() -> bool:
        rows = lab.millrace.show("rules")["rules"]
        served = {row["backend"].rsplit(".", 1)[-1] for row in rows if row["state"] == "installed"}
        return len(rows) == rules_ and served == {str(10 + int(name[1])) for name in backends}

    wait_until(f"partitions at {backends} alone", all_there, timeout=30)


@pytest.mark.parametrize(
    "eswitch", [Eswitch("sws"), Eswitch("hws", profile="bf3-xenoflow")], ids=["sws", "hws-xenoflow"]
)
def test_partitions_are_hardwares_alone(labs, eswitch):
    lab = labs(Shape(backends=3, dsr=True, sources=PARTITIONS), eswitch=eswitch)
    millrace = lab.start_millrace([parted(4)])
    wait_for_rules(lab, PARTITIONS)
    rows = millrace.show("rules")["rules"]
    assert len(rows) == PARTITIONS
    spec = "src spec 0.0.0.7" + (" src mask 0.0.0.7" if eswitch.steering == "sws" else "")
    assert sum(spec in row["rule"] for row in rows) == 1, rows[0]
    before = answers(lab)
    assert set(before.values()) == BACKENDS
    vip = VIP4.format(HOST)
    traced = millrace.do("trace", f"{lab.network.sources(4)[0]}:4000 -> {vip}:53/udp")
    assert "the address's last 3 bits" in traced and "hardware forwards it by partition" in traced, traced

    # Every question is in the books, once, and hardware's.
    wait_until("all counts", lambda: millrace.metrics().in_hardware() >= PARTITIONS, timeout=30)
    metrics = millrace.metrics()
    assert metrics.in_hardware() == metrics.forwarded("packets") == PARTITIONS
    assert {row["packets"] for row in millrace.show("rules")["rules"]} == {1}
    # Of eight, the busiest of three has three.
    assert "partition (112 %)" in millrace.do("show", "services")

    # Whoever is drained gives up its partitions, and nobody else's move.
    address = next(member["address"] for member in parted(4)["backend"] if member["address"].endswith(".12"))
    millrace.do("drain", "dns-v4", address)
    moved(lab, PARTITIONS, {"b1", "b3"})
    drained = answers(lab)
    assert all(now == then or then == "b2" for now, then in zip(drained.values(), before.values(), strict=True))
    assert "b2" not in drained.values()
    millrace.do("undrain", "dns-v4", address)
    moved(lab, PARTITIONS, BACKENDS)
    assert answers(lab) == before

    # Where the policy has something to say, software does it all, by the same table.
    millrace.config["policy"] = [{"action": "deny", "from": ["10.9.0.0/16"]}]
    millrace.reload()
    wait_until("rules to go", lambda: rules(lab, "declined:policy") == PARTITIONS, timeout=30)
    wait_until("rules to be out", lambda: not millrace.show("rules")["rules"], timeout=30)
    assert answers(lab) == before
    metrics = millrace.at_rest(timeout=20)
    assert metrics.forwarded("packets") - metrics.in_hardware() == PARTITIONS
