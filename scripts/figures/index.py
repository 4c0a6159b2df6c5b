"""One page of all parts: how each ended, when and of which commit it is, how long it took, and its figures."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

from stress import document
from stress.document import Block, Heading, Paragraph, Picture, Table

from .parts import PARTS, Part

ENDINGS = {0: "good", 1: "numbers out of their bounds, or books that disagree: see its report", 2: "could not be made"}
BESIDE = "done.json"


@dataclasses.dataclass(frozen=True)
class Done:
    part: Part
    command: str
    status: int
    seconds: float
    ended: str
    """When, in UTC."""
    commit: str
    """Of the tree."""
    binary: str | None
    """Millrace, if it was not built from the tree."""
    quick: bool

    def verdict(self) -> str:
        """In a few words."""
        return ENDINGS.get(self.status, f"ended with {self.status}")

    def of(self) -> str:
        """Which Millrace it is of."""
        return f"{self.commit}, with {self.binary}" if self.binary else self.commit

    def save(self, directory: Path) -> None:
        """Beside what the part made, so that later runs of others know of it."""
        directory.mkdir(parents=True, exist_ok=True)
        told = {**vars(self), "part": self.part.name}
        (directory / BESIDE).write_text(json.dumps(told, indent=1) + "\n")


def present(output: Path) -> list[Done]:
    """All parts that have ended there, in this run or in one before."""
    found = []
    for part in PARTS:
        try:
            found.append(Done(**{**json.loads((output / part.name / BESIDE).read_text()), "part": part}))
        except (OSError, ValueError, TypeError):
            # Not made, interrupted, or of a version that wrote something else: to be made again.
            continue
    return found


def pictures(directory: Path) -> list[Picture]:
    """Those of a part's own report, with what it says of them."""
    report = directory / "report.md"
    found = re.findall(r"^!\[(.*?)\]\((.+?)\)$", report.read_text(), re.MULTILINE) if report.exists() else []
    there = [(text, file) for text, file in found if (directory / file).exists()]
    return [Picture(f"{directory.name}/{file}", text) for text, file in there]


def about(facts: dict[str, object]) -> str:
    """The machine of the last run."""
    virtual = " (virtual)" if facts["virtual"] else ""
    words = [f"{facts['cpu']}{virtual}", f"{facts['cores']} cores", f"Linux {facts['kernel']}", f"DPDK {facts['dpdk']}"]
    return f"{', '.join(words)}, load at the beginning {facts['load']:.1f}"


def remarks(done: list[Done]) -> list[Block]:
    """What keeps these parts from being one whole."""
    found: list[Block] = []
    if len({one.of() for one in done}) > 1:
        found.append(Paragraph("These parts are of several builds of Millrace: see the table.", fault=True))
    if quick := [one.part.name for one in done if one.quick]:
        found.append(Paragraph(f"--quick, too short to be quoted: {', '.join(quick)}.", fault=True))
    if missing := [part.name for part in PARTS if part.name not in {one.part.name for one in done}]:
        found.append(Paragraph(f"Not here: {', '.join(missing)}. scripts/figures.sh --only {','.join(missing)}"))
    return found


def blocks(output: Path, done: list[Done], facts: dict[str, object], prepared: float) -> list[Block]:
    """The whole page."""
    took = sum(one.seconds for one in done)
    times = f"The parts took {took / 60:.1f} minutes, and to build before the last run {prepared / 60:.1f}."
    found: list[Block] = [Heading("Millrace: figures", 1), Paragraph(f"{about(facts)}. {times}"), *remarks(done)]
    header = ["part", "made by", "commit", "ended at (UTC)", "minutes", "result"]
    rows = [
        [one.part.title, one.command, one.of(), one.ended, f"{one.seconds / 60:.1f}", one.verdict()] for one in done
    ]
    found.append(Table(header, rows))
    for one in done:
        part, directory = one.part, output / one.part.name
        found += [Heading(part.title), Paragraph(f"{part.what} {part.nature}")]
        if one.status:
            found.append(Paragraph(one.verdict(), fault=True))
        of_part = pictures(directory)
        if not of_part:
            found.append(Paragraph("It has no figures.", fault=True))
        if (directory / "report.html").exists():
            found.append(Paragraph(f"All its numbers: {part.name}/report.html; what they mean: docs/{part.page}."))
        found += of_part
    return found


def write(output: Path, facts: dict[str, object], prepared: float) -> None:
    """index.md and index.html, of all that is there; the latter has all pictures in it."""
    found = blocks(output, present(output), facts, prepared)
    (output / "index.md").write_text(document.markdown(found))
    (output / "index.html").write_text(document.page(found, "Millrace: figures", output))
