"""A document of headings, paragraphs, tables and pictures, as Markdown and as one HTML file."""

from __future__ import annotations

import base64
import dataclasses
import html
from pathlib import Path

STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 64em; margin: 2em auto; padding: 0 1em; color: #1a1a1a }
table { border-collapse: collapse; margin: 1em 0 } th, td { border: 1px solid #bbb; padding: .25em .6em }
td { text-align: right } td:first-child, th { text-align: left } th { background: #eef1f4 }
.fault { color: #b00020; font-weight: bold } img { max-width: 100% }
"""


@dataclasses.dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclasses.dataclass(frozen=True)
class Paragraph:
    text: str
    fault: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    header: list[str]
    rows: list[list[str]]


@dataclasses.dataclass(frozen=True)
class Picture:
    file: str
    """Beside the document."""
    text: str
    """What is to be seen on it, for who cannot see."""


Block = Heading | Paragraph | Table | Picture


def markdown(blocks: list[Block]) -> str:
    """All of it as Markdown."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Paragraph):
            parts.append(f"**{block.text}**" if block.fault else block.text)
        elif isinstance(block, Picture):
            parts.append(f"![{block.text}]({block.file})")
        else:
            lines = [block.header, ["---", *["---:"] * (len(block.header) - 1)], *block.rows]
            parts.append("\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines))
    return "\n\n".join(parts) + "\n"


def page(blocks: list[Block], title: str, directory: Path) -> str:
    """All of it as one HTML file, pictures included."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"<h{block.level}>{html.escape(block.text)}</h{block.level}>")
        elif isinstance(block, Paragraph):
            kind = ' class="fault"' if block.fault else ""
            parts.append(f"<p{kind}>{html.escape(block.text)}</p>")
        elif isinstance(block, Picture):
            data = base64.b64encode((directory / block.file).read_bytes()).decode()
            parts.append(f'<img alt="{html.escape(block.text)}" src="data:image/svg+xml;base64,{data}">')
        else:
            parts.append(_table(block))
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _table(block: Table) -> str:
    def row(cells: list[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    return "<table>" + row(block.header, "th") + "".join(row(cells, "td") for cells in block.rows) + "</table>"
