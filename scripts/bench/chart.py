"""Results as a picture: grouped bars of medians with whiskers from least to most, as SVG and without a library."""

from __future__ import annotations

import textwrap
from xml.sax.saxutils import escape

from .report import Results

COLOURS = {"testpmd": "#8a8f98", "millrace": "#1f6fb4", "ovs": "#d9822b", "ovs-default": "#f0c08a"}
BAR, GAP, HEIGHT = 26, 26, 300
LEFT, TOP, BOTTOM = 60, 64, 50
# Of the small print: its lines' distance, and about what a letter takes. Of other text: what a letter takes.
SMALL_LINE, SMALL_LETTER, LETTER = 12, 5, 6


def _step(highest: float) -> float:
    """A round distance of grid lines that gives four to ten of them."""
    step = 10.0 ** (len(str(int(highest))) - 1)
    while highest / step < 4:
        step /= 2
    return step


def _text(x: float, y: float, words: str, size: int = 11, anchor: str = "middle", **more: str) -> str:
    attributes = "".join(f' {name}="{value}"' for name, value in more.items())
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"{attributes}>{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = "#333333") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def svg(results: Results, title: str, machine: str) -> str:
    """The picture; what has no number has no bar."""
    contenders, cases = results.contenders(), results.cases()
    labels, bars = [f"{kind}, {_short(flows)}" for kind, flows in cases], BAR * len(contenders)
    group = max([bars, *(LETTER * len(label) for label in labels)]) + GAP
    width = max(LEFT + group * len(cases) + GAP, 480)
    highest = max([one.ns()[-1] for one in results.all if one.median() is not None], default=1.0)
    base = TOP + HEIGHT

    def y(ns: float) -> float:
        return base - HEIGHT * ns / highest

    parts = [_text(LEFT, 20, title, 14, "start", fill="#111111"), *_legend(contenders)]
    tick, step = 0.0, _step(highest)
    while tick <= highest:
        parts.append(_line(LEFT, y(tick), width - GAP / 2, y(tick), "#dddddd"))
        parts.append(_text(LEFT - 6, y(tick) + 4, f"{tick:g}", anchor="end"))
        tick += step
    parts.append(_text(14, TOP + HEIGHT / 2, "ns per packet", transform=f"rotate(-90 14 {TOP + HEIGHT / 2})"))
    for place, (kind, flows) in enumerate(cases):
        middle = LEFT + (place + 0.5) * group
        parts.append(_text(middle, base + 18, labels[place]))
        for number, contender in enumerate(contenders):
            parts += _bar(results, (kind, flows, contender), middle - bars / 2 + number * BAR, y)
    small = textwrap.wrap(machine, (width - LEFT) // SMALL_LETTER)
    for number, line in enumerate(small):
        parts.append(_text(LEFT, base + 42 + number * SMALL_LINE, line, 9, "start", fill="#666666"))
    size = f'width="{width}" height="{base + BOTTOM + len(small) * SMALL_LINE}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">'
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", paper, *parts, "</svg>\n"])


def _legend(contenders: list[str]) -> list[str]:
    parts, x = [], LEFT
    for name in contenders:
        parts.append(f'<rect x="{x}" y="30" width="10" height="10" fill="{COLOURS.get(name, "#444444")}"/>')
        parts.append(_text(x + 14, 39, name, anchor="start"))
        x += 40 + 7 * len(name)
    return parts


def _bar(results: Results, which: tuple[str, int, str], x: float, y) -> list[str]:
    result = results.find(*which)
    median = result.median() if result else None
    if median is None:
        return [_text(x + BAR / 2, y(0) - 4, "fault" if result else "-", 9)]
    low, high, middle = y(result.ns()[0]), y(result.ns()[-1]), x + BAR / 2
    return [
        f'<rect class="bar" x="{x + 2:.1f}" y="{y(median):.1f}" width="{BAR - 4}" height="{y(0) - y(median):.1f}" '
        f'fill="{COLOURS.get(which[2], "#444444")}"/>',
        _line(middle, low, middle, high),
        _line(middle - 4, low, middle + 4, low),
        _line(middle - 4, high, middle + 4, high),
        _text(middle, high - 4, f"{median:.0f}", 9),
    ]


def _short(flows: int) -> str:
    """A number of flows as people write it."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if flows >= size and flows % size == 0:
            return f"{flows // size}{letter}"
    return str(flows)
