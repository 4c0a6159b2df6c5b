"""Forwarding modes and affinities, as clients and servers see them."""

from collections import Counter

import pytest
from lab import clients, servers
from lab.millrace import service
from lab.topology import CLIENT4, CLIENT6, DSR_HOSTS, VIP4, VIP6, Shape

FAMILIES = pytest.mark.parametrize("family", [4, 6])
DSR = DSR_HOSTS[0]


def vip(family: int, host: int = 1) -> str:
    return (VIP4 if family == 4 else VIP6).format(host)


@FAMILIES
def test_dsr_replies_go_past_millrace(labs, family):
    lab = labs(Shape(dsr=True))
    digest = servers.make_file(lab.files / "file", 32 << 20)
    services = [service("web", DSR, family=family, mode="dsr")]
    services.append(service("dns", DSR, 53, family=family, mode="dsr", protocol="udp"))
    # Two of the thirty questions may come from one port, which makes one `replied` connection of them.
    closed = {"tcp_closing_s": 1, "tcp_time_wait_s": 1}
    millrace = lab.start_millrace(services, timeouts={**closed, "udp_unreplied_s": 1, "udp_replied_s": 1})
    address = vip(family, DSR)
    answers = clients.count_answers(lab.client, address, 300)
    assert answers.total() == 300 and set(answers) == {"b1", "b2", "b3"}
    assert clients.http_get(lab.client, address, "/client") == (CLIENT4 if family == 4 else CLIENT6)
    assert clients.http_sha256(lab.client, address, "/files/file") == digest
    assert {clients.dig(lab.client, address) for _ in range(30)} == {"b1", "b2", "b3"}
    metrics = millrace.metrics()
    assert metrics.sum("lb_packets_total", direction="original") > 300
    assert metrics.sum("lb_packets_total", direction="reply") == 0
    # Although only the client's side of a connection is seen, its end is noticed.
    millrace.wait_for_no_connections(timeout=15)


def from_one_port(lab, address: str, number: int) -> Counter:
    """Who answers questions that all come from one address and port."""
    source = CLIENT6 if ":" in address else CLIENT4
    return Counter(clients.dig(lab.client, address, "whoami.lab", "-b", f"{source}#5555") for _ in range(number))


@FAMILIES
@pytest.mark.parametrize("mode", ["nat", "dsr"])
def test_without_affinity_every_datagram_is_scheduled(labs, family, mode):
    lab = labs(Shape(dsr=mode == "dsr"))
    host = 1 if mode == "nat" else DSR
    dns = service("dns", host, 53, family=family, protocol="udp", affinity="none", mode=mode)
    millrace = lab.start_millrace([dns])
    assert set(from_one_port(lab, vip(family, host), 60)) == {"b1", "b2", "b3"}
    assert millrace.metrics().sum("ct_entries") == 0


@FAMILIES
def test_a_udp_connection_stays_where_it_is(labs, family):
    lab = labs()
    lab.start_millrace([service("dns", 1, 53, family=family, protocol="udp")])
    assert len(from_one_port(lab, vip(family), 20)) == 1


@FAMILIES
def test_client_affinity_sticks_to_the_address(labs, family):
    lab = labs(Shape(sources=24))
    lab.start_millrace([service("web", 1, family=family, affinity="client")])
    chosen = set()
    for source in lab.network.sources(family):
        answers = clients.count_answers(lab.client, vip(family), 5, "--interface", source)
        assert len(answers) == 1, f"{source}: {dict(answers)}"
        chosen |= set(answers)
    assert chosen == {"b1", "b2", "b3"}


def test_maglev_is_the_same_on_every_node(labs):
    """Two nodes with one configuration send the same connection to the same backend."""
    seen = []
    for _ in range(2):
        lab = labs(Shape(sources=40))
        lab.start_millrace([service("web", 1, affinity="client")])
        seen.append([clients.http_get(lab.client, vip(4), "/", "--interface", s) for s in lab.network.sources(4)])
        lab.millrace.stop()
    assert seen[0] == seen[1]
