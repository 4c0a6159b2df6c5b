"""Large transfers arrive whole, whatever the MTU."""

import pytest
from lab import clients, servers
from lab.millrace import service
from lab.topology import CLIENT4, CLIENT6, VIP4, VIP6, Shape

FAMILIES = pytest.mark.parametrize("family", [4, 6])


def vip(family: int) -> str:
    return (VIP4 if family == 4 else VIP6).format(1)


@FAMILIES
def test_a_large_download_arrives_whole(labs, full, family):
    lab = labs()
    digest = servers.make_file(lab.files / "large", (1 << 30) if full else (256 << 20))
    lab.start_millrace([service("web", 1, family=family)])
    assert clients.http_sha256(lab.client, vip(family), "/files/large") == digest


@FAMILIES
@pytest.mark.parametrize("narrow", ["front", "back"])
def test_path_mtu_discovery_works_both_ways(labs, family, narrow):
    """One of Millrace's links is narrower than all others, so that full-sized packets towards it must be
    answered with frag-needed or packet-too-big, and the sender must understand."""
    lab = labs()
    file = lab.files / "file"
    digest = servers.make_file(file, 8 << 20)
    millrace = lab.start_millrace([service("web", 1, family=family, backends=[1])], ports={narrow: {"mtu": 1400}})
    if narrow == "front":
        assert clients.http_sha256(lab.client, vip(family), "/files/file", timeout=30) == digest
        learned = lab.network.backends[0].run(["ip", "route", "get", CLIENT4 if family == 4 else CLIENT6])
    else:
        clients.http_put(lab.client, vip(family), "/upload/file", file, timeout=30)
        assert servers.sha256(lab.web[0].uploaded("file")) == digest
        learned = lab.client.run(["ip", "route", "get", vip(family)])
    assert "mtu 1400" in learned
    assert millrace.metrics().sum("drops_total", reason="too_big") > 0


@FAMILIES
def test_a_small_mtu_everywhere(labs, family):
    lab = labs(Shape(mtu=1280))
    file = lab.files / "file"
    digest = servers.make_file(file, 4 << 20)
    lab.start_millrace([service("web", 1, family=family)])
    assert clients.http_sha256(lab.client, vip(family), "/files/file") == digest
    clients.http_put(lab.client, vip(family), "/upload/file", file)
    uploaded = [found for web in lab.web if (found := web.uploaded("file"))]
    assert [servers.sha256(found) for found in uploaded] == [digest]


def test_backends_may_listen_elsewhere_and_see_the_client(labs):
    """A service's port need not be its backends' port, nor a single one; the backend sees the client's own
    address."""
    lab = labs(Shape(sources=1))
    moved = service("moved", 1, 8080, backends=[])
    moved["backend"] = [{"address": "198.51.100.11:80"}]
    several = service("several", 1, 9000)
    several["ports"] = ["9000-9010"]
    lab.start_millrace([moved, several])
    for port in (8080, 9000, 9005, 9010):
        assert clients.http_get(lab.client, vip(4), "/client", port=port) == CLIENT4
    source = lab.network.sources(4)[0]
    assert clients.http_get(lab.client, vip(4), "/client", "--interface", source, port=8080) == source
