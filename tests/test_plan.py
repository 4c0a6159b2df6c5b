"""What `millrace plan` says of a device is what a running Millrace meets on it."""

from __future__ import annotations

import json
import subprocess

from lab import clients, servers
from lab.eswitch import Eswitch
from lab.millrace import service
from lab.net import wait_until
from lab.topology import VIP4, Shape

FITS, EXCEEDED = 0, 3


def plan(lab, *words: str) -> tuple[int, dict]:
    """`plan` of the configuration that runs, on the profile that the software eSwitch has."""
    millrace = lab.millrace
    argv = [millrace.binary, "plan", millrace.file, "--profile", "bf3-xenoflow", "--json", *words]
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=60)
    assert done.returncode in (FITS, EXCEEDED), done.stderr
    return done.returncode, json.loads(done.stdout)["profiles"][0]


def download(lab) -> clients.Background:
    url = f"http://{VIP4.format(1)}/files/long?rate=300000"
    argv = ["curl", "-sS", "--no-progress-meter", "--max-time", "60", "-o", "/dev/null", url]
    return clients.Background(lab.client, argv)


def run(labs, rules_max: int):
    """A long download through the eSwitch, with so many rules asked for."""
    lab = labs(Shape(backends=1), eswitch=Eswitch("hws", profile="bf3-xenoflow"))
    web = service("web", 1, backends=(1,))
    lab.start_millrace([web], offload={"rules_max": rules_max, "idle_s": 2, "price_min": 4})
    servers.make_file(lab.files / "long", 12_000_000)
    return lab, download(lab)


def results(lab) -> dict[str, int]:
    return lab.millrace.metrics().by("offload_requests_total", "result")


def test_a_table_that_the_device_does_not_have(labs):
    lab, curl = run(labs, 65_536)
    code, planned = plan(lab)
    assert (code, planned["first_limit"]["limit"]) == (EXCEEDED, "table_rules_max:web"), planned["first_limit"]
    wait_until("the device to refuse", lambda: results(lab).get("rejected", 0) > 0, timeout=20)
    assert lab.millrace.metrics().sum("offload_connections", state="installed") == 0
    curl.kill()


def test_the_remedy_is_one_and_live_traffic_is_planned_for(labs):
    lab, curl = run(labs, 6_553)
    wait_until("it to be in hardware", lambda: results(lab).get("ok", 0) > 0, timeout=20)
    code, planned = plan(lab, "--live", str(lab.millrace.socket))
    assert (code, planned["first_limit"]["limit"]) == (FITS, "rules_max"), planned["first_limit"]
    assert planned["services"][0]["rules_per_connection"] == 2
    load = planned["needs"]
    assert load["connections"] >= 1, planned
    curl.kill()
