"""Policy under live traffic: a rule that comes by a reload ends what it refuses, at once and in hardware too,
and nothing else."""

from __future__ import annotations

import time

import pytest
from lab import clients, servers
from lab.eswitch import Eswitch
from lab.lab import Lab
from lab.millrace import Millrace, service
from lab.net import Process, wait_until
from lab.topology import VIP4, Shape

REFUSED, OTHER = VIP4.format(1), VIP4.format(2)
# On a network of their own, which spans both segments.
OUTSIDE, INSIDE = "172.31.0.10", "172.31.0.11"
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
    # Each goes when its worker comes to it, after its client has been told; hardware's, when its rule is out.
    wait_until("them to be gone", lambda: millrace.metrics().sum("lb_connections", service="refused") == 0)
    figures = millrace.metrics()
    assert figures.sum("drops_total", reason="policy_rejected") > 0
    if eswitch:
        assert figures.sum("offload_revocations_total", reason="policy") >= EACH
        wait_until("their rules to be gone", lambda: in_hardware(millrace) == EACH)

    said = lab.client.run(["curl", "-sS", "--max-time", "5", "-w", "%{exitcode}", f"http://{REFUSED}/"], check=False)
    assert said.endswith("7"), f"a new connection is refused, not left waiting: {said}"
    assert other.output().splitlines() == [f"200 {SIZE} 0"] * EACH

    millrace.config["policy"] = []
    millrace.reload()
    assert clients.count_answers(lab.client, REFUSED, 20).total() == 20


def test_what_is_passed_on_answers_and_is_not_spoken_to(labs):
    """Two stations with Millrace between them, of which one may speak first."""
    lab = labs(Shape(backends=1))
    host = lab.network.backends[0]
    for netns, interface, own in ((lab.client, "eth0", OUTSIDE), (host, "back", INSIDE)):
        netns.ip(f"addr add {own}/24 dev {interface}")
    servers.make_file(lab.files / "file", SIZE)
    web = ["python3", "-m", "http.server", "8000", "--directory", str(lab.files)]
    lab.processes.append(Process("outside", lab.client.enter(web), lab.directory / "outside.log"))
    inline = {"front": {"pass_to": "back"}, "back": {"pass_to": "front"}}
    millrace = lab.start_millrace([], ports=inline, policy_default=[{"ingress": "deny", "egress": "allow"}])

    def get(netns, url, *options):
        argv = ["curl", "-sS", "--max-time", "3", "-o", "/dev/null", "-w", "%{exitcode}", *options, url]
        return netns.run(argv, check=False)

    wait_until("the server to answer", lambda: get(host, f"http://{OUTSIDE}:8000/file") == "0")
    assert get(lab.client, f"http://{INSIDE}/") == "28", "nobody may speak to the host, or be told so"
    assert millrace.metrics().sum("drops_total", reason="policy_denied") > 0

    argv = ["curl", "-sS", "--limit-rate", str(SIZE // SECONDS), "-o", "/dev/null", "-w", "%{exitcode}"]
    download = clients.Background(host, [*argv, f"http://{OUTSIDE}:8000/file"])
    states = lambda: [row["state"] for row in millrace.show("connections")["connections"]]  # noqa: E731
    wait_until("it to run", lambda: "established" in states())
    millrace.config["policy"] = [{"action": "reject", "direction": "egress", "to": [OUTSIDE]}]
    millrace.reload()
    assert download.output(timeout=SECONDS).strip() != "0"
    assert get(host, f"http://{OUTSIDE}:8000/file") == "7"
    millrace.config["policy"] = []
    millrace.reload()
    assert get(host, f"http://{OUTSIDE}:8000/file") == "0"
