"""A flood of what the policy denies: hardware drops it before a worker sees it, every packet is counted once, and
when the policy allows it, or nobody sends it any more, the rules are gone."""

from __future__ import annotations

import threading
import time

import pytest
from lab import clients
from lab.eswitch import Eswitch
from lab.frames import Wire
from lab.lab import Lab
from lab.millrace import Millrace, service
from lab.net import wait_until
from lab.topology import VIP4, Shape
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

# Whom the policy denies; nobody's address.
REFUSED = "192.0.2.66"
WEB, DNS = VIP4.format(1), VIP4.format(2)
PATIENCE = 30
# Packets at a time, and the pause between: at first far more than what a rule takes, in case the lab is slow; then
# few, so that they fit into the wires' rings however long it stands still.
BURST, PAUSE, LONG_PAUSE = 60, 0.01, 0.04


class Flood:
    """Frames over and over, until stopped; as many of each."""

    def __init__(self, lab: Lab, frames: list[bytes]):
        self.sent, self.pause = 0, PAUSE
        self._lab, self._frames, self._stop = lab, frames, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with Wire(self._lab.client, "eth0") as wire:
            while not self._stop.is_set():
                for _ in range(BURST // len(self._frames)):
                    for frame in self._frames:
                        wire.send(frame)
                        self.sent += 1
                time.sleep(self.pause)

    def stop(self) -> int:
        """Packets that were sent."""
        self._stop.set()
        self._thread.join()
        return self.sent


def openings(millrace: Millrace) -> list[bytes]:
    """A SYN, and a question, from the one who is refused."""
    mac = next(port["mac"] for port in millrace.show("ports") if port["name"] == "front")
    link = Ether(src="02:00:00:00:00:66", dst=mac)
    syn = link / IP(src=REFUSED, dst=WEB) / TCP(sport=6666, dport=80, flags="S")
    question = link / IP(src=REFUSED, dst=DNS) / UDP(sport=6667, dport=53) / (b"?" * 20)
    return [bytes(syn), bytes(question)]


def drops(millrace: Millrace) -> dict[str, int]:
    """Where the refused packets are counted."""
    page = millrace.metrics()
    return {
        "all": page.sum("drops_total", reason="policy_denied"),
        "rule": page.sum("policy_rule_matched_total", rule="refused"),
        "web": page.sum("lb_dropped_total", service="web"),
        "dns": page.sum("lb_dropped_total", service="dns"),
    }


def rules(millrace: Millrace) -> int:
    """Rules that drop."""
    return millrace.metrics().sum("offload_deny_rules")


@pytest.mark.parametrize("steering", ["sws", "hws"])
def test_a_flood_that_is_denied_dies_in_hardware(labs, steering):
    lab = labs(Shape(backends=1), eswitch=Eswitch(steering))
    made = [service("web", 1, backends=[1]), service("dns", 2, 53, backends=[1], protocol="udp")]
    denial = {"name": "refused", "action": "deny", "from": [REFUSED]}
    millrace = lab.start_millrace(made, offload={"idle_s": 4}, policy=[denial])
    flood = Flood(lab, frames := openings(millrace))
    try:
        wait_until("both to be dropped by hardware", lambda: rules(millrace) == 2, PATIENCE)
        flood.pause = LONG_PAUSE
        before, sent = millrace.metrics(), flood.sent
        assert clients.count_answers(lab.client, WEB, 10).total() == 10, "others are served meanwhile"
        shown = [row for row in millrace.show("rules")["rules"] if row["direction"] == "denied"]
        assert {row["client"] for row in shown} == {f"{REFUSED}:6666", f"{REFUSED}:6667"}
        assert all("drop / end" in row["rule"] for row in shown)
        traced = millrace.do("trace", f"{REFUSED}:6666 -> {WEB}:80/tcp")
        assert "hardware drops it" in traced and "dropped: policy_denied" in traced, traced
        wait_until("many more", lambda: flood.sent > sent + 2000, PATIENCE)
        came = millrace.metrics().sum("worker_received_packets_total") - before.sum("worker_received_packets_total")
        assert came < (flood.sent - sent) / 2, "workers see what belongs to others"
    finally:
        flood.stop()

    # Nobody sends any more: the rules go, and with them the last counts come.
    each = flood.sent // 2
    wait_until("the rules to go", lambda: rules(millrace) == 0, PATIENCE)
    whole = {"all": 2 * each, "rule": 2 * each, "web": each, "dns": each}
    wait_until(f"{whole} to be counted", lambda: drops(millrace) == whole, PATIENCE)
    in_hardware = millrace.metrics().sum("offload_denied_packets_total")
    assert 0 < in_hardware < 2 * each, "of these"

    # What is allowed again is let through, though the flood goes on until then.
    flood = Flood(lab, frames)
    try:
        wait_until("both to be dropped again", lambda: rules(millrace) == 2, PATIENCE)
        millrace.config["policy"] = []
        millrace.reload()
        wait_until("the rules to go", lambda: rules(millrace) == 0, PATIENCE)
        opened = lambda: millrace.metrics().by("lb_opened_total", "service")  # noqa: E731
        wait_until("packets to arrive", lambda: opened().get("dns", 0) >= 1 and opened().get("web", 0) >= 11, PATIENCE)
    finally:
        flood.stop()
    assert millrace.metrics().sum("policy_time_to_enforce_seconds_count") >= 2
    assert millrace.metrics().sum("offload_recoveries_total") == 0
