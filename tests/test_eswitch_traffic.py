"""Real TCP connections through the software eSwitch, past an application that sleeps.

The kernels at both ends verify every checksum, and the file that arrives is compared by its sha256.
"""

from __future__ import annotations

import pytest
from lab import clients, servers
from lab.crossing import (
    CLIENT_MAC,
    GATEWAY,
    SERVER_MAC,
    SERVER_PORT,
    VIPS,
    Idle,
    IdleTestpmd,
    client_address,
)
from lab.net import LabError, unload

FAMILIES = pytest.mark.parametrize("family", [4, 6])
# Rules of idle.c are for connections from these ports on, so many an address.
FIRST_PORT, PORTS_PER_ADDRESS = 10_000, 50_000


def sha256_from(ends, family: int, connection: int = 0) -> str:
    """The download's digest. The client's end is that of idle.c's connection of this number."""
    address, port = client_address(family, connection // PORTS_PER_ADDRESS), FIRST_PORT + connection % PORTS_PER_ADDRESS
    url = f"http://{clients.host(VIPS[family])}/files/file"
    script = (
        'set -o pipefail; curl -gsS --fail --max-time 120 --interface "$1" --local-port "$2" "$3" | sha256sum'
    )
    return ends.client.run(["bash", "-c", script, "-", address, str(port), url], timeout=130).split()[0]


def test_a_million_rules_and_an_application_that_sleeps(tmp_path, full):
    """Each connection has two rules that match all of it and translate it there and back."""
    connections = 500_000
    with Idle(tmp_path, connections, "profile=cx6dx") as idle:
        print(idle.banner)
        assert int(idle.banner.split()[1]) >= 1_000_000
        digest = servers.make_file(idle.ends.files / "file", (1 << 30) if full else (32 << 20))
        each = connections // 2
        for family in (4, 6):
            for connection in (0, each // 2, each - 1):
                assert sha256_from(idle.ends, family, connection) == digest
        assert idle.received() == [0, 0]
        # Without a rule of its own, a connection reaches nobody but the application.
        with pytest.raises(LabError, match="timed out"):
            clients.http_get(idle.ends.client, VIPS[4], "/", "--interface", client_address(4, 11), timeout=1)
        assert idle.received()[0] > 0
        assert idle.quit() == 0


def nat_rules(family: int) -> list[str]:
    """Rules that translate between the virtual address and the server."""
    server = "10.1.0.2" if family == 4 else "fd00:1::2"
    ip, back = f"ipv{family}", f"set_mac_dst mac_addr {CLIENT_MAC} / dec_ttl / count"
    there = f"set_mac_dst mac_addr {SERVER_MAC} / dec_ttl / count"
    source = f"set_mac_src mac_addr {GATEWAY}"
    return [
        f"flow create 0 transfer pattern eth / {ip} dst is {VIPS[family]} / tcp dst is 80 / end actions "
        f"{source} / {there} / set_{ip}_dst {ip}_addr {server} / set_tp_dst port {SERVER_PORT} / "
        "represented_port ethdev_port_id 1 / end",
        f"flow create 1 transfer pattern eth / {ip} src is {server} / tcp src is {SERVER_PORT} / end actions "
        f"{source} / {back} / set_{ip}_src {ip}_addr {VIPS[family]} / set_tp_src port 80 / "
        "represented_port ethdev_port_id 0 / end",
    ]


QUIET = [
    f"flow create {port} priority 0 transfer pattern eth dst spec 33:33:00:00:00:00 dst mask ff:ff:00:00:00:00 / end "
    "actions drop / end"
    for port in (0, 1)
]


def create(testpmd: IdleTestpmd, lines: list[str]) -> None:
    for line in lines:
        said = testpmd.command(line)
        assert "created" in said, said


@FAMILIES
def test_nat_past_testpmd(tmp_path, family):
    with IdleTestpmd(tmp_path, devargs="dv_flow_en=1") as testpmd:
        create(testpmd, [*QUIET, *nat_rules(family)])
        ends = testpmd.ends
        digest = servers.make_file(ends.files / "file", 32 << 20)
        before = testpmd.received()
        assert sha256_from(ends, family) == digest
        assert testpmd.received() == before
        # Uploads, too: large segments in the other direction.
        clients.http_put(ends.client, VIPS[family], "/upload/file", ends.files / "file")
        assert servers.sha256(ends.web.uploaded("file")) == digest
        assert testpmd.received() == before
        assert testpmd.quit() == 0


def tunnel_rules() -> list[str]:
    """Everything from the wire is decapsulated, everything to the overlay's client is encapsulated."""
    rules = [
        "flow create 0 transfer pattern eth / ipv4 dst is 10.0.255.254 / udp dst is 4789 / vxlan vni is 42 / end "
        "actions vxlan_decap / represented_port ethdev_port_id 1 / end"
    ]
    for pattern in ("ipv4 dst is 10.9.0.2", "ipv6 dst is fd00:9::2"):
        rules.append(
            f"flow create 1 transfer pattern eth / {pattern} / end actions vxlan_encap / "
            "represented_port ethdev_port_id 0 / end"
        )
    return rules


@FAMILIES
def test_a_tunnel_whose_far_end_is_the_kernel(tmp_path, family):
    """The client's kernel speaks VXLAN; the server does not know of it."""
    client, server = ("10.9.0.2", "10.9.0.3") if family == 4 else ("fd00:9::2", "fd00:9::3")
    bits = 24 if family == 4 else 64
    with IdleTestpmd(tmp_path, devargs="dv_flow_en=1") as testpmd:
        ends = testpmd.ends
        testpmd.command(
            "set vxlan ip-version ipv4 vni 42 udp-src 0 udp-dst 4789 ip-src 10.0.255.254 ip-dst 10.0.0.2 "
            f"eth-src {GATEWAY} eth-dst {CLIENT_MAC}"
        )
        create(testpmd, [*QUIET, *tunnel_rules()])
        ends.client.ip(
            "link add vx0 address 02:00:00:00:09:02 type vxlan id 42 local 10.0.0.2 remote 10.0.255.254 dstport 4789",
            "link set vx0 addrgenmode none mtu 1450 up",
        )
        unload(ends.client, "vx0")
        nodad = "nodad" if family == 6 else ""
        ends.client.ip(
            f"address add {client}/{bits} dev vx0 {nodad}",
            f"neigh replace {server} lladdr {SERVER_MAC} dev vx0 nud permanent",
        )
        ends.server.ip(
            f"address add {server}/{bits} dev eth0 {nodad}",
            f"neigh replace {client} lladdr 02:00:00:00:09:02 dev eth0 nud permanent",
            "link set eth0 mtu 1450",
        )
        digest = servers.make_file(ends.files / "file", 32 << 20)
        before = testpmd.received()
        assert clients.http_sha256(ends.client, server, "/files/file", timeout=120) == digest
        assert testpmd.received() == before
        assert testpmd.quit() == 0
