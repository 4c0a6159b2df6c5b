"""Policy under live traffic: a rule that comes by a reload ends what it refuses, at once and in hardware too,
and nothing else."""

from __future__ import annotations

import time

import pytest
from lab import clients, servers
from lab.eswitch import Eswitch
from lab.lab import Lab
from lab.millrace import Millrace, service
from lab.net import wait_until
from lab.topology import VIP4, Shape

REFUSED, OTHER = VIP4.format(1), VIP4.format(2)
EACH = 20
SIZE = 1_000_000
SECONDS = 8
ESWITCHES = {"software": None, "sws": Eswitch("sws"), "hws": Eswitch("hws")}


def downloads(lab: Lab, vip: str) -> clients.Background:
    url = f"http://{vip}/files/slow?rate={SIZE // SECONDS}&n=[1-{EACH}]"
    argv = ["curl", "-sS", "--parallel", "--parallel-max", str(EACH), "--parallel-immediate", "--max-time", "60"]
    argv += ["-o", "/dev/null", "-w", "%{http_code} %{size_download} %{exitcode}\n", url]
    return clients.Background(lab.client, argv)


def in_hardware(millrace: Millrace) -> int:
    return millrace.metrics().sum("offload_connections", state="installed")


@pytest.mark.parametrize("where", ESWITCHES)
def test_a_new_rule_ends_what_it_refuses_and_nothing_else(labs, where):
    eswitch = ESWITCHES[where]
    lab = labs(Shape(backends=2), **({"eswitch": eswitch} if eswitch else {}))
    offload = {"offload": {"idle_s": 2}} if eswitch else {}
    made = [service("refused", 1, backends=(1, 2)), service("other", 2, backends=(1, 2))]
    millrace = lab.start_millrace(made, **offload)
    servers.make_file(lab.files / "slow", SIZE)
    refused, other = downloads(lab, REFUSED), downloads(lab, OTHER)
    wait_until("the downloads to run", lambda: millrace.metrics().sum("lb_connections") >= 2 * EACH)
    if eswitch:
        wait_until("hardware to have them", lambda: in_hardware(millrace) >= 2 * EACH)

    began = time.monotonic()
    millrace.config["policy"] = [{"name": "closed", "action": "reject", "to": [REFUSED], "log": True}]
    millrace.reload()
    outcomes = refused.output().splitlines()
    took = time.monotonic() - began
    assert len(outcomes) == EACH and not any(line.endswith(" 0") for line in outcomes), outcomes
    assert took < SECONDS / 2, f"{took:.1f} s: they were not told, but ended by themselves"
    assert other.running(), "the others ended before they were of any use here"
    wait_until("a verdict in the log", lambda: 'policy rule="closed"' in millrace.process.tail())
    figures = millrace.metrics()
    assert figures.sum("lb_connections", service="refused") == 0
    assert figures.sum("drops_total", reason="policy_rejected") > 0
    if eswitch:
        assert figures.sum("offload_revocations_total", reason="policy") >= EACH
        assert in_hardware(millrace) == EACH

    said = lab.client.run(["curl", "-sS", "--max-time", "5", "-w", "%{exitcode}", f"http://{REFUSED}/"], check=False)
    assert said.endswith("7"), f"a new connection is refused, not left waiting: {said}"
    assert other.output().splitlines() == [f"200 {SIZE} 0"] * EACH

    millrace.config["policy"] = []
    millrace.reload()
    assert clients.count_answers(lab.client, REFUSED, 20).total() == 20
