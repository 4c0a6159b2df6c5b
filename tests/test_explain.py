"""What Millrace says of itself while it forwards: `trace` of live connections, and `top` on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

from lab import clients, servers
from lab.eswitch import Eswitch
from lab.lab import Lab
from lab.millrace import Millrace, service
from lab.net import wait_until
from lab.topology import VIP4, Shape


def trace(millrace: Millrace, flow: str, *words: str) -> dict:
    return json.loads(millrace.do("trace", flow, *words, "--json"))


def connection(millrace: Millrace, name: str, path: str) -> dict | None:
    """A connection of a service that takes this path."""
    found = millrace.show("connections", "--service", name)["connections"]
    return next((one for one in found if one["path"] == path), None)


@contextlib.contextmanager
def downloads(lab: Lab, *hosts: int) -> Iterator[None]:
    """A slow download from each of these VIPs."""
    servers.make_file(lab.files / "slow", 2_000_000)
    urls = [f"http://{VIP4.format(host)}/files/slow?rate=50000" for host in hosts]
    argv = ["curl", "-sS", "--max-time", "60", "-o", "/dev/null"]
    running = [clients.Background(lab.client, [*argv, url]) for url in urls]
    try:
        yield
    finally:
        for one in running:
            one.kill()


def test_trace_explains_live_connections(labs):
    """One that hardware forwards for, and one that is kept in software: with its rules, or the reason."""
    lab = labs(Shape(backends=2), eswitch=Eswitch("hws"))
    kept = service("kept", 2, backends=(2,), offload=False)
    millrace = lab.start_millrace([service("web", 1, backends=(1,)), kept])
    with downloads(lab, 1, 2):
        hard = wait_until("a connection in hardware", lambda: connection(millrace, "web", "hardware"))
        soft = wait_until("a connection in software", lambda: connection(millrace, "kept", "software"))
        told = trace(millrace, f"{hard['client']} -> {hard['vip']}/tcp", "--tcp-flags", "A")
        assert told["connection"]["backend"] == hard["backend"], told
        assert told["connection"]["path"] == "hardware" and told["hardware"].startswith("hardware has"), told
        directions = sorted(rule["direction"] for rule in told["rules"])
        assert directions == ["original", "reply"] and all("pattern" in rule["rule"] for rule in told["rules"]), told
        told = trace(millrace, f"{soft['client']} -> {soft['vip']}/tcp", "--tcp-flags", "A")
        assert told["hardware"].startswith("kept in software by the configuration") and not told["rules"], told
        assert told["verdict"] == "forwarded to back", told
        known = next(step for step in told["steps"] if step["step"] == "connection")
        lines = millrace.file.read_text().splitlines()
        assert lines[known["line"] - 1] == 'name = "kept"', known


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, argv: list[str], rows: int = 30, columns: int = 120):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        environment = {**os.environ, "TERM": "xterm-256color"}
        ends = dict.fromkeys(("stdin", "stdout", "stderr"), self.slave)
        self.popen = subprocess.Popen(argv, env=environment, start_new_session=True, **ends)
        self.shown = ""

    def read(self, seconds: float) -> str:
        """Everything that was shown so far, with what comes within this time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                self.shown += os.read(self.master, 65536).decode(errors="replace")
        return self.shown

    def wait_for(self, text: str) -> None:
        wait_until(f"{text!r} on the terminal", lambda: text in self.read(0.1), 10)

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def end(self) -> int:
        """Its exit code; the terminal must be as it was."""
        wait_until("the command to end", lambda: self.read(0.1) and self.popen.poll() is not None, 10)
        assert termios.tcgetattr(self.slave) == self.before
        os.close(self.slave)
        os.close(self.master)
        return self.popen.returncode


def busy(millrace: Millrace) -> dict | None:
    """What flows, if anything does."""
    seen = json.loads(millrace.do("top", "--json", "--interval-ms", "500"))
    return seen if seen["packets_per_second"] and seen["connections"] else None


def test_top_shows_what_flows(labs):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1)])
    argv = [str(millrace.binary), "--socket", str(millrace.socket), "top", "--interval-ms", "200"]
    with downloads(lab, 1):
        seen = wait_until("packets to be seen", lambda: busy(millrace))
        assert seen["connections"] == 1, seen
        assert [one["service"] for one in seen["services"]] == ["web"] and len(seen["backends"]) == 3
        assert seen["backends"][0]["connections"] == 1, "the busiest comes first"
        # Without a terminal it looks once.
        text = millrace.do("top", "--interval-ms", "200")
        assert "SERVICE" in text and "web" in text and "\x1b" not in text
        for leave in ("q", "\x1b", "\x03"):
            terminal = Terminal(argv)
            terminal.wait_for("SERVICE")
            terminal.wait_for("web")
            terminal.press(leave)
            assert terminal.end() == 0
            assert "\x1b[?1049l" in terminal.shown, "the screen from before is back"
    terminal = Terminal(argv)
    terminal.wait_for("SERVICE")
    terminal.popen.terminate()
    assert terminal.end() == 0


def test_top_of_nothing(labs):
    """Whoever runs is gone: an error, and the terminal untouched."""
    lab = labs()
    millrace = lab.start_millrace([service("web", 1)])
    argv = [str(millrace.binary), "--socket", str(millrace.socket), "top"]
    millrace.stop()
    terminal = Terminal(argv)
    assert terminal.end() == 1
    assert "not running" in terminal.shown and "\x1b[?1049h" not in terminal.shown
