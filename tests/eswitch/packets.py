"""The frames that the scripts of this directory speak of, made by scapy, which shares nothing with the device.

A frame's name says what it is; behind a dot stands what a rule was to make of it. scapy computes lengths and
checksums of all of them anew.
"""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import GRE, Dot1Q, Ether
from scapy.packet import Packet, Raw

CLIENT_MAC, SERVER_MAC = "02:00:00:00:00:0c", "02:00:00:00:00:05"
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


def frames() -> dict[str, bytes]:
    """All of them, as bytes."""
    return {name: bytes(packet) for part in (basics,) for name, packet in part().items()}
