"""Stateless profiles, compiled with TRex's client as it is published for Python, and looked at packet by packet."""

from __future__ import annotations

import ipaddress
import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trex_stl_lib import api

from engine import packets  # noqa: E402
from scapy.layers.dns import DNS  # noqa: E402
from scapy.layers.inet import IP, TCP, UDP  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402
from stress import stl  # noqa: E402
from stress.scene import Scene  # noqa: E402
from stress.traffic import IMIX, PAYLOAD_MAX, STATELESS, SWEEP, udp  # noqa: E402

SCENE = Scene(clients=50, ports=4)


def clients() -> set[str]:
    first = ipaddress.IPv4Address(SCENE.client)
    return {str(first + number) for number in range(SCENE.clients)}


def looked_at(frame: bytes) -> Ether:
    """A frame, after what holds for all of them."""
    packet = Ether(frame)
    assert len(frame) >= 60
    assert (packet.src, packet.dst) == (SCENE.client_mac, SCENE.device_macs[0])
    assert packet[IP].dst == SCENE.vip and packet[IP].src in clients() and packet[IP].ttl == 64
    # Scapy computes what is left out: the whole again.
    again = packet.copy()
    del again[IP].chksum
    if TCP in again:
        del again[TCP].chksum
    assert bytes(again) == frame, "length and checksums are right"
    return packet


@pytest.mark.parametrize("payload", [*SWEEP, PAYLOAD_MAX])
def test_datagrams_have_their_size_and_all_clients(payload):
    load = udp(payload)
    (stream,) = stl.streams(api, load, SCENE)
    flows = []
    for frame in packets(stream, 2 * SCENE.flows):
        packet = looked_at(frame)
        assert len(frame) == load.size.frame
        assert packet[UDP].dport == SCENE.udp_port and packet[UDP].len == 8 + payload and packet[UDP].chksum == 0
        assert packet[IP].len == 28 + payload
        flows.append((packet[IP].src, packet[UDP].sport))
    assert len(set(flows[: SCENE.flows])) == SCENE.flows, "every flow once, before any comes again"
    assert flows[: SCENE.flows] == flows[SCENE.flows :]
    assert {port for _, port in flows} == set(range(1024, 1024 + SCENE.ports))


def test_dns_queries_are_queries():
    (stream,) = stl.streams(api, STATELESS["dns"], SCENE)
    for frame in packets(stream, 100):
        packet = looked_at(frame)
        assert packet[UDP].dport == SCENE.dns_port
        query = packet[DNS]
        assert (query.qr, query.rd, query.qdcount) == (0, 1, 1)
        assert query.qd[0].qname == b"www.example.org."


def test_imix_has_its_sizes_in_its_shares():
    streams = stl.streams(api, STATELESS["imix"], SCENE)
    rates = [stream.to_json()["mode"]["rate"] for stream in streams]
    assert [rate["type"] for rate in rates] == ["pps"] * 3
    assert [rate["value"] for rate in rates] == pytest.approx([weight / 12 for weight, _ in IMIX])
    sizes = [len(looked_at(next(packets(stream, 1)))) + 4 for stream in streams]
    assert sizes == [64, 594, 1518]


def test_a_flood_is_of_syns_with_right_checksums():
    (stream,) = stl.streams(api, STATELESS["syn"], SCENE)
    seen = set()
    for frame in packets(stream, 500):
        packet = looked_at(frame)
        assert (packet[TCP].flags, packet[TCP].dport) == ("S", SCENE.http_port)
        assert packet[TCP].sport >= 1024
        seen.add((packet[IP].src, packet[TCP].sport, packet[TCP].seq))
    assert len(seen) > 490


def test_fresh_datagrams_are_of_flows_of_their_own():
    (stream,) = stl.streams(api, STATELESS["fresh"], SCENE)
    flows = {(packet[IP].src, packet[UDP].sport) for packet in map(looked_at, packets(stream, 500))}
    assert len(flows) > 490


def test_latency_is_a_stream_of_its_own_at_a_rate_of_its_own():
    streams = stl.streams(api, udp(64), SCENE, latency=True)
    assert len(streams) == 2
    told = streams[1].to_json()
    assert told["flow_stats"] | {"enabled": True} == told["flow_stats"] and told["flow_stats"]["rule_type"] == "latency"
    assert told["mode"]["rate"] == {"type": "pps", "value": stl.LATENCY_PPS}
    frame = next(packets(streams[1], 1))
    # TRex writes 16 bytes at the end of the payload.
    assert len(Ether(frame)[UDP].payload) >= 16 and Ether(frame)[UDP].chksum == 0


@pytest.mark.parametrize("wrong", [-1, PAYLOAD_MAX + 1])
def test_a_payload_that_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError):
        udp(wrong)
