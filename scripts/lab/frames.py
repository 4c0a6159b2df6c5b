"""Frames by hand: sending and capturing them, pcap files, and a corpus that is mutated."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .net import Netns

ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4
# From linux/if_packet.h: the kernel takes the outer VLAN tag off and tells of it beside the frame.
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 1 << 4
AUXDATA = struct.Struct("IIIHHHH")


class Wire:
    """An interface of a namespace, as raw frames."""

    def __init__(self, netns: Netns, interface: str):
        self.socket = netns.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.socket.bind((interface, ETH_P_ALL))
        self.mac: bytes = self.socket.getsockname()[4]

    def send(self, frame: bytes) -> None:
        self.socket.send(bytes(frame))

    def receive(self, wanted: Callable[[bytes], bool], timeout: float = 2) -> bytes | None:
        """The next received frame that is `wanted`."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                frame, kind = received(self.socket)
                if kind != PACKET_OUTGOING and wanted(frame):
                    return frame
        return None

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def received(wire: socket.socket) -> tuple[bytes, int]:
    """The next frame of a packet socket with auxiliary data, its tags in place, and of which kind it is."""
    frame, beside, _, address = wire.recvmsg(65536, socket.CMSG_SPACE(AUXDATA.size))
    return _with_tag(frame, beside), address[2]


def _with_tag(frame: bytes, beside: list[tuple[int, int, bytes]]) -> bytes:
    for level, kind, data in beside:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = AUXDATA.unpack_from(data)
            if status & TP_STATUS_VLAN_VALID:
                return frame[:12] + struct.pack(">HH", tpid, tci) + frame[12:]
    return frame


def write_pcap(path: Path, frames: Iterable[bytes]) -> int:
    """Writes Ethernet frames; gives their number."""
    number = 0
    with path.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number, frame in enumerate(frames, start=1):
            out.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
    return number


def count_pcap(path: Path) -> int:
    """The number of frames in a pcap file."""
    data, at, number = path.read_bytes(), 24, 0
    while at + 16 <= len(data):
        at += 16 + struct.unpack_from("<I", data, at + 8)[0]
        number += 1
    return number


def mutations(corpus: list[bytes], number: int, seed: int) -> Iterator[bytes]:
    """`number` frames, each one of the corpus with none to a few faults put in."""
    choose = random.Random(seed)
    for _ in range(number):
        frame = bytearray(choose.choice(corpus))
        for _ in range(choose.choice((0, 1, 1, 1, 2, 3, 8))):
            _mutate(frame, choose)
        yield bytes(frame[:1514])


def _mutate(frame: bytearray, choose: random.Random) -> None:
    # Headers are where faults matter, hence the first 90 bytes.
    at = choose.randrange(min(len(frame), 90))
    match choose.randrange(7):
        case 0:
            frame[at] ^= 1 << choose.randrange(8)
        case 1:
            frame[at] = choose.choice((0, 1, 0x7F, 0x80, 0xFF))
        case 2:
            frame[at : at + 2] = choose.choice((b"\0\0", b"\xff\xff", b"\0\1", b"\x05\xdc"))
        case 3:
            del frame[max(at, 14) :]
        case 4:
            del frame[at : at + choose.randrange(1, 9)]
        case 5:
            frame[at:at] = bytes(choose.randrange(256) for _ in range(choose.randrange(1, 9)))
        case _:
            frame += bytes(choose.randrange(1400))
    if len(frame) < 14:
        frame += bytes(14 - len(frame))
