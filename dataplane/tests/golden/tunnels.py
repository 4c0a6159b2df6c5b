#!/usr/bin/python3
"""Writes tunnels.txt beside it: what each tunnel makes of a packet, according to scapy.

A line is the encapsulation, the backend, DSCP and ECN of the packet, and the frame.
"""

from pathlib import Path

from scapy.all import IP, TCP, UDP, VXLAN, Ether, IPv6, Raw, raw
from scapy.contrib.geneve import GENEVE

MILLRACE, BACKEND, INNER = "02:00:00:00:00:02", "02:00:00:00:02:11", "02:00:00:00:00:77"
# What Millrace makes of the flow, pinned: another node must make the same of it.
ENTROPY = 0x2ADA
ENTROPY6 = 0xA656


def inner(family: int, tos: int):
    if family == 4:
        ip = IP(src="198.51.100.7", dst="192.0.2.90", ttl=63, id=77, tos=tos)
    else:
        ip = IPv6(src="2001:db8:1::7", dst="2001:db8::90", hlim=63, tc=tos)
    return ip / TCP(sport=40000, dport=80, flags="A", seq=1000, ack=2000, window=8192) / Raw(b"hello")


def outer(family: int, tos: int, entropy: int):
    if family == 4:
        return IP(src="10.0.1.1", dst="10.0.1.11", ttl=64, id=0, flags="DF", tos=tos)
    return IPv6(src="fd00:2::1", dst="fd00:2::11", hlim=64, tc=tos, fl=0x10000 | entropy)


def tunnel(kind: str, family: int, packet, entropy: int):
    """The headers between the outer IP header and the packet, and the packet."""
    ethernet = Ether(src=MILLRACE, dst=INNER) / packet
    udp = UDP(sport=0xC000 | entropy, dport={"gue": 6080, "vxlan": 4789, "geneve": 6081}.get(kind, 0))
    if family == 4:
        udp.chksum = 0
    shim = {
        "ipip": packet,
        "gue": Raw(bytes([0, 4 if IP in packet else 41, 0, 0])) / packet,
        "vxlan": VXLAN(vni=77, flags="Instance") / ethernet,
        "geneve": GENEVE(vni=77, proto=0x6558) / ethernet,
    }[kind]
    return shim if kind == "ipip" else udp / shim


def lines():
    for kind in ("ipip", "gue", "vxlan", "geneve"):
        for outside in (4, 6):
            for inside in (4, 6):
                for tos in (0x00, 0xBA, 0x03):
                    entropy = ENTROPY if inside == 4 else ENTROPY6
                    packet = tunnel(kind, outside, inner(inside, tos), entropy)
                    frame = Ether(src=MILLRACE, dst=BACKEND) / outer(outside, tos, entropy) / packet
                    yield f"{kind} v{outside} v{inside} {tos:#04x} {raw(frame).hex()}"


if __name__ == "__main__":
    Path(__file__).with_name("tunnels.txt").write_text("\n".join(lines()) + "\n")
