"""Debian's own dpdk-testpmd, with the software eSwitch as its device, and a far end for every wire of it.

::

    [far end "uplink"] --- veth --- net_af_packet0 ---+
                                                      |  net_eswitch0: port 0 (the wire, p0), port 1
    [far end "host"] ----- veth --- net_af_packet1 ---+  (the host's PF), port 2 (its VF 0), ...

All of it lives in one network namespace, which goes with it. testpmd is typed at, over a pseudoterminal, as
a person would: `command` types a line and returns what testpmd says until its next prompt.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import secrets
import select
import subprocess
import termios
import time
import tty
from pathlib import Path

from .frames import Wire
from .net import LabError, Netns, unload
from .telemetry import Telemetry

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "testpmd> "
# What testpmd's own line editor holds (RDLINE_BUF_SIZE); it cuts what is longer without a word.
LINE_MAX = 511
WIRES = ("uplink", "host", "vf0")
# Drivers for wires, and how they are told the interface.
DRIVERS = {"net_af_packet": "iface={0}", "net_pcap": "rx_iface_in={0},tx_iface={0}"}


def built_driver() -> Path:
    """The driver, or what ESWITCH_DRIVER names."""
    path = Path(os.environ.get("ESWITCH_DRIVER") or ROOT / "target/driver/libeswitch.so")
    if not path.exists():
        raise LabError(f"{path} is not there: cargo build --profile driver -p eswitch --features pmd")
    return path


def eal_options(wires: tuple[str, ...], devargs: str = "", driver: str = "net_af_packet") -> list[str]:
    """What gives any DPDK application this device, with these interfaces for wires."""
    names = [f"{'uplink' if name == 'uplink' else 'host'}={driver}{n}" for n, name in enumerate(wires)]
    # The eSwitch first, so that its ports are 0 and 1, as on a BlueField.
    device = ",".join(["net_eswitch0", *names, "mbufs=4096", *filter(None, [devargs])])
    options = ["--no-huge", "-m", "256", "--no-pci", "--no-shconf"]
    options += ["-d", str(built_driver()), "--vdev", device]
    for number, name in enumerate(wires):
        options += ["--vdev", f"{driver}{number},{DRIVERS[driver].format(name)}"]
    return options


class Testpmd:
    """testpmd at its prompt. `devargs` are the eSwitch's, `options` testpmd's own."""

    __test__ = False  # for pytest: no test, whatever its name
    cores = ("-l", "0,1")

    def __init__(
        self,
        log: Path,
        *,
        devargs: str = "",
        options: tuple[str, ...] = (),
        wires: tuple[str, ...] = WIRES[:2],
        driver: str = "net_af_packet",
    ):
        self.log = log.open("w")
        self._undo = contextlib.ExitStack()
        self._undo.callback(self.log.close)
        try:
            self.netns = Netns.create(f"mr{secrets.token_hex(3)}-testpmd")
            self._undo.callback(self.netns.remove)
            self.telemetry = Telemetry(self.netns.name)
            self._undo.callback(self.telemetry.remove)
            self.wires = {name: self._plug(name) for name in wires}
            self._terminal, self._process = self._start(devargs, options, driver)
            self.banner = self._until_prompt(30)
        except BaseException:
            self.close()
            raise

    def eal_options(self, devargs: str, driver: str) -> list[str]:
        """Its devices."""
        return eal_options(tuple(self.wires), devargs, driver)

    def _plug(self, name: str) -> Wire:
        self.netns.sysctl(ipv6__conf__default__disable_ipv6=1)
        self.netns.ip(
            f"link add {name}-far type veth peer name {name}",
            f"link set {name} mtu 2000 up",
            f"link set {name}-far mtu 2000 up",
        )
        for interface in (name, f"{name}-far"):
            unload(self.netns, interface)
        wire = Wire(self.netns, f"{name}-far")
        self._undo.callback(wire.socket.close)
        return wire

    def _start(self, devargs: str, options: tuple[str, ...], driver: str) -> tuple[int, subprocess.Popen]:
        argv = ["dpdk-testpmd", *self.cores, *self.eal_options(devargs, driver)]
        argv += [f"--file-prefix={self.netns.name}", "--"]
        argv += ["-i", "--total-num-mbufs=2048", "--forward-mode=rxonly", *options]
        terminal, slave = pty.openpty()
        self._undo.callback(os.close, terminal)
        tty.setraw(slave, termios.TCSANOW)
        guard = ["setpriv", "--pdeathsig", "KILL", "--"]
        environment = {**os.environ, "TERM": "dumb"}
        process = subprocess.Popen(
            [*guard, *self.netns.enter(argv)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment,
        )
        os.close(slave)
        return terminal, process

    def command(self, line: str, timeout: float = 20) -> str:
        """What testpmd says to this line; its echo is not part of it."""
        if len(line) > LINE_MAX:
            raise LabError(f"testpmd would cut this line of {len(line)} characters to {LINE_MAX}: {line}")
        self.spoken()
        os.write(self._terminal, line.encode() + b"\n")
        said = self._until_prompt(timeout)
        return said.removeprefix(line).removeprefix("\n")

    def spoken(self, timeout: float = 0) -> str:
        """What testpmd says by itself, e.g. about received packets; waits for its first word."""
        said = ""
        while (piece := self._read(timeout)) is not None:
            said += piece
            timeout = 0
        return said

    def _until_prompt(self, timeout: float) -> str:
        said, deadline = "", time.monotonic() + timeout
        # What it says of itself, about an event, may come behind the prompt.
        while PROMPT not in said:
            left = deadline - time.monotonic()
            piece = self._read(left) if left > 0 else None
            if piece is None:
                raise LabError(f"testpmd did not come back to its prompt in {timeout:g} s; it said:\n{said}")
            said += piece
        return said.replace(PROMPT, "")

    def _read(self, timeout: float) -> str | None:
        if not select.select([self._terminal], [], [], timeout)[0]:
            return None
        try:
            piece = os.read(self._terminal, 65536)
        except OSError:
            piece = b""
        if not piece:
            raise LabError(f"testpmd ended with {self._process.wait(5)}; see {self.log.name}")
        text = piece.decode(errors="replace").replace("\r", "")
        self.log.write(text)
        self.log.flush()
        return text

    def xstats(self, port: int = 0) -> dict[str, int]:
        """The extended statistics of a port."""
        said = self.command(f"show port xstats {port}")
        return {name: int(value) for name, value in re.findall(r"^(\w+): (\d+)$", said, re.MULTILINE)}

    def quit(self) -> int:
        """Ends testpmd as a person would; its exit status."""
        os.write(self._terminal, b"quit\n")
        with contextlib.suppress(LabError):
            while self._read(20) is not None:
                pass
        return self._process.wait(20)

    def close(self) -> None:
        """Ends testpmd, by force if it still runs, and removes the wires."""
        process = getattr(self, "_process", None)
        if process and process.poll() is None:
            process.kill()
            process.wait()
        self._undo.close()

    def __enter__(self) -> Testpmd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ServedTestpmd(Testpmd):
    """One with a service core that drives the device, whether or not it forwards."""

    cores = ("--lcores", "0@0,1@1,2@0", "-S", "1")
