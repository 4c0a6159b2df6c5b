"""Ports behind tunnels: the kernel's own VXLAN devices, or packets that scapy makes, are the clients' side."""

import pytest
from lab import clients
from lab.frames import Wire
from lab.millrace import service
from lab.net import wait_until
from lab.topology import BACK4, CLIENT4, CLIENT6, FRONT4, FRONT6, VIP4, Shape, backend4
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

VNI = {"blue": 100, "red": 200}
# Outside of blue's tunnel is IPv4, of red's IPv6.
ENDS = {"blue": (CLIENT4, FRONT4), "red": (CLIENT6, FRONT6)}
VIP = VIP4.format(1)
INNER_MAC = "02:00:00:00:00:77"


def tenant_port(tenant: str, kind: str = "vxlan") -> dict:
    return {
        "name": tenant,
        "parent": "front",
        "tenant": tenant,
        "addresses": ["172.16.0.1/24"],
        "tunnel": {"kind": kind, "vni": VNI[tenant], "remote": ENDS[tenant][0]},
    }


def back_port(tenant: str, n: int) -> dict:
    port = {"name": f"back-{tenant}", "parent": "back", "tenant": tenant, "addresses": ["10.77.0.1/24"]}
    return port | {"tunnel": {"kind": "vxlan", "vni": n, "remote": backend4(n), "port": 8472}}


def start(lab, tunnels: list[dict]):
    """Millrace with tenants behind tunnels; each has its own backend of the same address, behind a tunnel, too."""
    tenants = [port["tenant"] for port in tunnels]
    for n, netns in enumerate(lab.network.backends, start=1):
        netns.ip(
            f"link add tun type vxlan id {n} dstport 8472 local {backend4(n)} remote {BACK4} nolearning",
            "link set tun up",
            "addr add 10.77.0.11/24 dev tun",
            "route replace default via 10.77.0.1 dev tun",
        )
    services = [service(f"web-{tenant}", 1, tenant=tenant, backends=()) for tenant in tenants]
    for one in services:
        one["backend"] = [{"address": "10.77.0.11"}]
    return lab.start_millrace(
        services,
        port=tunnels + [back_port(tenant, n) for n, tenant in enumerate(tenants, start=1)],
        tenant=[{"name": tenant} for tenant in tenants],
    )


def add_client(lab, tenant: str):
    """A namespace of the tenant's, whose only way out is its tunnel."""
    client, far, near = lab.client, *ENDS[tenant]
    client.ip(
        f"link add {tenant} type vxlan id {VNI[tenant]} dstport 4789 local {far} remote {near} nolearning",
        f"link set {tenant} address 02:00:00:00:77:{VNI[tenant]:02x} up",
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_tenants_with_the_same_addresses_reach_their_own(labs, workers):
    lab = labs(Shape(backends=2), workers=workers)
    # One client cannot hold the same address twice: it has it in one tunnel, and then in the other.
    for tenant in VNI:
        add_client(lab, tenant)
    millrace = start(lab, [tenant_port("blue"), tenant_port("red")])
    macs = {row["name"]: row["mac"] for row in millrace.show("ports")}
    assert len({macs["front"], macs["blue"], macs["red"]}) == 3
    for tenant, backend in [("blue", "b1"), ("red", "b2"), ("blue", "b1")]:
        lab.client.ip(
            f"addr add 172.16.0.7/24 dev {tenant}",
            f"route replace 203.0.113.0/24 via 172.16.0.1 dev {tenant} src 172.16.0.7",
        )
        assert set(clients.count_answers(lab.client, VIP, 40)) == {backend}
        lab.client.run(["ping", "-c", "2", "-i", "0.2", "-W", "2", "172.16.0.1"])
        # Segments as long as fit into the tunnel, and requests longer than that.
        assert clients.http_get(lab.client, VIP, "/", "-H", "X-Long: " + 5000 * "x") == backend
        lab.client.ip(f"addr del 172.16.0.7/24 dev {tenant}")
    metrics = millrace.at_rest()
    lost = metrics.by("drops_total", "reason")
    assert not {reason for reason in lost if reason.startswith("tunnel")}, lost
    mtus = {row["name"]: row["mtu"] for row in millrace.show("ports")}
    assert (mtus["blue"], mtus["red"]) == (mtus["front"] - 50, mtus["front"] - 70)


def test_packets_made_by_scapy_are_taken_out_of_geneve(labs):
    lab = labs(Shape(backends=2))
    millrace = start(lab, [tenant_port("blue", "geneve"), tenant_port("red", "geneve")])
    macs = {row["name"]: row["mac"] for row in millrace.show("ports")}

    def wrapped(tenant: str, payload, **geneve) -> bytes:
        far, near = ENDS[tenant]
        outside = IP(src=far, dst=near) if tenant == "blue" else IPv6(src=far, dst=near)
        around = Ether(dst=macs["front"], src="02:00:00:00:01:10") / outside / UDP(sport=50000, dport=6081)
        shim = GENEVE(**{"vni": VNI[tenant], "proto": 0x6558} | geneve)
        return bytes(around / shim / Ether(src=INNER_MAC, dst=macs[tenant]) / payload)

    def syn(port: int):
        return IP(src="172.16.0.7", dst=VIP) / TCP(sport=port, dport=80, flags="S", seq=1)

    def is_answer(frame: bytes) -> bool:
        packet = Ether(frame)
        return GENEVE in packet and TCP in packet

    with Wire(lab.client, "eth0") as wire:
        for tenant in VNI:
            # Who asks is known from then on.
            wire.send(wrapped(tenant, ARP(op=1, hwsrc=INNER_MAC, psrc="172.16.0.7", pdst="172.16.0.1")))
            wire.send(wrapped(tenant, syn(4000)))
            answer = wire.receive(is_answer, timeout=5)
            assert answer, millrace.metrics().by("drops_total", "reason")
            packet = Ether(answer)
            assert packet[GENEVE].vni == VNI[tenant] and packet[TCP].flags == "SA"
            inner = packet[GENEVE].payload
            assert (inner.src, inner.dst) == (macs[tenant], INNER_MAC)
            assert (inner[IP].src, inner[IP].dst) == (VIP, "172.16.0.7")
        wire.send(wrapped("blue", syn(4001), critical=1))
        wire.send(wrapped("blue", syn(4002), vni=101))
        wire.send(wrapped("red", syn(4003), vni=100))
    lost = {"tunnel_option": 1, "tunnel_remote": 1, "tunnel_network": 1}
    wait_until("the drops", lambda: all(millrace.metrics().sum("drops_total", reason=r) == n for r, n in lost.items()))
