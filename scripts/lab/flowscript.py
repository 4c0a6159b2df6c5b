"""Files of testpmd commands with what shall come of them, checked line by line.

A script is a plain file of commands: it can be pasted at the prompt of a testpmd with a real NIC, or loaded
with testpmd's `load`, for whatever this module reads stands in comments:

``#> TEXT``
    What the command (or exchange of packets) above shall have testpmd say: each TEXT in this order, `...`
    standing for anything. ``#> not: TEXT`` is what it shall not say.
``#> refused: ERRNO TEXT``
    The command above shall be refused with this errno, and TEXT in the message.
``#> within N s``
    What follows may take N seconds: the command above is typed again until all holds.
``#! send WIRE FRAME``
    Puts a frame on a wire; ``#! send WIRE N FRAME`` sends N of them. Then one of these:
    ``expect WIRE FRAME [and WIRE FRAME ...]`` exactly these come out of the wires, byte by byte;
    ``expect port N`` testpmd receives it on this port, and says so (`set verbose 1`), and nothing comes out;
    ``expect drop REASON`` the device drops it and counts it there, and nothing comes out;
    ``expect nothing`` nothing comes out of a wire.
``#! receive WIRE FRAME``
    Such a frame comes out of the wire, whatever else does.
``#! heard TEXT``
    testpmd says TEXT now, or has said it since it started.
``#! telemetry COMMAND``
    Asks testpmd's telemetry socket; expectations are of the answer, in JSON.
``#! sleep N``
    Waits N seconds.
``#! eswitch DEVARGS``, ``#! testpmd OPTIONS``, ``#! wires NAME ...``, ``#! driver NAME``
    At the head: the device's arguments, testpmd's options, what is connected, and the driver of the wires.
``#! service``
    At the head: the device has a core of its own, and needs no testpmd that forwards.

Everything else behind ``#`` is for the reader. A command without expectations shall not complain.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from scapy.layers.l2 import Ether

from .net import LabError
from .testpmd import LINE_MAX, WIRES, ServedTestpmd, Testpmd

COMPLAINT = re.compile(
    r"Caught PMD error|Bad arguments|Command not found|Ambiguous|[Ff]ail|[Ii]nvalid|[Ee]rror|"
    r"not (valid|supported)|Not all ports"
)
REFUSAL = re.compile(r"(?:Caught PMD error type \d+ \(.*?\): (?:cause: \S+, )?(.*)|.*(?:Fail|fail|Error|error).*)")
# How long a packet's way through the device may take on a busy machine.
PACKET_SECONDS = 3.0
# How long to look for what should not come, once all that should has.
QUIET_SECONDS = 0.02
# One mistake at the top of a script makes for many below.
DEVIATIONS_MAX = 8


class Mismatch(Exception):
    """What was expected did not come; the message says what did."""


@dataclasses.dataclass
class Step:
    """A command or a directive, and what is expected of it."""

    line: int
    text: str
    expected: list[str] = dataclasses.field(default_factory=list)
    within: float = 0

    @property
    def directive(self) -> str | None:
        return self.text.removeprefix("#!").strip() if self.text.startswith("#!") else None


class Script:
    """A script, read."""

    def __init__(self, path: Path):
        self.path = path
        self.devargs, self.options, self.wires, self.driver = "", (), WIRES[:2], "net_af_packet"
        self.served = False
        self.steps: list[Step] = []
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            try:
                self._read(number, line.strip())
            except (LabError, ValueError) as error:
                raise LabError(f"{path}:{number}: {error}") from error

    def _read(self, number: int, line: str) -> None:
        if line.startswith("#>"):
            self._expect(line.removeprefix("#>").strip())
        elif line.startswith("#!"):
            word, _, rest = line.removeprefix("#!").strip().partition(" ")
            match word:
                case "eswitch":
                    self.devargs = rest
                case "testpmd":
                    self.options = tuple(rest.split())
                case "wires":
                    self.wires = tuple(rest.split())
                case "driver":
                    self.driver = rest
                case "service":
                    self.served = True
                case "send" | "receive" | "heard" | "telemetry" | "sleep":
                    self.steps.append(Step(number, line))
                case _:
                    raise LabError(f"no such directive: {word}")
        elif line and not line.startswith("#"):
            if len(line) > LINE_MAX:
                raise LabError(f"testpmd would cut this line of {len(line)} characters to {LINE_MAX}")
            self.steps.append(Step(number, line))

    def _expect(self, text: str) -> None:
        if not self.steps:
            raise LabError("nothing stands above this expectation")
        step = self.steps[-1]
        if within := re.fullmatch(r"within ([\d.]+) s", text):
            step.within = float(within[1])
        elif text:
            step.expected.append(text)


def start(script: Script, log: Path) -> Testpmd:
    """The testpmd that a script wants."""
    kind = ServedTestpmd if script.served else Testpmd
    return kind(
        log, devargs=script.devargs, options=script.options, wires=script.wires, driver=script.driver
    )


def run(script: Script, testpmd: Testpmd, frames: dict[str, bytes]) -> list[str]:
    """Runs a script; every deviation, with its place."""
    runner, deviations = Runner(testpmd, frames), []
    for step in script.steps:
        try:
            runner.step(step)
        except Mismatch as mismatch:
            deviations.append(f"{script.path.name}:{step.line}: {step.text}\n{indent(str(mismatch))}")
            if len(deviations) == DEVIATIONS_MAX:
                return [*deviations, "and so on"]
    return deviations


class Runner:
    """Runs steps, one by one."""

    def __init__(self, testpmd: Testpmd, frames: dict[str, bytes]):
        self.testpmd, self.frames = testpmd, frames

    def step(self, step: Step) -> None:
        if step.directive is None:
            retry(step.within, lambda: check(self.testpmd.command(step.text), step.expected))
            return
        word, *rest = step.directive.split()
        match word:
            case "send":
                said = self._send(rest)
                if step.expected:
                    check(said, step.expected)
            case "receive":
                self._receive(*rest)
            case "heard":
                retry(PACKET_SECONDS, lambda: self._heard(" ".join(rest)))
            case "telemetry":
                answer = json.dumps(self.testpmd.telemetry.ask(" ".join(rest)))
                check(answer, step.expected)
            case "sleep":
                time.sleep(float(rest[0]))

    def _frame(self, name: str) -> bytes:
        if name not in self.frames:
            raise LabError(f"no frame is called {name}")
        return self.frames[name]

    def _send(self, words: list[str]) -> str:
        """Sends, and compares what comes; what testpmd said meanwhile."""
        wire, *words = words
        number = int(words.pop(0)) if words[0].isdigit() else 1
        frame, *expectation = words
        for other in self.testpmd.wires.values():
            while other.receive(lambda _: True, timeout=0.0001):
                pass
        self.testpmd.spoken()
        before = self.testpmd.xstats() if "drop" in expectation else {}
        port = list(self.testpmd.wires).index(wire)
        received = self.testpmd.xstats(port)["wire_rx_packets"]
        for _ in range(number):
            self.testpmd.wires[wire].send(self._frame(frame))
        said = ""
        match expectation:
            case []:
                self._consumed(port, received + number)
            case ["expect", "nothing"]:
                self._consumed(port, received + number)
                self._compare([])
            case ["expect", "drop", reason]:
                self._consumed(port, received + number)
                self._compare([])
                self._dropped(reason, before, number)
            case ["expect", "port", at]:
                said = self._spoken(f"port {at}/queue", number)
                self._compare([])
            case ["expect", *pairs]:
                names = " ".join(pairs).split(" and ")
                self._compare([(wire, self._frame(name)) for wire, name in map(str.split, names)])
                said = self.testpmd.spoken()
            case _:
                raise LabError(f"not an expectation: {' '.join(expectation)}")
        return said

    def _receive(self, wire: str, name: str) -> None:
        frame = self._frame(name)
        if not self.testpmd.wires[wire].receive(lambda other: other == frame, PACKET_SECONDS):
            raise Mismatch(f"{name} did not come out of {wire}")

    def _heard(self, text: str) -> None:
        self.testpmd.spoken()
        if not pattern(text).search(Path(self.testpmd.log.name).read_text()):
            raise Mismatch(f"testpmd never said {text!r}")

    def _consumed(self, port: int, number: int) -> None:
        """Waits until the device has taken this many frames from a wire, and has done with them."""

        def look() -> None:
            xstats = self.testpmd.xstats(port)
            if xstats["wire_rx_packets"] < number or xstats["wire_waiting"]:
                raise Mismatch(f"the device took {xstats['wire_rx_packets']} of {number} frames from the wire")

        retry(PACKET_SECONDS, look)

    def _dropped(self, reason: str, before: dict[str, int], number: int) -> None:
        def look() -> None:
            after = self.testpmd.xstats()
            changed = {
                name: count - before.get(name, 0)
                for name, count in after.items()
                if name.startswith("dropped_") and count != before.get(name, 0)
            }
            if changed != {f"dropped_{reason}": number}:
                raise Mismatch(f"expected {number} under dropped_{reason}, got {changed or 'no drop'}")

        retry(PACKET_SECONDS, look)

    def _spoken(self, start: str, number: int) -> str:
        said, deadline = "", time.monotonic() + PACKET_SECONDS
        while time.monotonic() < deadline:
            said += self.testpmd.spoken(0.1)
            if said.count(start) >= number and said.endswith("\n"):
                return said + self.testpmd.spoken(QUIET_SECONDS)
        raise Mismatch(f"testpmd did not say {start!r} {number} times; it said:\n{said or '(nothing)'}")

    def _compare(self, expected: list[tuple[str, bytes]]) -> None:
        """Compares what comes out of the wires, in order for each."""
        for name, frame in expected:
            got = self.testpmd.wires[name].receive(lambda _: True, PACKET_SECONDS)
            if got != frame:
                raise Mismatch(f"expected at {name}:\n{describe(frame)}\ngot:\n{describe(got)}")
        for name, wire in self.testpmd.wires.items():
            if got := wire.receive(lambda _: True, QUIET_SECONDS):
                raise Mismatch(f"expected nothing (more) at {name}, got:\n{describe(got)}")


def retry(seconds: float, attempt: Callable[[], None]) -> None:
    """Attempts until it does not raise `Mismatch`; after this time the last one stands."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except Mismatch:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.05)


def check(said: str, expected: Iterable[str]) -> None:
    """Compares what testpmd said with what it should have.

    >>> check("Flow rule #0 created", ["Flow rule #... created"])
    """
    rest, expected = said, list(expected)
    if not expected and COMPLAINT.search(said):
        raise Mismatch(f"testpmd complains:\n{said}")
    for text in expected:
        if text.startswith("refused:"):
            check_refused(said, *text.removeprefix("refused:").strip().partition(" ")[::2])
        elif text.startswith("not:"):
            if pattern(text.removeprefix("not:").strip()).search(said):
                raise Mismatch(f"testpmd should not have said {text[4:].strip()!r}:\n{said}")
        elif found := pattern(text).search(rest):
            rest = rest[found.end() :]
        else:
            raise Mismatch(f"expected {text!r}, testpmd said:\n{said}")


def check_refused(said: str, name: str, message: str) -> None:
    refusal = REFUSAL.search(said)
    if not refusal:
        raise Mismatch(f"expected a refusal, testpmd said:\n{said}")
    number = getattr(errno, name)
    # rte_strerror's words, else the errno as a number, which some commands print instead.
    if os.strerror(number) not in refusal[0] and not re.search(rf"[=\s(]-?{number}\b", refusal[0]):
        raise Mismatch(f"expected {name} ({os.strerror(number)}), testpmd said:\n{said}")
    if message and not pattern(message).search(refusal[0]):
        raise Mismatch(f"expected {message!r} in the refusal, testpmd said:\n{said}")


def pattern(text: str) -> re.Pattern[str]:
    """`...` is anything within a line, runs of blanks are one blank."""
    words = [re.escape(word).replace(r"\.\.\.", ".*") for word in text.split()]
    return re.compile(r"[ \t]+".join(words))


def describe(frame: bytes | None) -> str:
    return f"{Ether(frame)!r}\n{frame.hex()}" if frame else "(nothing)"


def indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
