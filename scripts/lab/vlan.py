#!/usr/bin/python3
"""A VLAN device for kernels without one: a TAP whose frames travel by a link with one tag.

    vlan.py LINK ID NAME MAC

Runs in a host's namespace, where nothing else uses the link.
"""

import fcntl
import os
import select
import socket
import struct
import sys

from frames import ETH_P_ALL, PACKET_AUXDATA, PACKET_OUTGOING, SOL_PACKET, received

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
SIOCSIFHWADDR, ARPHRD_ETHER = 0x8924, 1


def open_tap(name: str, mac: bytes) -> int:
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH6s16x", name.encode(), ARPHRD_ETHER, mac)
        fcntl.ioctl(any_socket, SIOCSIFHWADDR, request)
    return tap


def main() -> None:
    link, number, name, mac = sys.argv[1:]
    tag = struct.pack(">HH", 0x8100, int(number))
    tap = open_tap(name, bytes.fromhex(mac.replace(":", "")))
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.bind((link, ETH_P_ALL))
    print("ready", flush=True)
    while True:
        for ready in select.select([tap, wire], [], [])[0]:
            if ready == tap:
                frame = os.read(tap, 65536)
                wire.send(frame[:12] + tag + frame[12:])
                continue
            frame, kind = received(wire)
            if kind != PACKET_OUTGOING and frame[12:14] == tag[:2] and frame[14] & 15 == tag[2] and frame[15] == tag[3]:
                os.write(tap, frame[:12] + frame[16:])


if __name__ == "__main__":
    main()
