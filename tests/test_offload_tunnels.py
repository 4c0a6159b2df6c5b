"""Connections to backends behind tunnels move into the eSwitch: it puts their packets into tunnels that the
kernel, or a program, takes them out of, and what is not for its rules still goes by way of the workers."""

from __future__ import annotations

import time

import pytest
from lab import clients, servers
from lab.eswitch import Eswitch
from lab.net import wait_until
from lab.topology import DSR_HOSTS, VIP4, Shape
from test_offload import Downloads, installed, wait_for_hardware, wait_for_none
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
