"""What was found, for people: tables, pictures and what is to be kept in mind, as Markdown and as HTML."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from . import plots
from .document import Block, Heading, Paragraph, Picture, Table, markdown, page
from .layers import FCS, NAMES, Size
from .store import write as write_json

TITLE = "Millrace under load"
METHOD = (
    "Each rate is the highest at which a trial passed: no packet lost (but for the share allowed), each connection "
    "ended well, and at least 98 % of what was asked for made; found by bisection and confirmed by another trial. It "
    "is the rate that was made, not the one asked for. RFC 2544 (section 24) asks for trials of 60 s at least: shorter "
    "ones, and searches between two rates rather than downwards, are quicker and see less. Each number is the "
    "median over repetitions, with the coefficient of variation (standard deviation over mean) and [least most]. "
    "Bounded by: why the next higher rate failed; `not taken` means that fewer packets than asked for entered "
    "Millrace, as its receive queues were full or the generator was at its end, and `range` that the highest rate "
    "tried passed."
)
LAYERS = "Gbit/s count, by layer: " + "; ".join(f"{name}: {about}" for name, about in NAMES.items()) + "."
BOOKS = (
    "For each trial the generator's counters were compared with Millrace's metrics and its ports' counters, at rest: "
    "packets sent and taken in, given out and received, lost and named as dropped."
)
LAB = (
    "Generator and Millrace shared this machine's cores: these figures compare configurations here, and are not what a "
    "NIC or another machine does. `eswitch` is the software eSwitch: its forwarding is done by a CPU, too."
)


@dataclasses.dataclass
class Results:
    """All that a run found."""

    settings: dict
    machine: dict
    units: list[dict] = dataclasses.field(default_factory=list)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, unit: dict) -> None:
        self.units.append(unit)

    def faults(self) -> list[str]:
        """Where the books disagreed."""
        return [f"{_where(unit)}, {unit['kind']} {unit['load']}: {fault}"
                for unit in self.units for fault in unit["faults"]]

    def of(self, *kinds: str) -> list[dict]:
        return [unit for unit in self.units if unit["kind"] in kinds]


def _where(unit: dict) -> str:
    return f"{unit['mode']}, {unit['path']}"


def _titled(what: str, results: Results) -> str:
    """A picture's title, which also says where that was."""
    testbed = results.settings["testbed"]
    return f"{what} ({testbed['name']}{', all on one machine' if testbed['lab'] else ''})"


def number(value: float, digits: int = 3) -> str:
    """A number as people write it: 1.23 M, 45.6 k, 789."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def spread(summary: dict, scale: float = 1.0) -> str:
    """A median with its coefficient of variation and its extremes."""
    cov = "-" if summary["cov"] is None else f"{100 * summary['cov']:.1f} %"
    return (
        f"{number(summary['median'] * scale)} (cov {cov}) "
        f"[{number(summary['least'] * scale)} {number(summary['most'] * scale)}]"
    )


def _bounded(summary: dict) -> str:
    return ", ".join(f"{reason} ({times})" for reason, times in summary.get("bounded_by", {}).items())


def blocks(results: Results, directory: Path) -> list[Block]:
    """The whole report; pictures are drawn into the directory."""
    testbed, effort = results.settings["testbed"], results.settings["effort"]
    told: list[Block] = [Heading(TITLE, 1), Paragraph(f"Testbed: {testbed['name']}, {testbed['about']}.")]
    if testbed["lab"]:
        told.append(Paragraph(LAB))
    faults = results.faults()
    agreed = f"All {sum(len(unit['trials']) for unit in results.units)} trials agreed."
    told.append(Paragraph(f"{BOOKS} {'' if faults else agreed}".strip()))
    told += [Paragraph(f"BOOKS DISAGREE: {fault}", fault=True) for fault in faults]
    told.append(Paragraph(METHOD))
    told.append(Paragraph(
        f"Trials of {effort['seconds']:g} s, {effort['repetitions']} repetitions, loss allowed "
        f"{effort['loss_max']:g}, rates to {100 * effort['resolution']:g} %, failed trials repeated {effort['again']} "
        "times (loss verification, ETSI GS NFV-TST 009)."
    ))
    for part in (_no_drop, _sweep, _overload, _latency, _connections, _flood):
        told += part(results, directory)
    told += _left_out(results)
    builds = sorted({unit["millrace"] for unit in results.units})
    if len(builds) > 1:
        by = "; ".join(f"{build}: {', '.join(_names(results, build))}" for build in builds)
        told.append(Paragraph(f"THESE ARE OF SEVERAL BUILDS OF MILLRACE: {by}", fault=True))
    told.append(Heading("Machine and programs" if testbed["lab"] else "The generator's machine, and programs"))
    rows = [["Millrace", ", ".join(builds)]]
    facts = {"commit of this runner" if key == "commit" else key: value for key, value in results.machine.items()}
    rows += [[key, str(value)] for key, value in sorted(facts.items()) if value is not None]
    makers = sorted({f"{key} {value}" for unit in results.units
                     for key, value in unit["generator"].items() if key != "quantiles"})
    told.append(Table(["what", "value"], rows + [["generator", "; ".join(makers)]]))
    return told


def _names(results: Results, build: str) -> list[str]:
    """Of the units that a build was measured in."""
    return [f"{unit['kind']} {unit['load']} ({_where(unit)})" for unit in results.units if unit["millrace"] == build]


def _in_hardware(summary: dict) -> str:
    """The share of packets that hardware forwarded, at the rate that was found."""
    return f"{100 * summary['in_hardware']['median']:.0f} %" if "in_hardware" in summary else "-"


def _rates(units: list[dict]) -> Table:
    layers = [f"Gbit/s {layer}" for layer in NAMES]
    header = ["load", "mode, path", "packets/s", "in hardware", "frame with FCS", *layers, "bounded by"]
    rows = []
    for unit in units:
        summary = unit["summary"]
        gbps = [number(summary["gbps"][layer]["median"]) for layer in NAMES]
        frame = f"{unit['size']['frame'] + FCS:.4g}"
        hardware = _in_hardware(summary)
        rows.append([unit["load"], _where(unit), spread(summary["rate"]), hardware, frame, *gbps, _bounded(summary)])
    return Table(header, rows)


def _no_drop(results: Results, directory: Path) -> list[Block]:
    units = results.of("no-drop")
    if not units:
        return []
    groups: dict[str, dict[str, dict]] = {}
    for unit in units:
        groups.setdefault(unit["load"], {})[_where(unit)] = unit["summary"]["rate"]
    name = plots.bars(directory / "no-drop.svg", _titled("No-drop rate", results), "million packets/s", groups, 1e-6)
    return [Heading("No-drop rate"), Paragraph(LAYERS), _rates(units), Picture(name, "No-drop rates as bars")]


def _sweep(results: Results, directory: Path) -> list[Block]:
    units = results.of("sweep")
    if not units:
        return []
    lines: dict[str, list] = {}
    for unit in units:
        lines.setdefault(_where(unit), []).append(unit)
    told: list[Block] = [Heading("No-drop rate by size"), Paragraph(LAYERS), _rates(units)]
    points = {where: [(round(one["size"]["payload"]), one["summary"]["rate"]) for one in some]
              for where, some in lines.items()}
    picture = plots.sweep(directory / "sweep.svg", _titled("No-drop rate by payload", results), points)
    told.append(Picture(picture, "Packets by payload"))
    for where, some in lines.items():
        sizes = [(round(one["size"]["payload"]), Size(**one["size"]), one["summary"]["rate"]["median"]) for one in some]
        file = directory / f"layers-{where.replace(', ', '-')}.svg"
        picture = plots.layers(file, _titled(f"What a Gbit/s counts: {where}", results), sizes)
        told.append(Picture(picture, f"Gbit/s by layer, {where}"))
    return told


def _overload(results: Results, directory: Path) -> list[Block]:
    units = results.of("overload")
    if not units:
        return []
    layers = [f"Gbit/s {layer}" for layer in NAMES]
    rows, lines = [], {}
    for unit in units:
        summary, name = unit["summary"], f"{unit['load']}: {_where(unit)}"
        highest = summary["points"][-1]
        gbps = [number(summary["gbps"][layer]["median"]) for layer in NAMES]
        rows.append([unit["load"], _where(unit), number(highest["offered"]["median"]), spread(summary["rate"]),
                     f"{100 * highest['loss']['median']:.3g} %", _in_hardware(summary), *gbps])
        if len(summary["points"]) > 1:
            lines[name] = summary["points"]
    said = "What was forwarded of the highest rate tried, and what of it was lost (RFC 2544, 26.3)."
    told = [Heading("More than is forwarded"), Paragraph(f"{said} {LAYERS}"),
            Table(["load", "mode, path", "offered/s", "forwarded/s", "lost", "in hardware", *layers], rows)]
    if lines:
        told.append(Picture(plots.loss(directory / "loss.svg", _titled("Packets lost by load", results), lines),
                            "Loss by offered load"))
    return told


def _latency(results: Results, directory: Path) -> list[Block]:
    units = results.of("latency")
    if not units:
        return []
    rows, lines = [], {}
    for unit in units:
        points = unit["summary"]["points"]
        lines[_where(unit)] = points
        for point in points:
            average = point["latency_us"].get("average")
            quantiles = [spread(average) if average else "-"]
            quantiles += [
                spread(point["latency_us"][name]) if name in point["latency_us"] else "-"
                for name in ("p50", "p99", "p999", "most")
            ]
            rows.append([f"{_where(unit)}, {100 * point['share']:.0f} %", number(point["made"]["median"]), *quantiles,
                         str(point["lost"])])
    header = ["mode, path, load", "packets/s", "average us", "p50 us", "p99 us", "p99.9 us", "most us", "lost"]
    picture = plots.latency(directory / "latency.svg", _titled("Latency against load, one way", results), lines)
    said = "One-way time from a port of the generator, through Millrace, to its other port, as it measures it."
    said = " ".join([said, *sorted({unit["generator"]["quantiles"] for unit in units})])
    return [Heading("Latency against load"), Paragraph(said), Table(header, rows), Picture(picture, "Latency by load")]


def _connections(results: Results, directory: Path) -> list[Block]:
    units = results.of("cps", "mix")
    if not units:
        return []
    rows, groups = [], {}
    for unit in units:
        summary = unit["summary"]
        groups.setdefault(unit["load"], {})[_where(unit)] = summary["rate"]
        goodput = spread(summary["goodput_gbps"]) if "goodput_gbps" in summary else "-"
        packets = spread(summary["pps"]) if "pps" in summary else "-"
        rates = [spread(summary["rate"]), packets, _in_hardware(summary), goodput]
        rows.append([unit["load"], _where(unit), *rates, _bounded(summary)])
    rates = ["connections/s", "packets/s, both ways", "in hardware", "Gbit/s goodput"]
    header = ["load", "mode, path", *rates, "bounded by"]
    picture = plots.bars(directory / "connections.svg", _titled("New connections, all of which ended well", results),
                         "thousand connections/s", groups, 1e-3)
    about = "; ".join(dict.fromkeys(f"{unit['load']}: {unit['about']}" for unit in units))
    return [Heading("New connections"), Paragraph(f"{about}."), Table(header, rows), Picture(picture, "Connections")]


def _flood(results: Results, directory: Path) -> list[Block]:
    units = results.of("flood")
    if not units:
        return []
    rows = []
    for unit in units:
        summary = unit["summary"]
        shares = [spread(summary[name], 100) for name in ("forwarded", "refused", "other")]
        rows.append([_where(unit), spread(summary["rate"]), *shares])
    said = (
        "SYNs as fast as the generator made them. Refused: dropped because half-open connections had their share of "
        "the table, which is what protects established ones. Other: lost for any other reason."
    )
    header = ["mode, path", "SYNs/s", "forwarded, %", "refused, %", "other, %"]
    return [Heading("SYN flood"), Paragraph(said), Table(header, rows)]


def _left_out(results: Results) -> list[Block]:
    if not results.left_out:
        return []
    rows = [[name, why] for name, why in results.left_out.items()]
    return [Heading("Left out"), Table(["experiment", "why"], rows)]


def write(results: Results, directory: Path) -> None:
    """Writes report.md, report.html, results.json and pictures."""
    told = blocks(results, directory)
    (directory / "report.md").write_text(markdown(told))
    (directory / "report.html").write_text(page(told, TITLE, directory))
    write_json(directory / "results.json", dataclasses.asdict(results) | {"faults": results.faults()})
