"""Who is connected to whom.

::

              front 192.0.2.0/24, 2001:db8:f::/64
       ------+----------------+-------------+----
             |.10 (.128-.254) |.1 p0        |.11 .12 ... (with dsr)
         [client]         [millrace]     [b1] [b2] ...
                              |.1 p1        |.11 .12 ...
              ----------------+-------------+----
              back 198.51.100.0/24, 2001:db8:b::/64

Both segments are bridges in a namespace of their own. The client routes the VIPs' networks to Millrace;
the backends' default gateway is Millrace. With `dsr`, backends hold the VIPs on `lo`, do not answer ARP
for them, and have a second interface on the front segment: what leaves with a VIP as its source goes
straight to the client, and what leaves with a back address goes through Millrace.

With `one_arm`, both networks are on the front segment, and Millrace has one port, p0, with an address in each.

The millrace namespace's kernel has no address on p0 and p1: everything there is Millrace's to answer.
"""

from __future__ import annotations

import dataclasses

from .net import Netns, plug

VIP4, VIP6 = "203.0.113.{}", "2001:db8:5e::{}"
CLIENT4, CLIENT6 = "192.0.2.10", "2001:db8:f::10"
FRONT4, FRONT6 = "192.0.2.1", "2001:db8:f::1"
BACK4, BACK6 = "198.51.100.1", "2001:db8:b::1"
# VIPs that DSR services may use: the backends hold them.
DSR_HOSTS = range(100, 110)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What can be chosen about the network."""

    backends: int = 3
    dsr: bool = False
    one_arm: bool = False
    """Backends are behind the wire that clients are behind."""
    mtu: int = 1500
    """Of every link."""
    sources: int = 0
    """Additional client addresses of each family, at most 127."""
    delay_ms: int = 0
    """Added to what the client sends."""


class Network:
    """The namespaces, connected."""

    def __init__(self, name: str, shape: Shape):
        self.name, self.shape = name, shape
        self.namespaces: list[Netns] = []
        try:
            self.switch = self._add(f"{name}-switch")
            self.client = self._add(f"{name}-client")
            self.millrace = self._add(f"{name}-millrace")
            self.backends = [self._add(f"{name}-b{n}") for n in range(1, shape.backends + 1)]
            self._build()
        except BaseException:
            self.remove()
            raise

    def _add(self, name: str) -> Netns:
        netns = Netns.create(name)
        self.namespaces.append(netns)
        netns.sysctl(
            ipv6__conf__default__accept_dad=0,
            ipv6__conf__default__accept_ra=0,
            ipv6__conf__default__dad_transmits=0,
            ipv4__conf__all__rp_filter=0,
            ipv4__conf__default__rp_filter=0,
        )
        return netns

    def remove(self) -> None:
        for netns in reversed(self.namespaces):
            netns.remove()

    def _build(self) -> None:
        self.switch.sysctl(ipv6__conf__default__disable_ipv6=1)
        for bridge in ("br-front", "br-back"):
            self.switch.ip(
                f"link add {bridge} type bridge mcast_snooping 0 forward_delay 0",
                f"link set {bridge} mtu {self.shape.mtu} up",
            )
        self._build_millrace()
        self._build_client()
        for n, backend in enumerate(self.backends, start=1):
            self._build_backend(n, backend)

    def _plug(self, segment: str, netns: Netns, interface: str, mac: str) -> None:
        segment = "front" if self.shape.one_arm else segment
        plug(self.switch, f"br-{segment}", netns, interface, mac, self.shape.mtu)

    def _build_millrace(self) -> None:
        self.millrace.sysctl(ipv6__conf__default__disable_ipv6=1)
        self._plug("front", self.millrace, "p0", "02:00:00:00:01:01")
        if not self.shape.one_arm:
            self._plug("back", self.millrace, "p1", "02:00:00:00:02:01")

    def _build_client(self) -> None:
        self.client.sysctl(ipv4__ip_local_port_range="1024 65535", ipv4__tcp_tw_reuse=1)
        self._plug("front", self.client, "eth0", "02:00:00:00:01:10")
        self.client.ip(
            f"addr add {CLIENT4}/24 dev eth0",
            f"addr add {CLIENT6}/64 dev eth0 nodad",
            f"route add 203.0.113.0/24 via {FRONT4}",
            f"route add 198.51.100.0/24 via {FRONT4}",
            f"route add 2001:db8:5e::/64 via {FRONT6}",
            f"route add 2001:db8:b::/64 via {FRONT6}",
            *(f"addr add {address}/24 dev eth0" for address in self.sources(4)),
            *(f"addr add {address}/64 dev eth0 nodad preferred_lft 0" for address in self.sources(6)),
        )
        if self.shape.delay_ms:
            self.client.run(f"tc qdisc add dev eth0 root netem delay {self.shape.delay_ms}ms limit 100000".split())

    def add_client(self, name: str, mac: str) -> Netns:
        """One more namespace on the front segment, as eth0, without addresses."""
        netns = self._add(f"{self.name}-{name}")
        self._plug("front", netns, "eth0", mac)
        return netns

    def sources(self, family: int) -> list[str]:
        """The client's additional addresses."""
        prefix = "192.0.2." if family == 4 else "2001:db8:f::"
        return [f"{prefix}{n if family == 4 else format(n, 'x')}" for n in range(128, 128 + self.shape.sources)]

    def _build_backend(self, n: int, backend: Netns) -> None:
        self._plug("back", backend, "back", f"02:00:00:00:02:{0x10 + n:02x}")
        backend.ip(
            f"addr add {backend4(n)}/24 dev back",
            f"addr add {backend6(n)}/64 dev back nodad",
            f"route add default via {BACK4}",
            f"route add ::/0 via {BACK6}",
        )
        if self.shape.dsr:
            self._add_direct_return(n, backend)

    def _add_direct_return(self, n: int, backend: Netns) -> None:
        backend.sysctl(ipv4__conf__all__arp_ignore=1, ipv4__conf__all__arp_announce=2)
        self._plug("front", backend, "front", f"02:00:00:00:01:{0x10 + n:02x}")
        backend.ip(
            f"addr add 192.0.2.{10 + n}/24 dev front",
            f"addr add 2001:db8:f::{10 + n}/64 dev front nodad",
            *(f"addr add {VIP4.format(host)}/32 dev lo" for host in DSR_HOSTS),
            *(f"addr add {VIP6.format(host)}/128 dev lo nodad" for host in DSR_HOSTS),
            f"route add default via {BACK4} table 100",
            f"route add ::/0 via {BACK6} table 100",
            "rule add from 198.51.100.0/24 table 100",
        )
        # In a batch, `rule` takes IPv4 only.
        backend.run("ip -6 rule add from 2001:db8:b::/64 table 100".split())


def backend4(n: int) -> str:
    """IPv4 address of backend `n`, counted from 1."""
    return f"198.51.100.{10 + n}"


def backend6(n: int) -> str:
    """IPv6 address of backend `n`, counted from 1."""
    return f"2001:db8:b::{10 + n}"
