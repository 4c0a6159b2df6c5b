"""Any packet whatsoever: mutated frames from pcap files, and books that balance to the last one."""

from lab import frames
from lab.lab import built_binary
from lab.millrace import Millrace, configuration, service
from lab.net import Netns, wait_until
from lab.topology import CLIENT4, CLIENT6, FRONT4, VIP4, VIP6
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    fragment6,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

SEED = 20
CLIENT_MAC = "02:00:00:00:01:10"
# What net_pcap gives its first and second port.
PORT_MACS = ["02:70:63:61:70:00", "02:70:63:61:70:01"]
V4, V6 = VIP4.format(1), VIP6.format(1)


def transports() -> list:
    """What IP carries from a client, in every state of a connection."""
    made = [TCP(sport=p, dport=80, flags=f, seq=p) for p in range(1000, 1008) for f in ("S", "A", "PA", "FA", "R")]
    made += [TCP(sport=2000, dport=80, flags="S", options=[("MSS", 1460), ("WScale", 7), ("Timestamp", (1, 0))])]
    made += [TCP(sport=2001, dport=80, flags="A") / Raw(bytes(1400)), UDP(sport=3000, dport=53) / Raw(b"question")]
    made += [UDP(sport=3001, dport=53) / Raw(bytes(1400)), UDP(sport=3002, dport=9999), TCP(sport=3, dport=3)]
    return made


def client_frames() -> list[bytes]:
    """What may arrive from the clients' side."""
    ether = Ether(src=CLIENT_MAC, dst=PORT_MACS[0])
    v4, v6 = IP(src=CLIENT4, dst=V4), IPv6(src=CLIENT6, dst=V6)
    made = [ether / ip / transport for transport in transports() for ip in (v4, v6)]
    made += [ether / IP(src=CLIENT4, dst=V4, ttl=1) / UDP(dport=53), ether / IPv6(src=CLIENT6, dst=V6, hlim=1) / UDP()]
    made += [ether / IP(src=CLIENT4, dst=V4, options=[IPOption_Router_Alert()]) / TCP(dport=80, flags="S")]
    made += [ether / part for part in fragment(v4 / UDP(sport=3003, dport=53) / Raw(bytes(3000)), 1400)]
    large = v6 / IPv6ExtHdrFragment(id=7) / UDP(sport=3004, dport=53) / Raw(bytes(3000))
    made += [ether / part for part in fragment6(large, 1400)]
    for extension in (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(), IPv6ExtHdrFragment(m=1)):
        made.append(ether / v6 / extension / TCP(sport=4000, dport=80, flags="S"))
    made += [ether / Dot1Q(vlan=5) / v4 / UDP(dport=53), ether / Dot1AD(vlan=6) / Dot1Q(vlan=5) / v4 / UDP(dport=53)]
    made += [ether / v4 / ICMP(), ether / v6 / ICMPv6EchoRequest(data=b"ping")]
    made += icmp_errors(ether, v4, v6)
    made += neighbours(ether)
    made += [Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / Raw(b"unknown")]
    return [bytes(frame) for frame in made]


def icmp_errors(ether: Ether, v4: IP, v6: IPv6) -> list:
    quote4 = IP(src=V4, dst=CLIENT4) / TCP(sport=80, dport=1000, flags="A")
    quote6 = IPv6(src=V6, dst=CLIENT6) / TCP(sport=80, dport=1000, flags="A")
    made = [ether / v4 / ICMP(type=kind, code=4) / quote4 for kind in (3, 4, 5, 11, 12)]
    return made + [ether / v6 / error / quote6 for error in (ICMPv6PacketTooBig(), ICMPv6DestUnreach())]


def neighbours(ether: Ether) -> list:
    mac = ICMPv6NDOptSrcLLAddr(lladdr=CLIENT_MAC)
    request = Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(hwsrc=CLIENT_MAC, psrc=CLIENT4, pdst=FRONT4)
    made = [request, ether / ARP(op=2, hwsrc=CLIENT_MAC, psrc=CLIENT4, hwdst=PORT_MACS[0], pdst=FRONT4)]
    made.append(ether / IPv6(src=CLIENT6, dst="2001:db8:f::1") / ICMPv6ND_NS(tgt="2001:db8:f::1") / mac)
    advertised = ICMPv6ND_NA(tgt=CLIENT6) / ICMPv6NDOptDstLLAddr(lladdr=CLIENT_MAC)
    return [*made, ether / IPv6(src=CLIENT6, dst="2001:db8:f::1") / advertised]


def backend_frames() -> list[bytes]:
    """What may arrive from the backends' side."""
    made = []
    for n in (11, 12, 13):
        ether = Ether(src=f"02:00:00:00:02:{n:02x}", dst=PORT_MACS[1])
        v4, v6 = IP(src=f"198.51.100.{n}", dst=CLIENT4), IPv6(src=f"2001:db8:b::{n}", dst=CLIENT6)
        for port in range(1000, 1008):
            made += [ether / ip / TCP(sport=80, dport=port, flags=f) for ip in (v4, v6) for f in ("SA", "A", "FA", "R")]
        made += [ether / ip / UDP(sport=53, dport=3000) / Raw(bytes(1400)) for ip in (v4, v6)]
        quote = IP(src=CLIENT4, dst=f"198.51.100.{n}") / TCP(sport=1000, dport=80, flags="A")
        made.append(ether / v4 / ICMP(type=3, code=1) / quote)
        made.append(ether / ARP(op=2, psrc=f"198.51.100.{n}", pdst="198.51.100.1", hwdst=PORT_MACS[1]))
    return [bytes(frame) for frame in made]


def pcap_configuration(directory) -> dict:
    devices = [f"net_pcap{n},rx_pcap={directory}/in{n}.pcap,tx_pcap={directory}/out{n}.pcap" for n in (0, 1)]
    config = configuration(directory, devices)
    config["service"] = [
        service(f"{name}{family}", 1, port, family=family, protocol=protocol)
        for name, port, protocol in (("web", 80, "tcp"), ("dns", 53, "udp"))
        for family in (4, 6)
    ]
    front, back = config["port"]
    front["neighbour"] = [{"address": address, "mac": CLIENT_MAC} for address in (CLIENT4, CLIENT6)]
    back["neighbour"] = [
        {"address": f"{network}{n}", "mac": f"02:00:00:00:02:{n:02x}"}
        for n in (11, 12, 13)
        for network in ("198.51.100.", "2001:db8:b::")
    ]
    return config


def test_mutated_packets_neither_crash_nor_vanish(tmp_path, full):
    """Millrace reads mutated frames from both sides; every one must be sent, consumed, held or dropped
    under one reason, and the devices must agree."""
    number = 1_000_000 if full else 100_000
    for port, corpus in enumerate((client_frames(), backend_frames())):
        share = number * 3 // 4 if port == 0 else number // 4
        frames.write_pcap(tmp_path / f"in{port}.pcap", frames.mutations(corpus, share, SEED + port))
    netns = Netns.create(f"mrpcap-{tmp_path.name[-20:]}")
    try:
        millrace = Millrace(netns, built_binary(), tmp_path, pcap_configuration(tmp_path))
        wait_until(
            "all frames to be read",
            lambda: millrace.metrics().sum("worker_received_packets_total") >= number,
            timeout=120,
        )
        metrics = millrace.at_rest(timeout=20)
        assert metrics.imbalance() == {"0": 0}
        assert metrics.sum("worker_received_packets_total") == metrics.sum("port_rx_packets_total") == number
        sent = metrics.sum("worker_sent_packets_total")
        assert sent == metrics.sum("port_tx_packets_total")
        drops = metrics.by("drops_total", "reason")
        assert sum(drops.values()) == metrics.sum("worker_dropped_packets_total")
        # The corpus must have been good enough to get through, and the mutations to be noticed.
        assert sent > number // 20 and len(drops) >= 15, drops
        millrace.stop()
        assert sum(frames.count_pcap(tmp_path / f"out{port}.pcap") for port in (0, 1)) >= sent
    finally:
        netns.remove()
