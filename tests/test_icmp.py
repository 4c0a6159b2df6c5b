"""What Millrace itself says, and what others say about its connections: ARP, ND, ping, ICMP errors, fragments."""

import socket
import struct
import threading

import pytest
from lab import clients
from lab.frames import Wire
from lab.millrace import service
from lab.net import wait_until
from lab.servers import Echo
from lab.topology import CLIENT4, CLIENT6, FRONT4, FRONT6, VIP4, VIP6, Shape
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether

FAMILIES = pytest.mark.parametrize("family", [4, 6])
MILLRACE_MAC = "02:00:00:00:01:01"
IP_RECVERR, IPV6_RECVERR = 11, 25


def vip(family: int) -> str:
    return (VIP4 if family == 4 else VIP6).format(1)


def af(family: int) -> int:
    return socket.AF_INET if family == 4 else socket.AF_INET6


def udp(lab, family: int, port: int) -> socket.socket:
    """A client's UDP socket, connected to the VIP, that keeps ICMP errors."""
    made = lab.client.socket(af(family), socket.SOCK_DGRAM)
    if family == 4:
        made.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    made.settimeout(3)
    made.connect((vip(family), port))
    return made


def echo_service(family: int) -> dict:
    return service("echo", 1, 7, family=family, protocol="udp", backends=[1])


@FAMILIES
def test_vips_and_port_addresses_answer_ping(labs, family):
    lab = labs(servers=False)
    lab.start_millrace([service("web", 1, family=family)])
    for address in (vip(family), FRONT4 if family == 4 else FRONT6):
        for size in (8, 56, 1400):
            lab.client.run(["ping", "-c", "2", "-i", "0.05", "-W", "2", "-s", str(size), address])
    backend = lab.network.backends[0]
    backend.run(["ping", "-c", "2", "-i", "0.05", "-W", "2", "198.51.100.1" if family == 4 else "2001:db8:b::1"])


def test_a_vip_on_the_link_is_answered_for(labs):
    """A VIP of the clients' own network is found by ARP and ND."""
    lab = labs()
    on_link = {4: "192.0.2.100", 6: "2001:db8:f::100"}
    services = []
    for family, address in on_link.items():
        services.append({**service(f"web{family}", 1, family=family), "vip": address})
    lab.start_millrace(services)
    for address in on_link.values():
        assert clients.count_answers(lab.client, address, 20).total() == 20
        assert MILLRACE_MAC in lab.client.run(["ip", "neigh", "show", address])


@FAMILIES
def test_ttl_expiry_names_millrace(labs, family):
    lab = labs()
    millrace = lab.start_millrace([echo_service(family)])
    client = udp(lab, family, 7)
    if family == 4:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    else:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
    client.send(b"short-lived")
    origin, kind, offender = wait_until("the ICMP error", lambda: queued_error(client, family))
    assert (origin, kind) == ((2, 11) if family == 4 else (3, 3))
    assert offender == (FRONT4 if family == 4 else FRONT6)
    assert millrace.metrics().sum("drops_total", reason="ttl_expired") == 1


def queued_error(client: socket.socket, family: int) -> tuple[int, int, str] | None:
    """Origin, ICMP type and sender of the first queued error (struct sock_extended_err)."""
    try:
        _, control, _, _ = client.recvmsg(2048, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    data = control[0][2]
    _, origin, kind = struct.unpack_from("=IBB", data)
    offender = data[20:24] if family == 4 else data[24:40]
    return origin, kind, socket.inet_ntop(af(family), offender)


@FAMILIES
def test_a_backends_port_unreachable_reaches_the_client(labs, family):
    """Nobody listens on the backend's port: the client's kernel must recognise its own datagram in what the
    backend's ICMP error quotes."""
    lab = labs()
    lab.start_millrace([service("closed", 1, 9, family=family, protocol="udp", backends=[1])])
    client = udp(lab, family, 9)
    with pytest.raises(ConnectionRefusedError):
        for _ in range(3):
            client.send(b"anybody?")
            client.recv(100)


@FAMILIES
def test_a_routers_too_big_reaches_the_backend(labs, family):
    """A router on the client's side says that a reply was too big: the backend's kernel must believe it."""
    lab = labs()
    Echo(lab.network.backends[0])
    lab.start_millrace([echo_service(family)])
    client = udp(lab, family, 7)
    client.send(b"x" * 1200)
    assert client.recv(2000) == b"x" * 1200
    port = client.getsockname()[1]
    with Wire(lab.client, "eth0") as wire:
        wire.send(bytes(too_big(family, port, wire.mac)))
    target = CLIENT4 if family == 4 else CLIENT6
    backend = lab.network.backends[0]
    wait_until("the backend to lower its path MTU", lambda: "mtu 1300" in backend.run(["ip", "route", "get", target]))


def too_big(family: int, port: int, mac: bytes):
    """The ICMP error, quoting a reply as it was on the client's side of Millrace."""
    ether = Ether(src=mac, dst=MILLRACE_MAC)
    quoted = UDP(sport=7, dport=port) / (b"x" * 1200)
    if family == 4:
        quote = bytes(IP(src=vip(4), dst=CLIENT4, flags="DF") / quoted)
        return ether / IP(src=CLIENT4, dst=vip(4)) / ICMP(type=3, code=4, nexthopmtu=1300) / quote[:500]
    quote = bytes(IPv6(src=vip(6), dst=CLIENT6) / quoted)
    return ether / IPv6(src=CLIENT6, dst=vip(6)) / ICMPv6PacketTooBig(mtu=1300) / quote[:500]


# net_af_packet asks the kernel to reassemble IPv4 fragments, and then cannot hold them; af_xdp does not.
@pytest.mark.parametrize("family, driver", [(4, "af_xdp"), (6, "af_xdp"), (6, "af_packet")])
def test_fragmented_datagrams_pass_both_ways(labs, family, driver):
    lab = labs(driver=driver)
    Echo(lab.network.backends[0])
    dns = service("dns", 1, 53, family=family, protocol="udp")
    lab.start_millrace([echo_service(family), dns])
    client = udp(lab, family, 7)
    for size in (1473, 2000, 4000, 9000):
        client.send(bytes(size))
        assert len(client.recv(65536)) == size
    assert len(clients.dig(lab.client, vip(family), "big.lab", "+bufsize=4096", "+ignore")) == 3000


def test_icmp_is_rate_limited(labs):
    lab = labs(Shape(backends=1), servers=False)
    millrace = lab.start_millrace([echo_service(4)], limits={"icmp_per_second": 50})
    frame = Ether(dst=MILLRACE_MAC) / IP(src=CLIENT4, dst=vip(4), ttl=1) / UDP(sport=1, dport=7) / b"x"
    with Wire(lab.client, "eth0") as wire:
        frame.src = ":".join(f"{byte:02x}" for byte in wire.mac)
        sending = threading.Thread(target=lambda: [wire.send(bytes(frame)) for _ in range(1000)])
        sending.start()
        sending.join()
    drops = millrace.at_rest().by("drops_total", "reason")
    assert drops.get("ttl_expired", 0) + drops.get("rate_limited", 0) >= 1000
    answers = int(lab.client.run(["nstat", "-asz", "IcmpInTimeExcds"]).split()[-2])
    assert 0 < answers <= 200
