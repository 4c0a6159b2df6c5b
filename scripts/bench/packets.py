"""The packets of the bench against others: one 60-byte frame per flow, in an order that is shuffled once.

Flow `i` comes from 100.64.0.0 + i / 32768, port 1024 + i % 32768, and goes to port 80 of the VIP. All checksums are
right, because Millrace and Open vSwitch verify or keep them.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

VIP, VIP_PORT = bytes([192, 0, 2, 80]), 80
CLIENT_BASE, PORT_BASE, PORTS = 0x64400000, 1024, 32768
# The address of the first net_pcap or net_traffic of a process, and somebody who sends to it.
DEVICE_MAC, PEER_MAC = bytes.fromhex("027063617000"), bytes.fromhex("020000000064")
FRAME_BYTES = 60
FLOWS_MAX = (0x64800000 - CLIENT_BASE) * PORTS
SEED = 20240229

KINDS = ("tcp", "udp", "syn")
PROTOCOL = {"tcp": 6, "syn": 6, "udp": 17}
_SYN, _PSH_ACK = 0x02, 0x18


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071); 0 over data that holds a right one."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def client(flow: int) -> tuple[int, int]:
    """Address and port from which a flow comes."""
    return CLIENT_BASE + flow // PORTS, PORT_BASE + flow % PORTS


def frame(kind: str, flow: int) -> bytes:
    """The frame of a flow: a TCP data segment, a TCP SYN or a UDP datagram."""
    address, port = client(flow)
    source = struct.pack(">I", address)
    protocol = PROTOCOL[kind]
    if kind == "udp":
        segment = bytearray(struct.pack(">HHHH", port, VIP_PORT, 26, 0) + bytes(18))
        at = 6
    else:
        flags, payload, acknowledged = (_SYN, b"", 0) if kind == "syn" else (_PSH_ACK, bytes(6), 1)
        segment = bytearray(struct.pack(">HHIIBBHHH", port, VIP_PORT, 1000, acknowledged, 5 << 4, flags, 65535, 0, 0))
        segment += payload
        at = 16
    pseudo = source + VIP + struct.pack(">BBH", 0, protocol, len(segment))
    # A UDP checksum of zero would mean that there is none.
    struct.pack_into(">H", segment, at, checksum(pseudo + segment) or 0xFFFF)
    header = bytearray(struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, protocol, 0) + source + VIP)
    struct.pack_into(">H", header, 10, checksum(header))
    return (DEVICE_MAC + PEER_MAC + b"\x08\x00" + header + segment).ljust(FRAME_BYTES, b"\0")


def frames(kind: str, flows: int) -> Iterator[bytes]:
    """One frame of every flow, in shuffled order: the same at every run."""
    order = list(range(flows))
    random.Random(SEED).shuffle(order)
    return (frame(kind, flow) for flow in order)


def read_pcap(data: bytes) -> list[bytes]:
    """The frames of the beginning of a pcap file as a little-endian machine writes it."""
    found, at = [], 24
    while at + 16 <= len(data):
        end = at + 16 + struct.unpack_from("<I", data, at + 8)[0]
        if end <= len(data):
            found.append(data[at + 16 : end])
        at = end
    return found


def is_ipv4(data: bytes) -> bool:
    """Whether a frame says so."""
    return data[12:14] == b"\x08\x00"


def addresses(data: bytes) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    """Address and port of source and destination of a frame of TCP or UDP over IPv4."""
    source, destination = struct.unpack_from(">HH", data, 34)
    return (data[26:30], source), (data[30:34], destination)


def is_sound(data: bytes) -> bool:
    """Whether the checksums of a frame of TCP or UDP over IPv4 are right."""
    length = struct.unpack_from(">H", data, 16)[0]
    header, segment = data[14:34], data[34 : 14 + length]
    pseudo = header[12:20] + struct.pack(">BBH", 0, header[9], len(segment))
    return checksum(header) == 0 and checksum(pseudo + segment) == 0
