"""Tenants: two on VLANs of the same ports, with the same addresses and services."""

import collections
import contextlib
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import clients, servers
from lab.eswitch import Eswitch
from lab.frames import Wire
from lab.millrace import Millrace, service
from lab.net import LabError, Process, wait_until
from lab.topology import BACK4, CLIENT4, FRONT4, VIP4, Shape, backend4
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether

VLAN = Path(__file__).resolve().parents[1] / "scripts" / "lab" / "vlan.py"
VIP = VIP4.format(1)
# Their VLANs; blue's servers are on b1 and red's on b2, at one address.
VLANS = {"blue": 10, "red": 20}
FLOOD = 20_000
SHARE = 2_000


def join(lab, netns, link: str, vlan: int, address: str, *routes: str) -> None:
    """Puts a namespace on a VLAN of what its `link` is on, and on nothing else there."""
    netns.sysctl(ipv6__conf__all__disable_ipv6=1)
    netns.ip(f"addr flush dev {link}")
    try:
        netns.ip(f"link add link {link} name vlan type vlan id {vlan}")
    except LabError:
        # Not with this kernel.
        with Wire(netns, link) as wire:
            mac = wire.mac.hex(":")
        argv = netns.enter([sys.executable, str(VLAN), link, str(vlan), "vlan", mac])
        program = Process(f"vlan in {netns.name}", argv, lab.directory / f"{netns.name}-vlan.log")
        lab.processes.append(program)
        wait_until("the VLAN device", lambda: "ready" in program.tail())
    netns.ip("link set vlan up", f"addr add {address}/24 dev vlan", *(f"route add {route}" for route in routes))


class Tenants:
    """A lab with two tenants, and Millrace running. `limits` are keys of blue's `[[tenant]]`."""

    def __init__(self, labs, eswitch: Eswitch | None = None, offload: dict | None = None, **limits: object):
        self.lab = lab = labs(Shape(backends=2), eswitch=eswitch)
        self.clients = {}
        # Whose messages to all routers and listeners would be drops to count.
        lab.client.sysctl(ipv6__conf__all__disable_ipv6=1)
        for (name, vlan), backend in zip(VLANS.items(), lab.network.backends, strict=True):
            client = self.clients[name] = lab.network.add_client(name, f"02:00:00:00:01:{vlan:02x}")
            join(lab, client, "eth0", vlan, CLIENT4, f"203.0.113.0/24 via {FRONT4}")
            join(lab, backend, "back", vlan, backend4(1), f"default via {BACK4}")
        self.millrace: Millrace = lab.start_millrace(
            [one for name in VLANS for one in self._services(name)],
            ports={"front": {"addresses": []}, "back": {"addresses": []}},
            port=[
                {"name": f"{side}-{name}", "parent": side, "vlan": vlan, "tenant": name, "addresses": [f"{own}/24"]}
                for name, vlan in VLANS.items()
                for side, own in (("front", FRONT4), ("back", BACK4))
            ],
            offload=offload or {},
            tenant=[{"name": name, **(limits if name == "blue" else {})} for name in VLANS],
        )

    @staticmethod
    def _services(name: str) -> list[dict]:
        web = service(f"web-{name}", 1, backends=[1], tenant=name)
        return [web, service(f"dns-{name}", 1, 53, protocol="udp", backends=[1], tenant=name)]

    def get(self, name: str, *options: str) -> str:
        return clients.http_get(self.clients[name], VIP, "/", *options)

    def load(self, name: str, number: int) -> dict[str, int]:
        return dict(clients.count_answers(self.clients[name], VIP, number))

    def rows(self, what: str) -> dict[str, dict]:
        return {row["name"]: row for row in self.millrace.show(what)}


def test_tenants_with_the_same_addresses_do_not_meet(labs):
    tenants = Tenants(labs)
    for name, server in zip(VLANS, ("b1", "b2"), strict=True):
        # The other's connection from the same port to the same VIP is still there.
        assert tenants.get(name, "--local-port", "40000") == server
        assert clients.dig(tenants.clients[name], VIP) == server
    with ThreadPoolExecutor() as pool:
        both = pool.map(tenants.load, VLANS, [200, 200])
        assert list(both) == [{"b1": 200}, {"b2": 200}]
    metrics = tenants.millrace.at_rest()
    assert {name: row["opened"] for name, row in tenants.rows("services").items()} == {
        "web-blue": 201, "dns-blue": 1, "web-red": 201, "dns-red": 1,
    }
    assert metrics.by("drops_total", "reason") == {}
    # What nobody's VLAN says is nobody's.
    with Wire(tenants.clients["blue"], "eth0") as wire:
        wire.send(syn(wire, 30, 5555))
    dropped = lambda: tenants.millrace.metrics().by("drops_total", "reason")  # noqa: E731
    wait_until("the drop", lambda: dropped() == {"vlan_mismatch": 1})


def syn(wire: Wire, vlan: int, port: int, client: str = CLIENT4) -> bytes:
    frame = Ether(src=wire.mac, dst="02:00:00:00:01:01") / Dot1Q(vlan=vlan)
    return bytes(frame / IP(src=client, dst=VIP) / TCP(sport=port, dport=80, flags="S"))


def flood(tenants: Tenants, done: threading.Event) -> None:
    """Many clients' SYNs that nobody means, from a few templates: building each would be slow."""
    with Wire(tenants.clients["blue"], "eth0") as wire:
        # TCP's checksum is kept by changing the port and taking the same off the window.
        base = bytearray(syn(wire, VLANS["blue"], 1024))
        window = int.from_bytes(base[52:54], "big")
        for n in range(FLOOD):
            base[38:40] = (1024 + n).to_bytes(2, "big")
            base[52:54] = ((window - n) % 0xFFFF).to_bytes(2, "big")
            wire.send(base)
            if n % 100 == 99:
                time.sleep(0.004)
    done.set()


def test_a_flood_of_one_tenant_costs_another_nothing(labs):
    tenants = Tenants(labs, connections=SHARE, half_open_percent=50)
    # Neighbours are known from here on.
    assert tenants.load("blue", 50) == {"b1": 50} and tenants.load("red", 50) == {"b2": 50}
    done = threading.Event()
    sender = threading.Thread(target=flood, args=(tenants, done))
    sender.start()
    answered, tried = 0, 0
    while not done.is_set() or tried == 0:
        answered += tenants.load("red", 100).get("b2", 0)
        tried += 100
    sender.join()
    metrics = tenants.millrace.at_rest()
    assert answered == tried
    services = tenants.rows("services")
    assert services["web-red"]["opened"] == 50 + tried and services["web-red"]["dropped"] == 0
    blue = services["web-blue"]
    assert blue["opened"] + blue["dropped"] >= FLOOD // 2 and blue["connections"] <= SHARE
    # What was dropped for want of room was blue's, and so were the answers to what was given up.
    drops = metrics.by("drops_total", "reason")
    assert set(drops) <= {"half_open_limit", "tenant_limit", "no_connection"}
    assert metrics.by("tenant_drops_total", "reason", tenant="blue") == drops
    assert metrics.by("tenant_drops_total", "reason", tenant="red") == {}
    held = tenants.rows("tenants")
    assert held["blue"]["refused"] == blue["dropped"] and held["blue"]["connections"] <= SHARE
    assert held["red"]["opened"] == services["web-red"]["opened"] and held["red"]["refused"] == 0
    for direction in ("original", "reply"):
        assert held["red"][direction] == services["web-red"][direction]


def in_hardware(millrace: Millrace) -> collections.Counter:
    """Connections in hardware, by tenant."""
    rows = millrace.show("connections")["connections"]
    return collections.Counter(row["service"].split("-")[1] for row in rows if row["path"] == "hardware")


@contextlib.contextmanager
def downloads(tenants: Tenants, name: str, number: int, seconds: int):
    """Connections that carry packets all the time."""
    size = 100_000 * seconds
    servers.make_file(tenants.lab.files / name, size)
    argv = ["curl", "-sS", "--parallel", "--parallel-max", str(number), "--parallel-immediate", "--no-progress-meter"]
    argv += ["--fail", "--max-time", "60", "-o", "/dev/null", f"http://{VIP}/files/{name}?rate=100000&n=[1-{number}]"]
    client = clients.Background(tenants.clients[name], argv)
    try:
        yield client
    finally:
        client.kill()


def test_a_tenant_that_wants_all_rules_leaves_another_its_share(labs):
    tenants = Tenants(
        labs,
        eswitch=Eswitch("hws"),
        offload={"rules_max": 20, "tenant_share_percent": 40, "price_min": 2},
        offload_share_percent=60,
    )
    millrace = tenants.millrace
    with downloads(tenants, "blue", 20, 20):
        wait_until("blue's share", lambda: in_hardware(millrace)["blue"] == 6)
        with downloads(tenants, "red", 4, 20):
            wait_until("red's share", lambda: in_hardware(millrace)["red"] == 4)
            for _ in range(10):
                assert in_hardware(millrace) == {"blue": 6, "red": 4}
                time.sleep(0.1)
            metrics = millrace.metrics()
            assert metrics.sum("offload_evictions_total", reason="full") == 0
            assert metrics.sum("tenant_packets_total", tenant="red", path="hw") > 0
