"""Tunnels towards backends: the kernel's own devices, where it has them, take packets out, and clients get
their answers; elsewhere a program does."""

import sys
from pathlib import Path

import pytest
from lab import clients
from lab.millrace import service
from lab.net import LabError, Process, wait_until
from lab.topology import DSR_HOSTS, VIP4, VIP6, Shape, backend4, backend6

UNWRAP = Path(__file__).resolve().parents[1] / "scripts" / "lab" / "unwrap.py"
PORTS = {"ipip": 0, "gue": 6080, "vxlan": 4789, "geneve": 6081}
INNER_MAC = "02:00:00:00:00:77"
# The number of the network by the family of what is outside.
VNI = {4: 77, 6: 78}


def add_devices(netns, kind: str, n: int) -> bool:
    """The kernel's devices for both families outside; whether it has such devices."""
    ends = {4: backend4(n), 6: backend6(n)}
    commands = {
        "vxlan": lambda f: f"type vxlan id {VNI[f]} dstport {PORTS['vxlan']} local {ends[f]} nolearning",
        "geneve": lambda f: f"type geneve id {VNI[f]} remote {'198.51.100.1' if f == 4 else '2001:db8:b::1'}",
    }
    if kind not in commands:
        return False
    try:
        for family in (4, 6):
            netns.ip(
                f"link add t{family} address {INNER_MAC} {commands[kind](family)}",
                f"link set t{family} up",
            )
    except LabError:
        return False
    return True


def start_ends(lab, kind: str) -> str:
    """Gives every backend the far end of its tunnels; says of which sort."""
    backends = list(enumerate(lab.network.backends, start=1))
    if all([add_devices(netns, kind, n) for n, netns in backends]):
        return "kernel"
    for n, netns in backends:
        argv = netns.enter([sys.executable, str(UNWRAP), kind, str(PORTS[kind])])
        end = Process(f"unwrap on b{n}", argv, lab.directory / f"unwrap{n}.log")
        lab.processes.append(end)
        wait_until("the tunnel's end", lambda end=end: "ready" in end.tail())
        netns.ip("link set unwrap up")
    return "program"


def tunnelled(kind: str, host: int, inside: int, outside: int) -> dict:
    tunnel = {"vni": VNI[outside], "inner_mac": INNER_MAC} if kind in ("vxlan", "geneve") else {}
    one = service(f"{kind}-{inside}in{outside}", host, family=inside, mode=kind, tunnel=tunnel)
    for n, backend in enumerate(one["backend"], start=1):
        backend["address"] = backend4(n) if outside == 4 else backend6(n)
    return one


@pytest.mark.parametrize("kind", PORTS)
def test_answers_come_back_from_behind_tunnels(labs, kind):
    lab = labs(Shape(dsr=True))
    sort = start_ends(lab, kind)
    assert kind != "vxlan" or sort == "kernel"
    cases = [(DSR_HOSTS[outside == 6], inside, outside) for inside in (4, 6) for outside in (4, 6)]
    millrace = lab.start_millrace([tunnelled(kind, *case) for case in cases])
    # A request of several segments: its sender has to learn what fits into the tunnel.
    long = ("-H", "X-Long: " + 5000 * "x")
    for host, inside, _ in cases:
        address = (VIP4 if inside == 4 else VIP6).format(host)
        assert set(clients.count_answers(lab.client, address, 40)) == {"b1", "b2", "b3"}
        assert clients.http_get(lab.client, address, "/", *long) in {"b1", "b2", "b3"}
    metrics = millrace.at_rest()
    assert metrics.sum("drops_total", reason="too_big") > 0
    assert metrics.sum("lb_packets_total", direction="original") > 4 * 40 * 4
    assert metrics.sum("lb_packets_total", direction="reply") == 0
    assert {row["mode"] for row in millrace.show("services")} == {kind}
