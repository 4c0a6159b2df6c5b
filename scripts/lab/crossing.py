"""A client and a server that reach each other only through the software eSwitch, by its rules.

::

    [client] eth0 --- veth --- uplink -+- net_eswitch0 -+- host --- veth --- eth0 [server]

    client 10.0.0.2, fd00::2     the switch, 02:...:fe, is     server 10.1.0.2, fd00:1::2
    02:00:00:00:00:01            everyone's gateway            02:00:00:00:00:02, port 9000

The virtual address 192.0.2.80 and 2001:db8::80, port 80, is nobody's: rules translate it there and back.
Neighbours are known from the start, so that whatever does not match a rule is a failure that is seen.
"""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

from .net import LabError, Netns, run, unload
from .servers import Nginx
from .testpmd import ROOT, WIRES, Testpmd, eal_options

GATEWAY = "02:00:00:00:00:fe"
CLIENT_MAC, SERVER_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
VIPS = {4: "192.0.2.80", 6: "2001:db8::80"}
SERVER_PORT = 9000
# Applications sleep or type on the first CPU; a service core on the second drives the device.
SERVICE = ("--lcores", "0@0,1@1,2@0", "-S", "1")


def client_address(family: int, number: int = 0) -> str:
    return f"10.0.0.{2 + number}" if family == 4 else f"fd00::{2 + number:x}"


class Ends:
    """The two ends, once `switch` is there to stand between them."""

    def __init__(self, switch: Netns, directory: Path):
        prefix = switch.name.rsplit("-", 1)[0]
        self.client, self.server = Netns.create(f"{prefix}-client"), Netns.create(f"{prefix}-server")
        try:
            self._connect(switch, self.client, "uplink", CLIENT_MAC, "10.0.{}.{}/16", "fd00::{}/64")
            self._connect(switch, self.server, "host", SERVER_MAC, "10.1.{}.{}/16", "fd00:1::{}/64")
            self.files = directory / "files"
            self.files.mkdir()
            self.web = Nginx(self.server, "server", directory / "nginx", self.files, outlive=False)
        except BaseException:
            self.close()
            raise

    def _connect(self, switch: Netns, end: Netns, port: str, mac: str, address4: str, address6: str) -> None:
        switch.sysctl(ipv6__conf__default__disable_ipv6=1)
        switch.ip(f"link add {port} type veth peer name eth0 address {mac} netns {end.name}", f"link set {port} up")
        end.ip("link set eth0 addrgenmode none up")
        for netns, interface in ((switch, port), (end, "eth0")):
            unload(netns, interface)
        gateway4, gateway6 = address4.format(255, 254).split("/")[0], address6.format("fe").split("/")[0]
        end.ip(
            *(f"address add {address4.format(0, number)} dev eth0" for number in range(2, 14)),
            *(f"address add {address6.format(f'{number:x}')} dev eth0 nodad" for number in range(2, 14)),
            f"neigh replace {gateway4} lladdr {GATEWAY} dev eth0 nud permanent",
            f"neigh replace {gateway6} lladdr {GATEWAY} dev eth0 nud permanent",
            f"route add default via {gateway4} src {address4.format(0, 2).split('/')[0]}",
            f"route add default via {gateway6} src {address6.format(2).split('/')[0]}",
        )

    def close(self) -> None:
        for netns in (self.client, self.server):
            netns.remove()


class IdleTestpmd(Testpmd):
    """testpmd between two ends. It forwards nothing; a service core drives the device."""

    cores = SERVICE

    def __init__(self, directory: Path, **options):
        self._directory = directory
        super().__init__(directory / "testpmd.log", **options)

    def _plug(self, name: str) -> None:
        """The first wire brings both: they come up together."""
        if name == WIRES[0]:
            self.ends = Ends(self.netns, self._directory)
            self._undo.callback(self.ends.close)

    def received(self) -> list[int]:
        """How many packets there were for the application's ports."""
        rows = [self.xstats(port) for port in range(len(WIRES[:2]))]
        return [xstats["rx_delivered"] + xstats["rx_full"] for xstats in rows]


class Idle:
    """tests/eswitch/idle.c between two ends: made rules for that many connections, and sleeps."""

    def __init__(self, directory: Path, connections: int, devargs: str):
        binary = build(ROOT / "tests/eswitch/idle.c", directory)
        self.netns = Netns.create(f"mr{secrets.token_hex(3)}-idle")
        self.ends = None
        self._log = (directory / "idle.log").open("w+")
        self._process = None
        try:
            self.ends = Ends(self.netns, directory)
            argv = [str(binary), "-l", "0,1", "-S", "1", "--no-telemetry"]
            argv += [*eal_options(WIRES[:2], devargs), "--", str(connections)]
            guard = ["setpriv", "--pdeathsig", "KILL", "--"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                [*guard, *self.netns.enter(argv)], stdin=pipe, stdout=pipe, stderr=self._log, text=True
            )
            self.banner = self._line("made ")
        except BaseException:
            self.close()
            raise

    def _line(self, start: str) -> str:
        for line in self._process.stdout:
            if line.startswith(start):
                return line.rstrip()
        self._log.seek(0)
        raise LabError(f"idle ended with {self._process.wait(5)}:\n{self._log.read()}")

    def received(self) -> list[int]:
        """How many packets there were for the application's ports."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        # port 0 received N port 1 received N
        return [int(word) for word in self._line("port ").split()[3::4]]

    def quit(self) -> int:
        self._process.stdin.close()
        return self._process.wait(60)

    def close(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self.ends:
            self.ends.close()
        self.netns.remove()
        self._log.close()

    def __enter__(self) -> Idle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def build(source: Path, directory: Path) -> Path:
    """Compiles a DPDK application of one file."""
    binary = directory / source.stem
    flags = {kind: run(["pkg-config", f"--{kind}", "libdpdk"]).split() for kind in ("cflags", "libs")}
    warnings = ["-Wall", "-Wextra", "-Werror"]
    run(["cc", "-O2", *warnings, *flags["cflags"], str(source), "-o", str(binary), *flags["libs"]])
    return binary
