"""Real clients, and what their output means."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections import Counter
from pathlib import Path

from .net import LabError, Netns, Process


def host(address: str) -> str:
    """The address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


def http_get(
    netns: Netns, address: str, path: str = "/", *options: str, port: int = 80, timeout: float = 10
) -> str:
    """The body of `http://address:port/path`."""
    url = f"http://{host(address)}:{port}{path}"
    argv = ["curl", "-gsS", "--fail", "--max-time", f"{timeout:g}", *options, url]
    return netns.run(argv, timeout=timeout + 5).strip()


def http_sha256(netns: Netns, address: str, path: str, timeout: float = 300) -> str:
    """The sha256 of a download, which is not stored."""
    url = f"http://{host(address)}{path}"
    script = 'set -o pipefail; curl -gsS --fail --max-time "$1" "$2" | sha256sum'
    return netns.run(["bash", "-c", script, "-", f"{timeout:g}", url], timeout=timeout + 5).split()[0]


def http_put(netns: Netns, address: str, path: str, file: Path, timeout: float = 300) -> None:
    """Uploads a file."""
    argv = ["curl", "-gsS", "--fail", "--max-time", f"{timeout:g}", "-T", str(file)]
    netns.run([*argv, f"http://{host(address)}{path}"], timeout=timeout + 5)


def http_kept(netns: Netns, address: str, path: str, store: Path, upload: str, timeout: float = 300) -> None:
    """On one connection: a little of a file, slowly, then all of it, stored, then what was stored uploaded. By the
    time that much is sent, the connection has long been established."""
    begin = ["-gsS", "--fail", "--max-time", f"{timeout:g}", "-w", "%{num_connects}\n"]
    root = f"http://{host(address)}"
    little = [*begin, "-o", os.devnull, "-r", "0-99999", f"{root}{path}?rate=200000"]
    whole = [*begin, "-o", str(store), f"{root}{path}"]
    back = [*begin, "-T", str(store), f"{root}{upload}"]
    opened = netns.run(["curl", *little, "--next", *whole, "--next", *back], timeout=3 * timeout).split()
    if opened != ["1", "0", "0"]:
        raise LabError(f"connections opened by each request: {' '.join(opened)}, expected 1 0 0")


def count_answers(netns: Netns, address: str, number: int, *options: str, parallel: int = 16) -> Counter[str]:
    """Who answers `number` HTTP requests, each on a connection of its own."""
    # One curl does them all, by a URL range; an IPv6 address's own brackets are no range.
    netloc = host(address).replace("[", "\\[").replace("]", "\\]")
    url = f"http://{netloc}/?n=[1-{number}]"
    argv = ["curl", "-sS", "--fail", "--max-time", "20", "--no-keepalive", "-H", "Connection: close"]
    argv += ["--no-progress-meter", "--parallel", "--parallel-max", str(parallel), "--parallel-immediate"]
    argv += [*options, url]
    return Counter(netns.run(argv, timeout=60 + number / 50).split())


class Background:
    """A client at work while something else happens."""

    def __init__(self, netns: Netns, argv: list[str]):
        pipe = subprocess.PIPE
        self._popen = subprocess.Popen(netns.enter(argv), stdout=pipe, stderr=pipe, text=True)

    def running(self) -> bool:
        return self._popen.poll() is None

    def output(self, timeout: float = 150) -> str:
        """What it said, once it has ended."""
        return self._popen.communicate(timeout=timeout)[0]

    def kill(self) -> None:
        self._popen.kill()
        self._popen.communicate()


def dig(netns: Netns, address: str, name: str = "whoami.lab", *options: str, kind: str = "TXT") -> str:
    """The answer to one DNS question."""
    argv = ["dig", f"@{address}", "+short", "+tries=1", "+time=3", *options, name, kind]
    answer = netns.run(argv).strip()
    if not answer or answer.startswith(";"):
        raise LabError(f"dig @{address} {name}: {answer or 'no answer'}")
    return answer.translate({ord(c): None for c in '" \n'})


@dataclasses.dataclass(frozen=True)
class Load:
    """What a load tool measured."""

    completed: int
    failed: int
    per_second: float
    latency: str


@dataclasses.dataclass(frozen=True)
class LoadTool:
    """A load tool at work."""

    process: Process
    kind: str

    def finish(self, timeout: float = 600) -> Load:
        self.process.popen.wait(timeout)
        text = self.process.log.read_text(errors="replace")
        if self.process.popen.returncode != 0:
            raise LabError(f"{self.process.name} failed:\n{text}")
        return _wrk_result(text) if self.kind == "wrk" else _dnsperf_result(text)


def wrk(
    netns: Netns, address: str, log: Path, *, seconds: int, connections: int = 32, close: bool = False, path: str = "/"
) -> LoadTool:
    """Starts wrk; with `close`, every request has a connection of its own."""
    argv = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "8s", "--latency"]
    argv += ["-H", "Connection: close"] if close else []
    process = Process("wrk", netns.enter([*argv, f"http://{host(address)}{path}"]), log)
    return LoadTool(process, "wrk")


def _wrk_result(text: str) -> Load:
    completed = _number(r"(\d+) requests in", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = sum(map(int, errors.groups())) if errors else 0
    failed += int(_number(r"Non-2xx or 3xx responses: (\d+)", text, default=0))
    p99 = re.search(r"^ +99% +(\d\S+)", text, re.MULTILINE)
    return Load(int(completed), failed, _number(r"Requests/sec:\s+([\d.]+)", text), f"p99 {p99[1] if p99 else '?'}")


def dnsperf(netns: Netns, address: str, log: Path, *, seconds: int, clients: int = 8, rate: int = 0) -> LoadTool:
    """Starts dnsperf, asking for `whoami.lab`."""
    questions = log.with_suffix(".questions")
    questions.write_text("whoami.lab TXT\nwww.lab A\n")
    argv = ["dnsperf", "-s", address, "-d", str(questions), "-l", str(seconds), "-c", str(clients)]
    argv += ["-Q", str(rate)] if rate else []
    return LoadTool(Process("dnsperf", netns.enter(argv), log), "dnsperf")


def _dnsperf_result(text: str) -> Load:
    completed, lost = (int(_number(rf"Queries {word}:\s+(\d+)", text)) for word in ("completed", "lost"))
    refused = completed - int(_number(r"NOERROR (\d+)", text, default=0))
    rate = _number(r"Queries per second:\s+([\d.]+)", text)
    latency = _number(r"Average Latency \(s\):\s+([\d.]+)", text, default=0)
    return Load(completed, lost + refused, rate, f"mean {latency * 1e3:.2f} ms")


def _number(pattern: str, text: str, default: float | None = None) -> float:
    found = re.search(pattern, text)
    if found:
        return float(found[1])
    if default is None:
        raise LabError(f"no {pattern!r} in:\n{text}")
    return default
