"""The frames that the scripts of this directory speak of, made by scapy, which shares nothing with the device.

A frame's name says what it is; behind a dot stands what a rule was to make of it. scapy computes lengths and
checksums of all of them anew.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

CLIENT_MAC, SERVER_MAC = "02:00:00:00:00:0c", "02:00:00:00:00:05"
OWN_MAC, BACKEND_MAC = "02:00:00:00:00:01", "02:00:00:00:00:b1"
PAYLOAD = Raw(b"what the packet is about")

ETHER = Ether(src=CLIENT_MAC, dst=SERVER_MAC)


def ip(**fields: object) -> IP:
    return IP(**{"src": "192.0.2.10", "dst": "203.0.113.1", "ttl": 64, "id": 7, **fields})


def ip6(**fields: object) -> IPv6:
    return IPv6(**{"src": "2001:db8:f::10", "dst": "2001:db8:5e::1", "hlim": 64, **fields})


def tcp(**fields: object) -> TCP:
    return TCP(**{"sport": 40000, "dport": 80, "flags": "A", "seq": 5, "ack": 6, **fields}) / PAYLOAD


def udp(**fields: object) -> UDP:
    return UDP(**{"sport": 40000, "dport": 53, **fields}) / PAYLOAD


def basics() -> dict[str, Packet]:
    """What clients send."""
    return {
        "tcp": ETHER / ip() / tcp(),
        "udp": ETHER / ip() / udp(),
        "tcp6": ETHER / ip6() / tcp(),
        "udp6": ETHER / ip6() / udp(),
        "syn": ETHER / ip() / TCP(sport=40000, dport=80, flags="S", seq=4),
        "icmp": ETHER / ip() / ICMP(id=3, seq=4) / PAYLOAD,
        "icmp6": ETHER / ip6() / ICMPv6EchoRequest(id=3, seq=4, data=b"ping"),
        "unknown": Ether(src=CLIENT_MAC, dst=SERVER_MAC, type=0x88B5) / PAYLOAD,
        "tagged": ETHER / Dot1Q(vlan=5, prio=3) / ip() / tcp(),
        "broadcast": Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / PAYLOAD,
        "gre": ETHER / ip(src="192.0.2.20", dst="192.0.2.21") / GRE() / ip() / tcp(),
    }


def rewritten() -> dict[str, Packet]:
    """Addresses, ports and TTLs translated towards a backend and back."""
    towards, back = Ether(src=OWN_MAC, dst=BACKEND_MAC), Ether(src=OWN_MAC, dst=CLIENT_MAC)
    answer, answer6 = ip(src="198.51.100.11", dst="192.0.2.10"), ip6(src="2001:db8:b::11", dst="2001:db8:f::10")
    nat, nat6 = ip(dst="198.51.100.11", ttl=63), ip6(dst="2001:db8:b::11", hlim=63)
    # A UDP checksum of 0 says that there is none: nothing may make one up.
    unsummed = {"tcp": ETHER / ip() / udp(sport=40001, chksum=0), "nat": towards / nat / udp(sport=40001, dport=5353)}
    unsummed["nat"][UDP].chksum = 0
    return {
        "tcp.nat": towards / nat / tcp(dport=8080),
        "tcp.nat12": towards / ip(dst="198.51.100.12", ttl=63) / tcp(dport=8080),
        "tcp.sent": towards / ip(ttl=63) / tcp(),
        "udp.nat": towards / nat / udp(dport=5353),
        "tcp6.nat": towards / nat6 / tcp(dport=8080),
        "tcp6.moved": ETHER / nat6 / tcp(),
        "udp6.nat": towards / nat6 / udp(dport=5353),
        "answer": Ether(src=BACKEND_MAC, dst=OWN_MAC) / answer / tcp(sport=8080, dport=40000),
        "answer.nat": back / ip(src="203.0.113.1", dst="192.0.2.10", ttl=63) / tcp(sport=80, dport=40000),
        "answer6": Ether(src=BACKEND_MAC, dst=OWN_MAC) / answer6 / tcp(sport=8080, dport=40000),
        "answer6.nat": back / ip6(src="2001:db8:5e::1", dst="2001:db8:f::10", hlim=63) / tcp(sport=80, dport=40000),
        "udp0": unsummed["tcp"],
        "udp0.nat": unsummed["nat"],
        "ttl0": ETHER / ip(ttl=0) / tcp(sport=40002),
        "ttl0.dec": ETHER / ip(ttl=255) / tcp(sport=40002),
        "ttl0.set": ETHER / ip(ttl=9) / tcp(sport=40002),
        "options": ETHER / ip(options=[IPOption_Router_Alert()]) / tcp(),
        "options.nat": towards / ip(dst="198.51.100.11", ttl=63, options=[IPOption_Router_Alert()]) / tcp(dport=8080),
        "dscp": ETHER / ip(tos=46 << 2) / tcp(),
        "dscp6": ETHER / ip6(tc=46 << 2) / tcp(),
        "seq": ETHER / ip() / tcp(seq=5 + 256, ack=6 - 1),
        "fields": Ether(src=OWN_MAC, dst=SERVER_MAC) / ip(src="192.0.2.99", ttl=9) / tcp(sport=4660, dport=81),
    }


def fragments() -> dict[str, Packet]:
    """A datagram in two pieces, and the pieces of the same to another address: the checksum is in the first."""
    made = {}
    for suffix, dst in (("", "203.0.113.1"), (".moved", "198.51.100.11")):
        whole = ip(dst=dst) / UDP(sport=40000, dport=53) / Raw(bytes(range(200)))
        first, later = fragment(IP(bytes(whole)), 128)
        made |= {f"first{suffix}": ETHER / first, f"later{suffix}": ETHER / later}
    return made


def vlans() -> dict[str, Packet]:
    """Tags pushed, popped and set."""
    inner = ip() / tcp()
    return {
        "tcp.pushed": ETHER / Dot1Q(vlan=7, prio=5) / inner,
        "udp.pushed": ETHER / Dot1Q(vlan=7, prio=5) / ip() / udp(),
        "tcp.pushed.ad": Ether(src=CLIENT_MAC, dst=SERVER_MAC, type=0x88A8) / Dot1Q(vlan=7) / inner,
        "tagged.popped": ETHER / inner,
        "tagged.set": ETHER / Dot1Q(vlan=9, prio=3) / inner,
        "tagged6": ETHER / Dot1Q(vlan=6) / inner,
        "double": ETHER / Dot1Q(vlan=8) / Dot1Q(vlan=5, prio=3) / inner,
        "service": Ether(src=CLIENT_MAC, dst=SERVER_MAC, type=0x88A8) / Dot1Q(vlan=8) / Dot1Q(vlan=5, prio=3) / inner,
        "double.popped": ETHER / Dot1Q(vlan=5, prio=3) / inner,
        "tagged.pushed": ETHER / Dot1Q(vlan=7, prio=5) / Dot1Q(vlan=5, prio=3) / inner,
    }


def tunnels() -> dict[str, Packet]:
    """Packets of the basics behind outer headers, and without them."""
    outer = Ether(src=OWN_MAC, dst=BACKEND_MAC)
    path = {"src": "192.0.2.1", "dst": "198.51.100.21", "id": 0}
    path6 = {"src": "2001:db8:f::1", "dst": "2001:db8:b::21", "hlim": 255}
    inner, inner6 = ETHER / ip() / tcp(), ETHER / ip6() / tcp()
    sport, sport6 = entropy(inner[IP].dst, inner[IP].src), entropy(inner6[IPv6].dst, inner6[IPv6].src)
    vxlan, geneve = VXLAN(vni=7, flags="Instance"), GENEVE(vni=9, proto=0x6558)
    return {
        "tcp.vxlan": outer / IP(**path) / UDP(sport=sport, dport=4789, chksum=0) / vxlan / inner,
        "tcp.vxlan6": outer / IPv6(**path6) / UDP(sport=sport, dport=4789, chksum=0) / vxlan / inner,
        "tcp6.vxlan": outer / IP(**path) / UDP(sport=sport6, dport=4789, chksum=0) / vxlan / inner6,
        "tcp.geneve": outer / IP(**path) / UDP(sport=sport, dport=6081, chksum=0) / geneve / inner,
        "tcp.nvgre": outer / IP(**path) / GRE(proto=0x6558) / inner,
        "tcp.gre": outer / IP(**path) / GRE(proto=0x0800) / inner[IP],
        "tcp6.gre": outer / IP(**path) / GRE(proto=0x86DD) / inner6[IPv6],
        "tcp.routed": outer / inner[IP],
    }


def entropy(dst: str, src: str) -> int:
    """The outer UDP source port of a tunnel for `tcp` between these: a CRC, 0x1100b its polynomial."""
    addresses = [ip_address(address).packed.rjust(16, b"\0") for address in (dst, src)]
    message = b"".join(addresses) + struct.pack(">BHH", 6, 80, 40000)
    rest = int.from_bytes(message, "big") << 16
    while rest >> 16:
        rest ^= 0x1100B << rest.bit_length() - 17
    return rest | 0xC000


def groups() -> dict[str, Packet]:
    """What rules in groups tell apart, and the marks that show which of them was hit."""
    return {
        **{f"tcp{n}": ETHER / ip() / tcp(sport=40000 + n) for n in range(1, 5)},
        **{f"tcp{n}.via{m}": via(m, ip() / tcp(sport=40000 + n)) for n in range(1, 5) for m in range(1, 5)},
        "tcp.via1": via(1, ip() / tcp()),
        "tcp.via2": via(2, ip() / tcp()),
        "udp.via1": via(1, ip() / udp()),
        "udp.via2": via(2, ip() / udp()),
        "tcp6.via1": via(1, ip6() / tcp()),
    }


def via(number: int, packet: Packet) -> Packet:
    """With a source address that only one rule sets."""
    return Ether(src=f"02:00:00:00:01:{number:02x}", dst=SERVER_MAC) / packet


def frames() -> dict[str, bytes]:
    """All of them, as bytes."""
    parts = (basics, rewritten, fragments, vlans, tunnels, groups)
    made = [(name, bytes(packet)) for part in parts for name, packet in part().items()]
    assert len(dict(made)) == len(made), "two frames of one name"
    return dict(made)
