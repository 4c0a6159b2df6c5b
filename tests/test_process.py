"""The program: starting, stopping, its command line."""

import json
import subprocess

import pytest
from lab import clients
from lab.lab import built_binary
from lab.millrace import STOP_SECONDS, configuration, device, service, to_toml
from lab.net import LabError
from lab.topology import VIP4, Shape

VIP = VIP4.format(1)


def test_sigterm_under_load_leaves_in_time(labs):
    lab = labs(workers=1)
    millrace = lab.start_millrace([service("web", 1)])
    load = clients.wrk(lab.client, VIP, lab.directory / "wrk.log", seconds=4, connections=64)
    try:
        clients.count_answers(lab.client, VIP, 50)
        assert millrace.stop() <= STOP_SECONDS
    finally:
        load.process.stop()
    # The ports are free again: another one starts on them.
    lab.start_millrace([service("web", 1)])
    assert clients.count_answers(lab.client, VIP, 50).total() == 50


def check(path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([built_binary(), "check", path], capture_output=True, text=True, check=False)


def test_check_tells_good_from_bad(tmp_path):
    config = configuration(tmp_path, [device("af_packet", n, 1) for n in (0, 1)])
    config["service"] = [service("web", 1)]
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(to_toml(config))
    assert check(good).returncode == 0
    config["service"][0]["backend"][1]["weight"] = "heavy"
    config["service"].append(service("web", 2))
    bad.write_text(to_toml(config))
    refused = check(bad)
    assert refused.returncode == 2
    text = refused.stdout + refused.stderr
    # Every fault at once.
    assert "weight" in text and "web" in text and str(bad) in text
    assert check(tmp_path / "absent.toml").returncode in (1, 2)


def test_run_refuses_a_device_that_is_not_there(labs):
    lab = labs(Shape(backends=1), servers=False)
    with pytest.raises(LabError, match="ended with"):
        lab.start_millrace([], ports={"front": {"device": "net_af_packet7,iface=nosuch"}})


def test_show_speaks_text_and_json(labs):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1)])
    clients.count_answers(lab.client, VIP, 30)
    for what in ("services", "backends", "connections", "ports", "workers", "drops", "neighbours"):
        assert millrace.do("show", what).strip()
        json.loads(millrace.do("show", what, "--json"))
    assert sum(row["opened"] for row in millrace.show("backends")) == 30
    assert [row["backends_active"] for row in millrace.show("services")] == [3]


def test_commands_without_a_running_millrace_say_so(tmp_path):
    argv = [built_binary(), "--socket", tmp_path / "none.sock", "show", "services"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "none.sock" in done.stderr


def test_health_and_readiness(labs):
    lab = labs(Shape(backends=1), servers=False)
    millrace = lab.start_millrace([])
    assert millrace.get("/healthz")[0] == millrace.get("/readyz")[0] == 200
    assert millrace.get("/nothing")[0] == 404
