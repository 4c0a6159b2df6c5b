"""Network namespaces and what is done inside them: commands, long-running programs, sockets.

`nsenter` is used rather than `ip netns exec`: the latter remounts /sys, which fails where / is not a
mount point (a chroot).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_entering = threading.Lock()


class LabError(Exception):
    """Something in the lab did not come to be; the message is for a person."""


def run(argv: list[str], *, text: str | None = None, check: bool = True, timeout: float = 60) -> str:
    """Runs a command, and returns its standard output."""
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def wait_until(what: str, condition: Callable[[], object], timeout: float = 10, pause: float = 0.05) -> object:
    """Polls until `condition` gives something true, and returns that."""
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout:g} s in vain: {what}")
        time.sleep(pause)


class Process:
    """A program that runs until it is stopped; its output goes to a file."""

    def __init__(self, name: str, argv: list[str], log: Path, *, outlive: bool = False):
        # Unless it shall outlive us, the kernel ends the program when this process dies, however it dies.
        guard = [] if outlive else ["setpriv", "--pdeathsig", "KILL", "--"]
        self.name, self.log = name, log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                guard + argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def alive(self) -> bool:
        return self.popen.poll() is None

    def must_be_alive(self) -> None:
        if not self.alive():
            raise LabError(f"{self.name} ended with {self.popen.returncode}; its log ends:\n{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """The last lines of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, sig: int = signal.SIGTERM, timeout: float = 5) -> float:
        """Ends it, by force if need be; returns how many seconds that took."""
        started = time.monotonic()
        if self.alive():
            self.popen.send_signal(sig)
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                self.popen.wait()
        return time.monotonic() - started


class Netns:
    """One named network namespace."""

    def __init__(self, name: str):
        self.name, self.path = name, Path("/run/netns") / name

    @classmethod
    def create(cls, name: str) -> Netns:
        netns = cls(name)
        run(["ip", "netns", "add", name])
        netns.ip("link set lo up")
        return netns

    def enter(self, argv: list[str]) -> list[str]:
        """The command line that runs `argv` in here."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def run(self, argv: list[str], **options) -> str:
        return run(self.enter(argv), **options)

    def ip(self, *commands: str) -> None:
        """Runs `ip` commands (without the leading word) as one batch."""
        self.run(["ip", "-batch", "-"], text="\n".join(commands) + "\n")

    def sysctl(self, **settings: object) -> None:
        """Sets sysctls below `net.`; `__` stands for a dot."""
        pairs = [f"net.{key.replace('__', '.')}={value}" for key, value in settings.items()]
        self.run(["sysctl", "-q", "-w", *pairs])

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Moves the calling thread in here for a moment. Sockets opened meanwhile stay in here."""
        with _entering, open("/proc/thread-self/ns/net") as home, self.path.open() as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this namespace, for use by this process."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    def remove(self) -> None:
        """Removes it, and ends what still runs in it. No matter if it is gone."""
        for pid in run(["ip", "netns", "pids", self.name], check=False).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run(["ip", "netns", "del", self.name], check=False)


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")


# Millrace sees frames as a NIC would give them: one segment each, checksums filled in, tags in place.
_OFFLOADS = "rx tx sg tso gso gro lro rxvlan txvlan".split()


def plug(switch: Netns, bridge: str, netns: Netns, interface: str, mac: str, mtu: int) -> None:
    """Connects `interface` of `netns` to `bridge` of `switch` by a veth pair, and brings both up."""
    port = f"{interface}-{netns.name.rsplit('-', 1)[-1]}"
    switch.ip(
        f"link add {port} type veth peer name {interface} address {mac} netns {netns.name}",
        f"link set {port} mtu {mtu} master {bridge} up",
    )
    netns.ip(f"link set {interface} mtu {mtu} up")
    for where, name in ((switch, port), (netns, interface)):
        unload(where, name)


def unload(netns: Netns, interface: str) -> None:
    """Switches an interface's offloads off."""
    # Features that cannot be changed are reported and harmless, hence no check.
    netns.run(["ethtool", "-K", interface, *(word for o in _OFFLOADS for word in (o, "off"))], check=False)
