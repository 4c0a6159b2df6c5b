"""What the device under test serves, as a generator has to know it."""

from __future__ import annotations

import dataclasses
import ipaddress
import tomllib
from pathlib import Path


class TestbedError(Exception):
    """A testbed's file cannot be used; the message says what to do."""

    __test__ = False  # for pytest: no test, whatever its name


@dataclasses.dataclass(frozen=True)
class Scene:
    """Addresses on both sides.

    ::

        [clients, generator's port 0] --- device --- [servers, generator's port 1]
    """

    vip: str = "203.0.113.80"
    udp_port: int = 5001
    """Of the service that the datagrams of known sizes go to."""
    dns_port: int = 53
    http_port: int = 80
    client: str = "100.64.0.1"
    """The first client."""
    clients: int = 1000
    """Addresses of clients, from the first on."""
    ports: int = 32
    """Ports of each, from 1024 on: clients x ports is the number of stateless flows."""
    servers: tuple[str, ...] = ("198.51.100.11", "198.51.100.12", "198.51.100.13")
    client_mac: str = "02:00:00:00:0c:01"
    server_mac: str = "02:00:00:00:0c:02"
    device_macs: tuple[str, str] = ("02:00:00:00:01:01", "02:00:00:00:02:01")
    """Of the device's ports, where the generator's frames go: towards clients, towards servers."""

    def __post_init__(self) -> None:
        if not 1 <= self.clients <= 1 << 20 or not 1 <= self.ports <= 64512:
            raise TestbedError("scene: clients from 1 to 1048576, and ports of each from 1 to 64512")
        for address in (self.vip, self.client, *self.servers):
            try:
                ipaddress.IPv4Address(address)
            except ValueError as error:
                raise TestbedError(f"scene: {error}") from error
        if not self.servers:
            raise TestbedError("scene: at least one server")

    @property
    def client_last(self) -> str:
        """The last client."""
        return str(ipaddress.IPv4Address(self.client) + self.clients - 1)

    @property
    def flows(self) -> int:
        """How many stateless flows there are."""
        return self.clients * self.ports


@dataclasses.dataclass(frozen=True)
class Testbed:
    """Where experiments take place."""

    __test__ = False  # for pytest: no test, whatever its name

    name: str
    about: str
    lab: bool
    """Whether Millrace is started here, on memif ports; otherwise it runs already."""
    link_gbps: float
    """Speed of the links: the highest rate that is tried."""
    scene: Scene
    server: str = "127.0.0.1"
    """Where TRex's server is, or is to be started."""
    start: bool = True
    """Whether the runner starts and ends TRex's server; it can only do so on this machine."""
    trex: dict = dataclasses.field(default_factory=dict)
    """What is added to TRex's own configuration: `interfaces`, `c`, `platform`, ..."""
    metrics: str = ""
    """The URL of Millrace's metrics, if it runs already."""
    ports: tuple[str, str] = ("front", "back")
    """Names of its ports, towards clients and towards servers."""
    max_pps: float | None = None
    """The highest rate that is tried, where not the link but the generator sets it."""

    def as_json(self) -> dict:
        """Everything, for the results."""
        return dataclasses.asdict(self)


def load(path: Path) -> Testbed:
    """Reads a testbed's file.

    Raises `TestbedError` for what cannot be, naming the key.
    """
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as error:
        raise TestbedError(f"{path}: {error.strerror}; --testbed names a file like those in scripts/trex/testbeds/")
    except tomllib.TOMLDecodeError as error:
        raise TestbedError(f"{path}: {error}") from error
    scene = _fill(path, "scene", Scene, raw.pop("scene", {}))
    testbed = _fill(path, "", Testbed, {**raw, "scene": scene})
    if not testbed.lab and not testbed.metrics:
        raise TestbedError(f"{path}: metrics: where Millrace's are, e.g. http://192.168.100.2:9095/metrics")
    if testbed.start and testbed.server not in ("127.0.0.1", "localhost"):
        raise TestbedError(f"{path}: server: TRex's server is started on this machine only; elsewhere, start = false")
    if testbed.start and not testbed.lab and not testbed.trex.get("interfaces"):
        raise TestbedError(f"{path}: trex.interfaces: the PCI addresses of TRex's two ports, or start = false")
    return testbed


def _fill(path: Path, place: str, kind: type, values: dict):
    """A dataclass of a table's values; lists become tuples."""
    names = {field.name for field in dataclasses.fields(kind)}
    for key in values.keys() - names:
        where = f"{place}.{key}" if place else key
        raise TestbedError(f"{path}: {where}: no such key; there are {', '.join(sorted(names))}")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except TypeError as error:
        raise TestbedError(f"{path}: {place or 'the file'}: {error}") from error
