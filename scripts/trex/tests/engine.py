"""TRex's field engine, as much of it as the profiles use: makes the packets of a compiled stream, one by one.

It works on what the client sends to a server (`to_json`), so what is looked at is what a server would be told.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator

SIZES = {1: 1, 2: 2, 4: 4, 8: 8}


def packets(stream, count: int) -> Iterator[bytes]:
    """The first packets of a stream."""
    told = stream.to_json()
    frame = base64.b64decode(told["packet"]["binary"])
    program = told["vm"].get("instructions", [])
    state, chance = _Variables(program), random.Random(1)
    for _ in range(count):
        packet = bytearray(frame)
        state.step(chance)
        for instruction in program:
            _do(instruction, packet, state)
        yield bytes(packet)


class _Variables:
    """Variables, each of which has its next value with each packet."""

    def __init__(self, program: list[dict]):
        self._made = [one for one in program if one["type"] in ("flow_var", "tuple_flow_var")]
        self.values: dict[str, tuple[int, int]] = {}

    def step(self, chance: random.Random) -> None:
        for one in self._made:
            if one["type"] == "tuple_flow_var":
                self._tuple(one)
            else:
                assert one["op"] == "random", "the profiles have no other"
                value = chance.randint(one["min_value"], one["max_value"])
                self.values[one["name"]] = (value, one["size"])

    def _tuple(self, one: dict) -> None:
        """Each address in turn, and the next port once all had one."""
        name = one["name"]
        ip, port = self.values.get(f"{name}.ip"), self.values.get(f"{name}.port")
        if ip is None:
            ip, port = one["ip_min"], one["port_min"]
        elif ip[0] < one["ip_max"]:
            ip, port = ip[0] + 1, port[0]
        else:
            ip, port = one["ip_min"], port[0] + 1 if port[0] < one["port_max"] else one["port_min"]
        self.values[f"{name}.ip"], self.values[f"{name}.port"] = (ip, 4), (port, 2)


def _do(instruction: dict, packet: bytearray, state: _Variables) -> None:
    kind = instruction["type"]
    if kind == "write_flow_var":
        value, size = state.values[instruction["name"]]
        assert instruction["is_big_endian"] and not instruction["add_value"]
        at = instruction["pkt_offset"]
        packet[at : at + size] = value.to_bytes(size, "big")
    elif kind == "fix_checksum_ipv4":
        _fix_ipv4(packet, instruction["pkt_offset"])
    elif kind == "fix_checksum_hw":
        at = instruction["l2_len"]
        _fix_ipv4(packet, at)
        _fix_tcp(packet, at, at + instruction["l3_len"])
    else:
        assert kind in ("flow_var", "tuple_flow_var"), f"an instruction the profiles have not: {kind}"


def _sum(data: bytes) -> int:
    data = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _fix_ipv4(packet: bytearray, at: int) -> None:
    packet[at + 10 : at + 12] = b"\0\0"
    packet[at + 10 : at + 12] = (0xFFFF - _sum(packet[at : at + 20])).to_bytes(2, "big")


def _fix_tcp(packet: bytearray, ip: int, tcp: int) -> None:
    end = ip + int.from_bytes(packet[ip + 2 : ip + 4], "big")
    packet[tcp + 16 : tcp + 18] = b"\0\0"
    pseudo = packet[ip + 12 : ip + 20] + bytes([0, 6]) + (end - tcp).to_bytes(2, "big")
    packet[tcp + 16 : tcp + 18] = (0xFFFF - _sum(bytes(pseudo) + packet[tcp:end])).to_bytes(2, "big")
