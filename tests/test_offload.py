"""Established connections move into the eSwitch, and nobody notices: real clients and servers, and Millrace on
the software eSwitch between them, under software and under hardware steering."""

from __future__ import annotations

import pytest
from lab import clients, servers, traffic
from lab.eswitch import Eswitch
from lab.millrace import service
from lab.topology import VIP4, VIP6, Shape

STEERING = pytest.mark.parametrize("steering", ["sws", "hws"])


@STEERING
def test_without_an_engine_workers_forward_all(labs, steering):
    """The eSwitch's ports are ports like others."""
    lab = labs(Shape(backends=2), eswitch=Eswitch(steering))
    services = [service(f"web-v{family}", 1, family=family, backends=(1, 2)) for family in (4, 6)]
    services += [traffic.service(lab), traffic.service(lab, "udp")]
    millrace = lab.start_millrace(services, ports=traffic.ports(lab), offload={"engine": "none"})
    raw = traffic.Traffic(lab)
    digest = servers.make_file(lab.files / "file", 8 << 20)
    for vip in (VIP4, VIP6):
        assert clients.count_answers(lab.client, vip.format(1), 50).total() == 50
        assert clients.http_sha256(lab.client, vip.format(1), "/files/file") == digest
    opened = raw.tcp(1000, 1).finish()
    assert opened["completed"] == opened["opened"] == 1000
    flowed = raw.udp(100, 100, 1).finish()
    assert flowed["answered"] == flowed["sent"] > 0
    received = millrace.at_rest().received()
    assert millrace.eswitch.from_wires() == millrace.eswitch.missed() == received
    assert millrace.eswitch.rules() == 0
