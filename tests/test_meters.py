"""Limits of services and tenants: what passes is what was asked for, counted over the time that passed."""

import json
import time

import pytest
from lab import clients, traffic
from lab.millrace import service
from lab.topology import VIP4, Shape

RATE = 1000
SECONDS = 4
# Workers hold on to some packets' worth each.
PURSES = 64


def sample(millrace) -> tuple[int, int, dict]:
    """What the only meter has counted, and between which moments, in milliseconds."""
    before = uptime_ms(millrace)
    (row,) = millrace.show("meters")
    return before, uptime_ms(millrace), row


def uptime_ms(millrace) -> int:
    return json.loads(millrace.do("version", "--json"))["running"]["uptime_ms"]


@pytest.mark.parametrize("workers", (1, 2))
def test_packets_pass_at_the_rate(labs, workers):
    lab = labs(workers=workers)
    limit = {"packets_per_second": RATE, "burst_ms": 500}
    millrace = lab.start_millrace([traffic.service(lab, "udp", limit=limit)], ports=traffic.ports(lab))
    flood = traffic.Traffic(lab).udp(flows=200, period_ms=20, seconds=60)
    while not sample(millrace)[2]["red"]["packets"]:
        time.sleep(0.1)
    first = sample(millrace)
    time.sleep(SECONDS)
    last = sample(millrace)
    flood.stop()
    green = last[2]["green"]["packets"] - first[2]["green"]["packets"]
    least, most = ((last[0] - first[1]) * RATE / 1000, (last[1] - first[0]) * RATE / 1000)
    assert 0.99 * least - PURSES <= green <= 1.01 * most + PURSES, (least, green, most)
    assert last[2]["red"]["packets"] > first[2]["red"]["packets"]
    (dropped,) = [row["packets"] for row in millrace.show("drops") if row["reason"] == "meter_rate"]
    assert dropped >= last[2]["red"]["packets"]


def test_connections_are_limited_and_a_reload_lifts_it(labs):
    lab = labs(Shape(backends=1))
    millrace = lab.start_millrace([service("web", 1, backends=[1], limit={"new_connections_per_second": 1})])
    vip = VIP4.format(1)
    assert clients.count_answers(lab.client, vip, 20).total() == 20
    del millrace.config["service"][0]["limit"]
    millrace.reload()
    assert millrace.show("meters") == []
    assert clients.count_answers(lab.client, vip, 50).total() == 50
