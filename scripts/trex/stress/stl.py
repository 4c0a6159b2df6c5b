"""Stateless load as TRex's streams.

`api` is the module that has TRex's names: `trex.stl.api` of an installation, or `trex_stl_lib.api` as published for
Python, whose packet builder and field engine are the same. So profiles can be compiled, and looked at packet by
packet, without a server.
"""

from __future__ import annotations

from types import ModuleType

from .layers import ETHERNET, FRAME_MIN, IPV4
from .scene import Scene
from .traffic import LATENCY_PPS, Part, Stateless, dns_query

# TRex tells streams with statistics apart by such numbers.
LATENCY_PG = 7
# What TRex needs in a packet that measures latency.
LATENCY_PAYLOAD = 18
PORT_FIRST = 1024
# Offsets. By their names, TRex's client finds them only with the Scapy that comes with it.
IP = ETHERNET
SOURCE = IP + 12
SOURCE_PORT = IP + IPV4
SEQUENCE = SOURCE_PORT + 4
# Ports that a flood's packets come from.
FLOOD_PORTS = (1024, 65535)


def streams(api: ModuleType, load: Stateless, scene: Scene, *, latency: bool = False) -> list:
    """TRex's streams of this load, of one packet per second in all: the rate is the multiplier's. With `latency`, one
    more of `LATENCY_PPS` whose packets carry the time, at a rate that stays."""
    total = sum(part.weight for part in load.parts)
    made = [
        api.STLStream(name=f"{load.name}-{number}", packet=_packet(api, part, scene),
                      mode=api.STLTXCont(pps=part.weight / total))
        for number, part in enumerate(load.parts)
    ]
    return made + ([_probe(api, scene)] if latency else [])


def _probe(api: ModuleType, scene: Scene):
    """Packets of one more client, of a fixed rate, with the time and a sequence number in them."""
    layers = _headers(api, scene) / api.UDP(sport=PORT_FIRST - 1, dport=scene.udp_port, chksum=0)
    return api.STLStream(
        name="latency",
        packet=api.STLPktBuilder(pkt=layers / api.Raw(b"\0" * LATENCY_PAYLOAD)),
        mode=api.STLTXCont(pps=LATENCY_PPS),
        flow_stats=api.STLFlowLatencyStats(pg_id=LATENCY_PG),
    )


def _headers(api: ModuleType, scene: Scene):
    # Explicit addresses: TRex then asks nobody for them.
    ether = api.Ether(src=scene.client_mac, dst=scene.device_macs[0])
    return ether / api.IP(src=scene.client, dst=scene.vip, ttl=64)


def _packet(api: ModuleType, part: Part, scene: Scene):
    """One kind of packet, with the field engine's program that gives each its client."""
    made = {"syn": _flood, "fresh": _fresh}.get(part.protocol, _datagram)
    return made(api, part, scene)


def _datagram(api: ModuleType, part: Part, scene: Scene):
    port, payload = scene.udp_port, b"m" * part.payload
    if part.protocol == "dns":
        port, payload = scene.dns_port, dns_query()
    # A checksum of 0 says that there is none: addresses and ports change from packet to packet.
    layers = _headers(api, scene) / api.UDP(sport=PORT_FIRST, dport=port, chksum=0)
    if payload:
        layers = layers / api.Raw(payload)
    program = api.STLScVmRaw(
        [
            api.STLVmTupleGen(
                name="client",
                ip_min=scene.client,
                ip_max=scene.client_last,
                port_min=PORT_FIRST,
                port_max=PORT_FIRST + scene.ports - 1,
                limit_flows=scene.flows,
            ),
            api.STLVmWrFlowVar(fv_name="client.ip", pkt_offset=SOURCE),
            api.STLVmWrFlowVar(fv_name="client.port", pkt_offset=SOURCE_PORT),
            api.STLVmFixIpv4(offset=IP),
        ]
    )
    return api.STLPktBuilder(pkt=padded(api, layers), vm=program)


def _random_client(api: ModuleType, scene: Scene) -> list:
    """What gives each packet a random client and port."""
    return [
        api.STLVmFlowVar(name="ip", min_value=scene.client, max_value=scene.client_last, size=4, op="random"),
        api.STLVmFlowVar(name="port", min_value=FLOOD_PORTS[0], max_value=FLOOD_PORTS[1], size=2, op="random"),
        api.STLVmWrFlowVar(fv_name="ip", pkt_offset=SOURCE),
        api.STLVmWrFlowVar(fv_name="port", pkt_offset=SOURCE_PORT),
    ]


def _fresh(api: ModuleType, part: Part, scene: Scene):
    layers = _headers(api, scene) / api.UDP(sport=PORT_FIRST, dport=scene.udp_port, chksum=0)
    program = api.STLScVmRaw([*_random_client(api, scene), api.STLVmFixIpv4(offset=IP)])
    return api.STLPktBuilder(pkt=padded(api, layers / api.Raw(b"m" * part.payload)), vm=program)


def _flood(api: ModuleType, _part: Part, scene: Scene):
    layers = _headers(api, scene) / api.TCP(sport=PORT_FIRST, dport=scene.http_port, flags="S", window=65535)
    checksums = api.STLVmFixChecksumHw(
        l3_offset=IP, l4_offset=SOURCE_PORT, l4_type=api.CTRexVmInsFixHwCs.L4_TYPE_TCP
    )
    # It only looks at offsets that are names.
    checksums.l2_len = IP
    program = api.STLScVmRaw(
        [
            *_random_client(api, scene),
            api.STLVmFlowVar(name="seq", min_value=0, max_value=0xFFFFFFFF, size=4, op="random"),
            api.STLVmWrFlowVar(fv_name="seq", pkt_offset=SEQUENCE),
            checksums,
        ]
    )
    return api.STLPktBuilder(pkt=padded(api, layers), vm=program)


def padded(api: ModuleType, layers):
    """A frame of Ethernet's least length at least, as a NIC would send it."""
    short = FRAME_MIN - len(layers)
    return layers / api.Padding(b"\0" * short) if short > 0 else layers
