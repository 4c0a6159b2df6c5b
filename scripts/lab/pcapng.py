"""What a pcapng file says: only what libpcap and scapy leave out of it, and the packets with it."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

INTERFACE, STATISTICS, PACKET = 1, 5, 6


@dataclasses.dataclass(frozen=True)
class Packet:
    interface: str
    nanoseconds: int
    inbound: bool
    comment: str
    length: int
    frame: bytes


def padded(length: int) -> int:
    return (length + 3) // 4 * 4


def options(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from("<HH", data, at)
        if code == 0:
            break
        found[code] = data[at + 4 : at + 4 + length]
        at += 4 + padded(length)
    return found


def read(path: Path) -> tuple[list[Packet], dict[str, int]]:
    """The packets, and by interface how many were lost."""
    data, at = path.read_bytes(), 0
    names, packets, lost = [], [], {}
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + length - 4]
        assert struct.unpack_from("<I", data, at + length - 4) == (length,), f"a torn block at {at}"
        at += length
        if kind == INTERFACE:
            names.append(options(body[8:])[2].decode())
        elif kind == PACKET:
            number, high, low, captured, whole = struct.unpack_from("<IIIII", body)
            about = options(body[20 + padded(captured) :])
            (flags,) = struct.unpack("<I", about[2])
            assert flags & 3 in (1, 2), flags
            comment = about.get(1, b"").decode()
            frame = body[20 : 20 + captured]
            packets.append(Packet(names[number], high << 32 | low, flags & 3 == 1, comment, whole, frame))
        elif kind == STATISTICS:
            (number,) = struct.unpack_from("<I", body)
            (lost[names[number]],) = struct.unpack("<Q", options(body[12:])[5])
    return packets, lost
