"""Configuration changes under live traffic: what runs goes on, what is new follows the new weights."""

import signal
import time

import pytest
from lab import clients, servers
from lab.millrace import service
from lab.net import wait_until
from lab.topology import VIP4, Shape, backend4

VIP = VIP4.format(1)


class Downloads:
    """Downloads that nginx sends slowly, all by one curl."""

    def __init__(self, lab, number: int, seconds: int):
        self.size = 1_000_000
        servers.make_file(lab.files / "slow", self.size)
        url = f"http://{VIP}/files/slow?rate={self.size // seconds}&n=[1-{number}]"
        argv = ["curl", "-sS", "--parallel", "--parallel-max", str(number), "--parallel-immediate"]
        argv += ["--max-time", "120"]
        argv += ["-o", "/dev/null", "-w", "%{http_code} %{size_download} %{exitcode}\n", url]
        self.number = number
        self.curl = clients.Background(lab.client, argv)
        wait_until("the downloads to run", lambda: live(lab.millrace) >= number)

    def finish(self) -> list[str]:
        """What became of each."""
        return self.curl.output().splitlines()

    def all_whole(self) -> bool:
        return self.finish() == [f"200 {self.size} 0"] * self.number


def live(millrace) -> int:
    return millrace.metrics().sum("lb_connections")


def test_long_downloads_survive_adding_reweighting_and_draining(labs):
    lab = labs(Shape(backends=4))
    millrace = lab.start_millrace([service("web", 1)])
    downloads = Downloads(lab, 200, seconds=20)

    web = millrace.service("web")
    web["backend"].append({"address": backend4(4), "weight": 1})
    millrace.reload()
    time.sleep(1)
    web["backend"][0]["weight"] = 3
    millrace.reload()
    time.sleep(1)
    millrace.do("drain", "web", backend4(2))
    time.sleep(1)

    number = 20_000
    answers = clients.count_answers(lab.client, VIP, number, parallel=32)
    assert answers.total() == number
    assert downloads.curl.running(), "the downloads ended before the changes were made"
    weights = {"b1": 3, "b3": 1, "b4": 1}
    shares = {name: answers[name] / number * 5 / weight for name, weight in weights.items()}
    assert set(answers) == set(weights), "a drained backend got new connections"
    assert all(0.95 < share < 1.05 for share in shares.values()), shares
    assert downloads.all_whole()


def test_a_drained_backend_comes_back(labs):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1)])
    millrace.do("drain", "web", backend4(1))
    assert set(clients.count_answers(lab.client, VIP, 200)) == {"b2", "b3"}
    states = {row["backend"]: row["state"] for row in millrace.show("backends")}
    assert states == {backend4(1): "draining", backend4(2): "active", backend4(3): "active"}
    millrace.do("undrain", "web", backend4(1))
    assert set(clients.count_answers(lab.client, VIP, 200)) == {"b1", "b2", "b3"}
    assert millrace.cli("drain", "web", "198.51.100.99").returncode == 1


@pytest.mark.parametrize("policy", ["drain", "reset"])
def test_connections_of_a_removed_backend_follow_the_policy(labs, policy):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1, backends=[1, 2], on_remove=policy)])
    downloads = Downloads(lab, 40, seconds=6)
    on_first = millrace.metrics().sum("lb_connections", backend=backend4(1))
    assert 0 < on_first < 40
    del millrace.service("web")["backend"][0]
    millrace.reload()
    outcomes = downloads.finish()
    whole = outcomes.count(f"200 {downloads.size} 0")
    if policy == "drain":
        assert whole == 40
    else:
        assert whole == 40 - on_first
        # 56: failure in receiving network data, which is how curl tells a reset.
        assert sum(line.endswith(" 56") for line in outcomes) == on_first
    assert set(clients.count_answers(lab.client, VIP, 50)) == {"b2"}


def test_a_broken_file_is_refused_and_the_old_one_serves(labs):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1)])
    generation = millrace.metrics().sum("policy_generation")
    good = millrace.file.read_text()
    millrace.file.write_text(good.replace("weight = 1", "weight = -1").replace("[maglev]", "[maglef]"))
    refused = millrace.cli("reload")
    assert refused.returncode in (1, 2)
    assert "weight" in refused.stdout + refused.stderr
    assert clients.count_answers(lab.client, VIP, 100).total() == 100
    metrics = millrace.metrics()
    assert metrics.sum("config_reload_total", result="failure") == 1
    assert metrics.sum("policy_generation") == generation


def test_sighup_reloads(labs):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1)])
    millrace.service("web")["backend"][1:] = []
    millrace.write()
    millrace.process.popen.send_signal(signal.SIGHUP)
    wait_until("the reload", lambda: millrace.metrics().sum("config_reload_total", result="success") == 1)
    assert set(clients.count_answers(lab.client, VIP, 100)) == {"b1"}


def test_a_restarted_millrace_picks_up_live_connections(labs):
    """Maglev sends a connection that is not in the table to the backend it was on."""
    lab = labs()
    services = [service("web", 1)]
    lab.start_millrace(services)
    downloads = Downloads(lab, 50, seconds=8)
    time.sleep(1)
    lab.millrace.stop()
    millrace = lab.start_millrace(services)
    assert downloads.all_whole()
    assert millrace.metrics().sum("lb_picked_up_total") >= 50


def test_a_strict_service_does_not_pick_up(labs):
    lab = labs()
    services = [service("web", 1, strict=True)]
    lab.start_millrace(services)
    downloads = Downloads(lab, 10, seconds=4)
    lab.millrace.stop()
    millrace = lab.start_millrace(services)
    wait_until("segments to be refused", lambda: millrace.metrics().sum("drops_total", reason="no_connection"))
    assert millrace.metrics().sum("lb_picked_up_total") == 0
    downloads.curl.kill()
    assert clients.count_answers(lab.client, VIP, 100).total() == 100


def test_without_backends_packets_are_dropped_by_that_reason(labs):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1)])
    for backend in millrace.service("web")["backend"]:
        backend["weight"] = 0
    millrace.reload()
    lab.client.run(["curl", "-s", "--max-time", "1", f"http://{VIP}/"], check=False)
    assert millrace.metrics().sum("drops_total", reason="no_backend") > 0
    # Whoever steers clients here should steer them elsewhere.
    assert millrace.get("/readyz")[0] == 503
    assert millrace.get("/healthz")[0] == 200
