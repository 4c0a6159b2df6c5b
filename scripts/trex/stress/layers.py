"""Which bits a rate counts.

One frame, from the first bit of a datagram to the last bit that the wire is busy with::

    preamble+SFD 8 | Ethernet 14 | IPv4 20 | UDP 8 | payload | FCS 4 | gap 12
    <------------------------------ wire ---------------------------------->
                   <------------- L2 ------------------------>
                                                   <payload> goodput

A rate without its layer is no rate: 14.88 million packets of 60 bytes (64 with FCS) are 10 Gbit/s on the wire and
7.62 of L2. Here "frame" is always without FCS, as software sees it.
"""

from __future__ import annotations

import dataclasses

FCS, PREAMBLE_AND_GAP = 4, 20
ETHERNET, IPV4, UDP, TCP = 14, 20, 8, 20
FRAME_MIN = 60
NAMES = {
    "wire": "wire (with FCS, preamble and gap)",
    "l2": "L2 (frame with FCS)",
    "goodput": "goodput (UDP or TCP payload)",
}


def udp_frame(payload: int) -> int:
    """Bytes of the frame of a datagram, padding included, FCS not."""
    return max(ETHERNET + IPV4 + UDP + payload, FRAME_MIN)


@dataclasses.dataclass(frozen=True)
class Size:
    """A frame, or the mean of several."""

    frame: float
    """Bytes without FCS."""
    payload: float
    """Bytes of payload of UDP or TCP in it."""

    def bits(self, layer: str) -> float:
        """Bits that one packet counts for in this layer."""
        if layer == "wire":
            return 8 * (self.frame + FCS + PREAMBLE_AND_GAP)
        if layer == "l2":
            return 8 * (self.frame + FCS)
        if layer == "goodput":
            return 8 * self.payload
        raise ValueError(f"no layer {layer!r}; there are {', '.join(NAMES)}")

    def gbps(self, pps: float) -> dict[str, float]:
        """Gbit/s of so many packets per second, by layer."""
        return {layer: pps * self.bits(layer) / 1e9 for layer in NAMES}

    def line_rate_pps(self, gbps: float) -> float:
        """Packets per second that fill a link of this speed."""
        return gbps * 1e9 / self.bits("wire")


def mean(parts: list[tuple[float, Size]]) -> Size:
    """The mean size of a mix, by weights of packets."""
    total = sum(weight for weight, _ in parts)
    return Size(
        frame=sum(weight * size.frame for weight, size in parts) / total,
        payload=sum(weight * size.payload for weight, size in parts) / total,
    )
