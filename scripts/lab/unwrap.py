#!/usr/bin/python3
"""The far end of tunnels, for kernels without a device for them: takes packets out, and lets them in by a TUN.

    unwrap.py ipip|gue|vxlan|geneve PORT

Runs in a backend's namespace. Whatever is not as the encapsulation's definition says is ignored.
"""

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def open_tun(name: str) -> int:
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def sockets(kind: str, port: int) -> list[socket.socket]:
    families = (socket.AF_INET, socket.AF_INET6)
    if kind == "ipip":
        return [socket.socket(family, socket.SOCK_RAW, inside) for family in families for inside in (4, 41)]
    opened = []
    for family in families:
        opened.append(socket.socket(family, socket.SOCK_DGRAM))
        if family == socket.AF_INET6:
            opened[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened[-1].bind(("", port))
    return opened


def ethernet(frame: bytes) -> bytes:
    return frame[14:] if frame[12:14] in (b"\x08\x00", b"\x86\xdd") else b""


def unwrap(kind: str, family: int, data: bytes) -> bytes:
    """The packet inside, or nothing."""
    if kind == "ipip":
        # With the outer header over IPv4 only.
        return data[(data[0] & 15) * 4 :] if family == socket.AF_INET else data
    if kind == "gue":
        return data[4:] if data[0] == 0 and data[1] in (4, 41) and data[2:4] == b"\0\0" else b""
    if kind == "vxlan":
        return ethernet(data[8:]) if data[:4] == b"\x08\0\0\0" and data[7] == 0 else b""
    return ethernet(data[8:]) if data[:4] == b"\0\0\x65\x58" and data[7] == 0 else b""


def main() -> None:
    kind, port = sys.argv[1], int(sys.argv[2])
    tun, ends = open_tun("unwrap"), sockets(kind, port)
    print("ready", flush=True)
    while True:
        for end in select.select(ends, [], [])[0]:
            if packet := unwrap(kind, end.family, end.recv(65536)):
                os.write(tun, packet)


if __name__ == "__main__":
    main()
