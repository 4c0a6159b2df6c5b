"""The rules that Millrace prints, typed at Debian's testpmd, which has the software eSwitch.

The lines are those of the printing's own snapshots (offload/src/testpmd/snapshots/): what a reviewer has seen
there is what a device takes, in both dialects. testpmd's line editor is too short for most of hardware
steering's templates; those are tried with one edit at a time.
"""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

import pytest
from lab.testpmd import LINE_MAX, Testpmd

ROOT = Path(__file__).resolve().parents[1]
SNAPSHOTS = ROOT / "offload" / "src" / "testpmd" / "snapshots"


def printed(test: str) -> list[str]:
    """The commands of a snapshot, without its head and its comments."""
    text = (SNAPSHOTS / f"offload__testpmd__tests__{test}.snap").read_text()
    _, _, body = text.removeprefix("---\n").partition("---\n")
    commands = [line for line in body.splitlines() if line and not line.startswith("#")]
    assert commands, "an empty snapshot proves nothing"
    return commands


# Sets up the headers that the next command speaks of.
SETUP = "set raw_"


def expect(testpmd: Testpmd, command: str, answer: str) -> None:
    said = testpmd.command(command)
    if not re.search(answer, said):
        pytest.fail(f"{command}\n{said}", pytrace=False)


def test_software_steering(tmp_path):
    options = ("--hairpinq=1", "--hairpin-mode=1")
    with Testpmd(tmp_path / "testpmd.log", devargs="profile=ideal,dv_flow_en=1", options=options) as testpmd:
        for command in printed("software_steering"):
            expect(testpmd, command, "" if command.startswith(SETUP) else r"Flow rule #\d+ created")


def test_hardware_steering(tmp_path):
    devargs = "profile=bf3-hws,dv_flow_en=2"
    with Testpmd(tmp_path / "testpmd.log", devargs=devargs) as testpmd:
        for command in ("port stop 1", "port stop 0"):
            testpmd.command(command)
        pools = "counters_number 4096 aging_counters_number 1024 meters_number 0"
        expect(testpmd, f"flow configure 0 queues_number 1 queues_size 1024 {pools}", "Configure flows on port 0")
        testpmd.command("port start all")
        enqueued = 0
        for template in templates(printed("hardware_steering")):
            for command in template.setup:
                expect(testpmd, command, "")
            for command in template.lines:
                expect(testpmd, command, rf"(template|table) #{template.number} created")
            for command in template.rules:
                expect(testpmd, command, r"Flow rule #\d+ creation enqueued")
                enqueued += 1
        assert enqueued > 30
        assert pulled(testpmd, enqueued) == enqueued


def pulled(testpmd: Testpmd, wanted: int) -> int:
    """Operations that have succeeded, once so many have, or within 5 s."""
    succeeded, deadline = 0, time.monotonic() + 5
    while succeeded < wanted and time.monotonic() < deadline:
        said = testpmd.command("flow pull 0 queue 0")
        failed, more = re.search(r"\((\d+) failed, (\d+) succeeded\)", said).groups()
        assert failed == "0", said
        succeeded += int(more)
    return succeeded


@dataclasses.dataclass
class Template:
    """A table's three lines, and the lines of its rules."""

    number: int
    lines: list[str]
    rules: list[str]
    # The headers that rules put on, which are the same for all: testpmd keeps those of one at a time.
    setup: list[str] = dataclasses.field(default_factory=list)


EDIT = re.compile(r"modify_field [^/]*/ ")
EDITS = re.compile(rf"(?:{EDIT.pattern})+")


def templates(commands: list[str]) -> list[Template]:
    """All tables; one whose lines are too long for testpmd in as many parts as it has edits."""
    whole: dict[int, Template] = {}
    setup: list[str] = []
    for command in commands:
        if command.startswith(SETUP):
            setup.append(command)
            continue
        number = int(re.search(r"(?:_id|create 0 template_table) (\d+)", command)[1])
        template = whole.setdefault(number, Template(number, [], []))
        template.setup, setup = setup or template.setup, []
        (template.rules if command.startswith("flow queue") else template.lines).append(command)
    return [part for template in whole.values() for part in parts(template)]


def parts(template: Template) -> list[Template]:
    if max(map(len, template.lines + template.rules)) <= LINE_MAX:
        return [template]
    edits = len(EDIT.findall(template.rules[0]))
    return [part(template, edit) for edit in range(edits)]


def part(template: Template, edit: int) -> Template:
    """The same with one edit alone, under a number of its own."""
    number = template.number + (edit + 1) * 1_000_000

    def only(command: str) -> str:
        command = EDITS.sub(lambda edits: EDIT.findall(edits[0])[edit], command)
        return re.sub(rf"((?:_id|template|table) ){template.number}\b", rf"\g<1>{number}", command)

    lines, rules = ([only(line) for line in lines] for lines in (template.lines, template.rules))
    return Template(number, lines, rules, template.setup)
