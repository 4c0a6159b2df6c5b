"""One page of all parts: how each ended, how long it took, and its figures."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from stress import document
from stress.document import Block, Heading, Paragraph, Picture, Table

from .parts import Part

ENDINGS = {0: "good", 1: "numbers out of their bounds, or books that disagree: see its report", 2: "could not be made"}


@dataclasses.dataclass(frozen=True)
class Done:
    part: Part
    command: str
    status: int
    seconds: float

    def verdict(self) -> str:
        """In a few words."""
        return ENDINGS.get(self.status, f"ended with {self.status}")


def pictures(directory: Path) -> list[Picture]:
    """Those of a part's own report, with what it says of them."""
    report = directory / "report.md"
    found = re.findall(r"^!\[(.*?)\]\((.+?)\)$", report.read_text(), re.MULTILINE) if report.exists() else []
    there = [(text, file) for text, file in found if (directory / file).exists()]
    return [Picture(f"{directory.name}/{file}", text) for text, file in there]


def about(facts: dict[str, object]) -> str:
    """What was measured, and on what."""
    virtual = " (virtual)" if facts["virtual"] else ""
    words = [f"{facts['cpu']}{virtual}", f"{facts['cores']} cores", f"Linux {facts['kernel']}", f"DPDK {facts['dpdk']}"]
    binary = f", with {facts['binary']}, whose own commit the parts' reports name" if facts["binary"] else ""
    return f"{', '.join(words)}, load at the beginning {facts['load']:.1f}; tree at {facts['commit']}{binary}"


def blocks(output: Path, done: list[Done], facts: dict[str, object], prepared: float, *, quick: bool) -> list[Block]:
    """The whole page."""
    took = prepared + sum(part.seconds for part in done)
    found: list[Block] = [
        Heading("Millrace: figures", 1),
        Paragraph(f"{about(facts)}. Made in {took / 60:.1f} minutes, {prepared / 60:.1f} of them to build."),
    ]
    if quick:
        found.append(Paragraph("--quick: too short to be quoted.", fault=True))
    header = ["part", "made by", "minutes", "ended"]
    rows = [[one.part.title, one.command, f"{one.seconds / 60:.1f}", one.verdict()] for one in done]
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


def write(output: Path, done: list[Done], facts: dict[str, object], prepared: float, *, quick: bool) -> None:
    """index.md and index.html; the latter has all pictures in it."""
    found = blocks(output, done, facts, prepared, quick=quick)
    (output / "index.md").write_text(document.markdown(found))
    (output / "index.html").write_text(document.page(found, "Millrace: figures", output))
