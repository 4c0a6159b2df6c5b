"""Health checks: who takes new connections when backends fail, one or all, and what does not move."""

import time

import pytest
from lab import clients
from lab.millrace import service
from lab.net import Process, wait_until
from lab.topology import DSR_HOSTS, VIP4, Shape, backend4
from test_tunnels import start_ends, tunnelled

VIP = VIP4.format(1)
CHECK_PORT = 8099


def states(millrace) -> list[str]:
    rows = {row["backend"]: row["state"] for row in millrace.show("backends")}
    return [rows[backend4(n)] for n in (1, 2, 3)]


def said(millrace) -> str:
    return millrace.process.log.read_text()


def wait_for(millrace, *expected: str) -> float:
    """Waits for these states; returns how many seconds that took."""
    started = time.monotonic()
    wait_until(f"states {expected}", lambda: states(millrace) == list(expected), 30, pause=0.01)
    return time.monotonic() - started


@pytest.mark.parametrize("check", [{"type": "tcp"}, {"type": "http", "path": "/"}])
def test_a_backend_that_dies_under_load_gets_no_new_connections(labs, check):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1, health=check)])
    wait_until("backends to be known", lambda: said(millrace).count("backend is up") == 3)
    load = clients.wrk(lab.client, VIP, lab.directory / "wrk.log", seconds=4, close=True)
    time.sleep(1)
    lab.web[0].process.stop()
    lab.processes.remove(lab.web[0].process)
    took = wait_for(millrace, "down", "active", "active")
    print(f"down after {took:.3f} s")
    load.finish()
    answers = clients.count_answers(lab.client, VIP, 300)
    assert answers.total() == 300
    assert set(answers) == {"b2", "b3"}
    assert millrace.at_rest().imbalance() == {"0": 0}


def test_a_silent_backend_is_found_out_and_comes_back(labs):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1, health={"type": "icmp"})])
    wait_until("backends to be known", lambda: said(millrace).count("backend is up") == 3)
    lab.network.backends[0].sysctl(**{"ipv4.icmp_echo_ignore_all": 1})
    print(f"down after {wait_for(millrace, 'down', 'active', 'active'):.3f} s")
    lab.network.backends[0].sysctl(**{"ipv4.icmp_echo_ignore_all": 0})
    wait_for(millrace, "active", "active", "active")
    assert set(clients.count_answers(lab.client, VIP, 300)) == {"b1", "b2", "b3"}


def test_when_all_checks_fail_traffic_goes_on_and_it_is_shouted(labs):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1, health={"type": "tcp", "port": CHECK_PORT})])
    wait_until("the shout", lambda: "health is ignored" in said(millrace))
    note = "ok\nnote: health of web is ignored: too few backends are up\n"
    wait_until("the note", lambda: millrace.get("/readyz") == (200, note))
    assert millrace.metrics().sum("lb_health_ignored", service="web") == 1
    answers = clients.count_answers(lab.client, VIP, 300)
    assert answers.total() == 300
    assert set(answers) == {"b1", "b2", "b3"}


def test_flapping_moves_no_live_connection(labs):
    lab = labs()

    def listen(n: int) -> Process:
        argv = ["/usr/bin/python3", "-m", "http.server", str(CHECK_PORT)]
        name = f"check{n}"
        return Process(name, lab.network.backends[n - 1].enter(argv), lab.directory / f"{name}.log")

    listeners = {n: listen(n) for n in (1, 2, 3)}
    check = {"type": "tcp", "port": CHECK_PORT, "rise": 1, "fall": 1}
    millrace = lab.start_millrace([service("web", 1, health=check)])
    try:
        wait_for(millrace, "active", "active", "active")
        (lab.files / "slow").write_bytes(bytes(400_000))
        url = f"http://{VIP}/files/slow?rate=50000&n=[1-30]"
        argv = ["curl", "-sS", "--parallel", "--parallel-max", "30", "--parallel-immediate", "-o", "/dev/null"]
        curl = clients.Background(lab.client, [*argv, "-w", "%{http_code} %{size_download}\n", url])
        wait_until("the downloads to run", lambda: millrace.metrics().sum("lb_connections") >= 30)
        for _ in range(2):
            listeners[1].stop()
            wait_for(millrace, "down", "active", "active")
            listeners[1] = listen(1)
            wait_for(millrace, "active", "active", "active")
        assert curl.output().splitlines() == ["200 400000"] * 30
        assert millrace.metrics().sum("lb_pcc_violations_total") == 0
    finally:
        for listener in listeners.values():
            listener.stop()


def test_under_dsr_the_vip_is_asked_at_each_backend(labs):
    lab = labs(Shape(dsr=True))
    millrace = lab.start_millrace([service("direct", DSR_HOSTS[0], mode="dsr", health={"type": "tcp"})])
    wait_until("backends to be known", lambda: said(millrace).count("backend is up") == 3)
    lab.web[1].process.stop()
    lab.processes.remove(lab.web[1].process)
    wait_for(millrace, "active", "down", "active")
    assert set(clients.count_answers(lab.client, VIP4.format(DSR_HOSTS[0]), 300)) == {"b1", "b3"}


def test_through_a_tunnel_the_vip_is_asked_at_its_end(labs):
    """A backend that serves on, but whose end of the tunnel is gone, gets nothing."""
    lab = labs(Shape(dsr=True))
    assert start_ends(lab, "vxlan") == "kernel"
    one = tunnelled("vxlan", DSR_HOSTS[0], 4, 4) | {"health": {"type": "tcp"}}
    millrace = lab.start_millrace([one])
    wait_until("backends to be known", lambda: said(millrace).count("backend is up") == 3, timeout=30)
    lab.network.backends[1].ip("link set t4 down")
    wait_for(millrace, "active", "down", "active")
    assert set(clients.count_answers(lab.client, VIP4.format(DSR_HOSTS[0]), 100)) == {"b1", "b3"}
    lab.network.backends[1].ip("link set t4 up")
    wait_for(millrace, "active", "active", "active")
    assert set(clients.count_answers(lab.client, VIP4.format(DSR_HOSTS[0]), 100)) == {"b1", "b2", "b3"}


def test_what_clients_meet_with_counts_too_and_is_shown(labs):
    """Asked at a port where all is well, a backend refuses its clients: they tell."""
    lab = labs()
    argv = ["/usr/bin/python3", "-m", "http.server", str(CHECK_PORT)]
    listeners = [
        Process(f"check{n}", host.enter(argv), lab.directory / f"check{n}.log")
        for n, host in enumerate(lab.network.backends, 1)
    ]
    try:
        check = {"type": "tcp", "port": CHECK_PORT, "interval_ms": 10_000, "fall": 2, "passive": True}
        millrace = lab.start_millrace([service("web", 1, health=check)])
        wait_until("backends to be known", lambda: said(millrace).count("backend is up") == 3)
        lab.web[0].process.stop()
        lab.processes.remove(lab.web[0].process)

        def told() -> bool:
            argv = ["curl", "-s", "-o", "/dev/null", "-H", "Connection: close", f"http://{VIP}/?[1-40]"]
            clients.Background(lab.client, argv).output()
            return states(millrace) == ["down", "active", "active"]

        wait_until("clients to tell", told)
        [row] = [row for row in millrace.show("backends") if row["state"] == "down"]
        assert (row["health"]["state"], row["health"]["last_error"]) == ("down", "passive")
        labels = {"service": "web", "backend": row["backend"]}
        page = millrace.metrics()
        assert page.sum("lb_backend_state", **labels, state="down") == 1
        assert page.sum("lb_backend_state", **labels, state="up") == 0
        assert page.sum("lb_backend_transitions_total", **labels, to="down", cause="passive") == 1
        assert page.sum("lb_health_ignored") == 0 and page.sum("health_probes_total", result="good") >= 3
        assert millrace.get("/readyz") == (200, "ok\n")
    finally:
        for listener in listeners:
            listener.stop()
