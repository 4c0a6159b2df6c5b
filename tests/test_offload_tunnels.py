"""Connections to backends behind tunnels move into the eSwitch: it puts their packets into tunnels that the
kernel, or a program, takes them out of, and what is not for its rules still goes by way of the workers. So do
connections of clients behind tunnels, whose packets it takes out, and puts the answers in."""

from __future__ import annotations

import time

import pytest
from lab import clients, servers
from lab.eswitch import Eswitch
from lab.frames import Wire
from lab.millrace import service
from lab.net import wait_until
from lab.topology import CLIENT4, DSR_HOSTS, FRONT4, VIP4, Shape
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
from test_offload import Capture, Downloads, installed, wait_for_hardware, wait_for_none
from test_tunnels import start_ends, tunnelled

KINDS = {"vxlan": DSR_HOSTS[0], "ipip": DSR_HOSTS[1]}
# The family of the header outside.
OUTSIDE = {"vxlan": 4, "ipip": 6}
# A client's packets, of 1400 bytes at most, fit into the tunnels behind.
MTUS = {"front": {"mtu": 1400}, "back": {"mtu": 1500}}
# Bytes a second of each transfer.
RATE = 600_000


class Upload:
    """A file on its way to whichever backend, at a bounded rate."""

    def __init__(self, lab, kind: str, seconds: int):
        self.lab, self.path = lab, f"{kind}-{time.monotonic_ns()}"
        file = lab.directory / self.path
        self.digest = servers.make_file(file, seconds * RATE)
        url = f"http://{VIP4.format(KINDS[kind])}/upload/{self.path}"
        argv = ["curl", "-sS", "-f", "--limit-rate", str(RATE), "--max-time", "60", "-T", str(file), url]
        self.curl = clients.Background(lab.client, argv)

    def finish(self) -> None:
        """It must have arrived as it was sent, once."""
        self.curl.output()
        arrived = [path for web in self.lab.web if (path := web.uploaded(self.path))]
        assert [servers.sha256(path) for path in arrived] == [self.digest]


@pytest.mark.parametrize("steering", ["sws", "hws"])
def test_connections_into_tunnels_leave_the_workers(labs, steering):
    lab = labs(Shape(dsr=True), eswitch=Eswitch(steering))
    lab.client.ip("link set eth0 mtu 1400")
    assert [start_ends(lab, kind) for kind in KINDS] == ["kernel", "program"]
    services = [tunnelled(kind, host, 4, OUTSIDE[kind]) for kind, host in KINDS.items()]
    millrace = lab.start_millrace(services, MTUS, offload={"idle_s": 2})
    base_rules = millrace.eswitch.rules()
    uploads = [Upload(lab, kind, 7) for kind in KINDS]
    downloads = Downloads(lab, 4, 7 * RATE, 7, vips=(VIP4.format(KINDS["vxlan"]),))
    # One rule each: answers do not come this way.
    wait_for_hardware(millrace, 6)
    assert millrace.metrics().sum("offload_rules") == 6
    shown = [row["rule"] for row in millrace.show("rules")["rules"]]
    assert all("set raw_encap 0 eth" in rule and "tos" in rule for rule in shown), shown
    assert sum("vxlan vni is 77" in rule for rule in shown) == 5, shown
    before, came = millrace.metrics().received(), millrace.eswitch.from_wires()
    wait_until("packets", lambda: millrace.eswitch.from_wires() - came >= 300, timeout=20)
    came = millrace.eswitch.from_wires() - came
    seen = millrace.metrics().received() - before
    assert seen <= came * 0.1, f"workers saw {seen} of {came} packets"
    for transfer in (*uploads, downloads):
        transfer.finish()
    wait_for_none(millrace, base_rules)
    metrics = millrace.at_rest()
    assert metrics.in_hardware() > 0.8 * metrics.forwarded("packets")
    assert metrics.forwarded("packets", direction="reply") == 0
    assert metrics.sum("offload_miss_packets_total") == 0


def test_what_hardware_cannot_put_into_a_tunnel_is_softwares(labs):
    lab = labs(Shape(dsr=True), eswitch=Eswitch("hws"))
    lab.client.ip("link set eth0 mtu 1400")
    start_ends(lab, "vxlan")
    # Marks of congestion have to come outside; only packets without are for rules.
    lab.client.sysctl(ipv4__tcp_ecn=1)
    millrace = lab.start_millrace([tunnelled("vxlan", KINDS["vxlan"], 4, 4)], MTUS, offload={"idle_s": 2})
    upload = Upload(lab, "vxlan", 2)
    upload.finish()
    metrics = millrace.at_rest()
    software = metrics.forwarded("packets") - metrics.in_hardware()
    assert software > 500, "data can be marked"
    assert metrics.sum("offload_miss_packets_total") == 0
    millrace.stop()
    # A packet of 1400 bytes may not fit into the tunnel, which is for software to say.
    small = {"front": {"mtu": 1400}, "back": {"mtu": 1449}}
    millrace = lab.start_millrace([tunnelled("vxlan", KINDS["vxlan"], 4, 4)], small, offload={"idle_s": 2})
    upload = Upload(lab, "vxlan", 2)
    wait_until("a decision", lambda: declined(millrace) == {"mtu"}, timeout=20)
    assert installed(millrace) == 0
    upload.finish()


def declined(millrace) -> set[str]:
    """Why connections are in software."""
    rows = millrace.show("connections")["connections"]
    return {row["path"].removeprefix("declined:") for row in rows if row["path"].startswith("declined:")}


# Clients are behind a tunnel; what comes out of it fits the way to the backends, and their answers fit it.
INNER = "172.16.0.7"
INNER_MAC = "02:00:00:00:00:77"
NARROW = {"front": {"mtu": 1500}, "back": {"mtu": 1450}}


def start_inside(lab, kind: str, services: list[dict]):
    """Millrace with a port behind a tunnel to the client."""
    for netns in lab.network.backends:
        netns.ip("link set back mtu 1450")
    tunnel = {"kind": kind, "vni": 100, "remote": CLIENT4}
    port = {"name": "blue", "parent": "front", "addresses": ["172.16.0.1/24"], "tunnel": tunnel}
    return lab.start_millrace(services, NARROW, port=[port], offload={"idle_s": 2})


@pytest.mark.parametrize("steering", ["sws", "hws"])
def test_connections_out_of_tunnels_leave_the_workers(labs, steering):
    lab = labs(Shape(backends=2), eswitch=Eswitch(steering))
    lab.client.ip(
        f"link add blue type vxlan id 100 dstport 4789 local {CLIENT4} remote {FRONT4} nolearning",
        f"link set blue address {INNER_MAC} mtu 1450 up",
        f"addr add {INNER}/24 dev blue",
        f"route replace 203.0.113.0/24 via 172.16.0.1 dev blue src {INNER}",
    )
    millrace = start_inside(lab, "vxlan", [service("web", 1, backends=(1, 2))])
    base_rules = millrace.eswitch.rules()
    captures = [Capture(lab, netns, "back", f"b{n}") for n, netns in enumerate(lab.network.backends, 1)]
    downloads = Downloads(lab, 4, 7 * RATE, 7, vips=(VIP4,))
    wait_for_hardware(millrace, 4)
    assert millrace.metrics().sum("offload_rules") == 8, "a rule each way"
    shown = {row["direction"]: row["rule"] for row in millrace.show("rules")["rules"]}
    assert "/ vxlan vni " in shown["original"] and "vxlan_decap" in shown["original"], shown
    assert "set raw_encap 0 eth" in shown["reply"] and "vxlan vni is 100" in shown["reply"], shown
    before, came = millrace.metrics().received(), millrace.eswitch.from_wires()
    wait_until("packets", lambda: millrace.eswitch.from_wires() - came >= 2000, timeout=20)
    came = millrace.eswitch.from_wires() - came
    seen = millrace.metrics().received() - before
    assert seen <= came * 0.01, f"workers saw {seen} of {came} packets"
    downloads.finish()
    wait_for_none(millrace, base_rules)
    metrics = millrace.at_rest()
    backends = [capture.stop() for capture in captures]
    for direction in ("original", "reply"):
        counted = tuple(metrics.forwarded(what, direction=direction) for what in ("packets", "bytes"))
        assert counted == tuple(map(sum, zip(*(one[direction] for one in backends), strict=True))), direction
    assert metrics.in_hardware() > 0.9 * metrics.forwarded("packets")
    assert metrics.sum("offload_miss_packets_total") == 0


@pytest.mark.parametrize("steering", ["sws", "hws"])
def test_geneve_is_taken_off_where_hardware_knows_it(labs, steering):
    lab = labs(Shape(backends=1), eswitch=Eswitch(steering))
    echo = service("echo", 1, 7, backends=(1,), protocol="udp")
    millrace = start_inside(lab, "geneve", [echo])
    servers.Echo(lab.network.backends[0])
    macs = {row["name"]: row["mac"] for row in millrace.show("ports")}

    def wrapped(payload, **geneve) -> bytes:
        outside = Ether(dst=macs["front"], src="02:00:00:00:01:10") / IP(src=CLIENT4, dst=FRONT4)
        shim = GENEVE(**{"vni": 100, "proto": 0x6558} | geneve)
        frame = Ether(dst=macs["blue"], src=INNER_MAC) / payload
        return bytes(outside / UDP(sport=50000, dport=6081) / shim / frame)

    question = IP(src=INNER, dst=VIP4.format(1)) / UDP(sport=4000, dport=7) / Raw(b"hello")
    with Wire(lab.client, "eth0") as wire:

        def ask(packet: bytes = wrapped(question)) -> None:
            wire.send(packet)
            answer = wire.receive(lambda frame: UDP in Ether(frame) and b"hello" in frame, timeout=5)
            assert answer and Ether(answer)[GENEVE].vni == 100

        wire.send(wrapped(ARP(op=1, hwsrc=INNER_MAC, psrc=INNER, pdst="172.16.0.1")))
        ask()
        if steering == "hws":
            # Templates of DPDK 22.11 do not know it.
            wait_until("a decision", lambda: ask() or declined(millrace) == {"tunnel"}, timeout=20)
            return
        wait_until("the eSwitch", lambda: ask() or installed(millrace) == 1, timeout=20)
        before = millrace.metrics().received()
        for _ in range(50):
            ask()
        assert millrace.metrics().received() - before <= 10
        # An option may be one that has to be understood.
        before = millrace.metrics().received()
        ask(wrapped(question, optionlen=1, options=bytes([0, 1, 0, 0])))
        assert millrace.metrics().received() - before >= 1
