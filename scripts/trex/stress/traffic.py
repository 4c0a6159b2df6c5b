"""What kinds of load there are, without anybody's API: each generator makes of this what it can.

Stateless load is a mix of frames that many clients send to the VIP; nobody answers, or the answers do not depend on
what came. Stateful load is conversations between clients and servers that run TCP themselves.
"""

from __future__ import annotations

import dataclasses

from .layers import ETHERNET, FRAME_MIN, IPV4, TCP, UDP, Size, mean, udp_frame

# Payloads of the sweep. 22 and 23 are around the size at which XenoFlow's curve has its step; 18 is the smallest that
# needs no padding; 1472 fills an MTU of 1500.
SWEEP = (0, 18, 22, 23, 64, 128, 256, 512, 1024, 1472)
PAYLOAD_MAX = 1472
# Simple IMIX: frames with FCS of 64, 594 and 1518 bytes, 7:4:1.
IMIX = ((7, 18), (4, 548), (1, 1472))
LATENCY_PPS = 1000
QUERY_NAME = "www.example.org"


def dns_query(name: str = QUERY_NAME, number: int = 0x4D52) -> bytes:
    """A DNS query for an address (RFC 1035, 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    header = number.to_bytes(2, "big") + bytes.fromhex("01000001000000000000")
    return header + labels + bytes.fromhex("0000010001")


def dns_answer(name: str = QUERY_NAME, number: int = 0x4D52, address: bytes = bytes([192, 0, 2, 1])) -> bytes:
    """Its answer, with one address."""
    query = dns_query(name, number)
    return query[:2] + bytes.fromhex("81800001000100000000") + query[12:] + bytes.fromhex(
        "c00c000100010000012c0004"
    ) + address


@dataclasses.dataclass(frozen=True)
class Part:
    """One kind of packet in a mix."""

    weight: float
    """Of its packets among all."""
    protocol: str
    """`udp`, `dns`, `syn`, or `fresh`: datagrams of random clients and ports."""
    payload: int = 0
    """Bytes; what `dns` has, it has."""

    @property
    def size(self) -> Size:
        if self.protocol == "syn":
            return Size(max(ETHERNET + IPV4 + TCP, FRAME_MIN), 0)
        payload = len(dns_query()) if self.protocol == "dns" else self.payload
        return Size(udp_frame(payload), payload)


@dataclasses.dataclass(frozen=True)
class Stateless:
    """Frames of clients that nobody has to answer."""

    name: str
    about: str
    parts: tuple[Part, ...]

    @property
    def size(self) -> Size:
        """Of the mean packet."""
        return mean([(part.weight, part.size) for part in self.parts])


def udp(payload: int) -> Stateless:
    """Datagrams of one size.

    Raises `ValueError` for a payload that a frame of an MTU of 1500 does not hold.
    """
    if not 0 <= payload <= PAYLOAD_MAX:
        raise ValueError(f"payload of {payload} bytes: from 0 to {PAYLOAD_MAX}")
    return Stateless(f"udp-{payload}", f"UDP, {payload} bytes of payload", (Part(1, "udp", payload),))


STATELESS = {
    one.name: one
    for one in (
        udp(18),
        Stateless("dns", "DNS queries", (Part(1, "dns"),)),
        Stateless(
            "imix",
            "UDP frames of 64, 594 and 1518 bytes with FCS, 7:4:1",
            tuple(Part(weight, "udp", payload) for weight, payload in IMIX),
        ),
        Stateless(
            "fresh",
            "UDP of 18 bytes, each of a random client and port: each opens a connection, but by source partition",
            (Part(1, "fresh", 18),),
        ),
        Stateless("syn", "SYNs from random ports, each the first of a connection", (Part(1, "syn"),)),
    )
}


@dataclasses.dataclass(frozen=True)
class Step:
    """What one side of a conversation does next."""

    do: str
    """`send` or `receive` (bytes), `wait` (milliseconds), `again`: go back to step `amount`, `times` more times."""
    amount: int
    data: bytes = b""
    times: int = 0


@dataclasses.dataclass(frozen=True)
class Conversation:
    """What clients and servers of one connection do."""

    name: str
    protocol: str
    """`tcp` or `udp`."""
    service: str
    """Which of the scene's services: `http` or `dns`."""
    port: int
    """Which of the service's ports, from 0 on: TRex's servers know a conversation by its port alone."""
    client: tuple[Step, ...]
    server: tuple[Step, ...]


def _exchange(request: bytes, response: bytes, times: int = 1, wait_ms: int = 0) -> tuple[tuple[Step, ...], ...]:
    """Both sides of a number of requests and responses, with the client's pause before each but the first."""
    ask = [Step("send", len(request), request), Step("receive", len(response))]
    tell = [Step("receive", len(request)), Step("send", len(response), response)]
    if times > 1:
        ask += ([Step("wait", wait_ms)] if wait_ms else []) + [Step("again", 0, times=times - 1)]
        tell += [Step("again", 0, times=times - 1)]
    return tuple(ask), tuple(tell)


def _response(body: int) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {body}\r\n\r\n".encode()
    return head + b"m" * body


REQUEST = b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n"


def _http(name: str, port: int, body: int, times: int = 1, wait_ms: int = 0) -> Conversation:
    return Conversation(name, "tcp", "http", port, *_exchange(REQUEST, _response(body), times, wait_ms))


HTTP_SHORT = _http("http-short", 0, 128)
HTTP_LONG = _http("http-long", 1, 64 * 1024, times=4)
# A keep-alive connection that asks for something twice a second for ten seconds.
HTTP_LIVE = _http("http-live", 2, 1024, times=20, wait_ms=500)
HTTP_PORTS = 3
DNS = Conversation("dns", "udp", "dns", 0, *_exchange(dns_query(), dns_answer()))


@dataclasses.dataclass(frozen=True)
class Stateful:
    """Conversations, each with its share of the connections that are begun."""

    name: str
    about: str
    parts: tuple[tuple[float, Conversation], ...]

    @property
    def brief(self) -> bool:
        """Whether each conversation ends as soon as it can."""
        return all(step.do != "wait" for _, one in self.parts for step in one.client)


STATEFUL = {
    one.name: one
    for one in (
        Stateful("http-short", "one request, 128 bytes back, closed", ((1.0, HTTP_SHORT),)),
        Stateful("http-long", "four requests on a connection, 64 KiB back each", ((1.0, HTTP_LONG),)),
        Stateful("dns", "one query, one answer", ((1.0, DNS),)),
        Stateful(
            "mix",
            "of 100 connections 60 short HTTP, 30 DNS, 5 long HTTP, 5 that live for ten seconds",
            ((0.60, HTTP_SHORT), (0.30, DNS), (0.05, HTTP_LONG), (0.05, HTTP_LIVE)),
        ),
    )
}
