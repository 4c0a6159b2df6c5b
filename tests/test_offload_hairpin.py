"""One arm: clients and backends are behind the same wire, and what came in by it leaves by it. An eSwitch drops
that; under software steering hairpin queues do it, under hardware steering the workers."""

from __future__ import annotations

import time

import pytest
from lab import clients, servers
from lab.eswitch import Eswitch
from lab.millrace import Millrace, service
from lab.net import wait_until
from lab.topology import DSR_HOSTS, VIP4, VIP6, Shape

MODES = pytest.mark.parametrize("mode", ["nat", "dsr"])
# The first and last packets of connections, and neighbours' upkeep, beside the packets of downloads and uploads.
STRAY_SHARE = 0.01
SIZE = 32 << 20


def begin(labs, mode: str, eswitch: Eswitch, workers: int = 1, asked: bool = True) -> tuple:
    """The lab, Millrace, and the addresses of a service of that mode, by family."""
    lab = labs(Shape(backends=2, dsr=mode == "dsr", one_arm=True), eswitch=eswitch, workers=workers)
    host = DSR_HOSTS[0] if mode == "dsr" else 1
    services = [service(f"web-v{family}", host, family=family, backends=(1, 2), mode=mode) for family in (4, 6)]
    ports = {"lan": {"hairpin": True}} if asked else None
    timeouts = {"tcp_closing_s": 1, "tcp_time_wait_s": 1}
    millrace = lab.start_millrace(services, ports=ports, offload={"idle_s": 2}, timeouts=timeouts)
    return lab, millrace, [vip.format(host) for vip in (VIP4, VIP6)]


def hairpins(millrace: Millrace) -> list[str]:
    (port,) = millrace.show("ports")
    return port["hairpins"]


def wait_for_none(millrace: Millrace, base_rules: int) -> None:
    """All rules of connections have gone, and their last counts have come: in Millrace's books and the device."""

    def none() -> bool:
        metrics = millrace.metrics()
        left = metrics.sum("offload_rules") + metrics.sum("offload_connections", state="installed")
        left += metrics.sum("offload_queue", queue="settling")
        return left == 0 and millrace.eswitch.rules() == base_rules

    wait_until("all rules of connections to go", none, timeout=20, pause=0.2)


@MODES
@pytest.mark.parametrize("workers", [1, 2])
def test_established_connections_turn_round_in_hardware(labs, mode, workers):
    lab, millrace, addresses = begin(labs, mode, Eswitch("sws"), workers)
    assert hairpins(millrace) == ["lan"]
    base_rules = millrace.eswitch.rules()
    digest = servers.make_file(lab.files / "file", SIZE)
    for number, address in enumerate(addresses):
        # How much a connection sends before its rules are made depends on who has this machine's cores: little here.
        stored = lab.directory / "stored"
        clients.http_kept(lab.client, address, "/files/file", stored, f"/upload/{number}")
        (uploaded,) = filter(None, (web.uploaded(str(number)) for web in lab.web))
        assert servers.sha256(stored) == servers.sha256(uploaded) == digest
    wait_for_none(millrace, base_rules)
    metrics = millrace.at_rest()
    forwarded, hardware = metrics.forwarded("packets"), metrics.in_hardware()
    print(f"{mode}: {hardware} of {forwarded} packets in hardware, workers saw {metrics.received()}")
    assert forwarded - hardware <= forwarded * STRAY_SHARE
    assert metrics.received() <= forwarded * STRAY_SHARE
    # What hardware forwarded went through hairpin queues, and nothing else did.
    assert sum(count for _, count in hairpin_packets(millrace)) == hardware
    assert metrics.sum("offload_miss_packets_total") == 0


def hairpin_packets(millrace: Millrace) -> list[tuple[str, int]]:
    counts = millrace.eswitch.stats().items()
    return [(port, of["hairpin_packets"]) for port, of in counts if port.startswith("port")]


@MODES
@pytest.mark.parametrize("why", ["hardware-steering", "not-asked-for"])
def test_without_hairpin_queues_workers_forward(labs, mode, why):
    if why == "not-asked-for":
        lab, millrace, addresses = begin(labs, mode, Eswitch("sws"), asked=False)
    else:
        lab, millrace, addresses = begin(labs, mode, Eswitch("hws"))
        assert "hairpin queues are not used: under hardware steering" in millrace.process.log.read_text()
    assert hairpins(millrace) == []
    digest = servers.make_file(lab.files / "file", SIZE)
    for address in addresses:
        assert clients.http_sha256(lab.client, address, "/files/file") == digest
    url = f"http://{addresses[0]}/files/file?rate=100000"
    slow = clients.Background(lab.client, ["curl", "-sS", "-o", "/dev/null", url])
    wait_until("a connection", lambda: millrace.metrics().sum("lb_connections") > 0)
    wait_until("a decision about it", lambda: millrace.show("offload")["requests"].get("path", 0) > 0)
    time.sleep(0.2)
    paths = {connection["path"] for connection in millrace.show("connections")["connections"]}
    assert "declined:path" in paths
    slow.kill()
    metrics = millrace.at_rest()
    assert metrics.in_hardware() == 0 and metrics.forwarded("packets") > 0
    assert sum(count for _, count in hairpin_packets(millrace)) == 0
