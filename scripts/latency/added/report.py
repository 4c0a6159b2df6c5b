"""What all rounds say: numbers, pictures, a document."""

from __future__ import annotations

import json
from pathlib import Path

from bench.machine import describe
from stress.document import Block, Heading, Paragraph, Picture, Table, markdown, page
from stress.plots import COLOURS, _figure, _legend, _save
from stress.spread import summary

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
# Of a curve: as many points in its body, and as many in each tenth that its tail goes on.
BODY, TAIL = 200, 30
# A worker that was kept waiting for more than this share of the time shows who kept it.
DOUBTFUL = 0.02
# What is added up over the rounds.
SUMMED = ("sent", "received", "lost", "late", "seconds", "forwarded", "by_device", "dropped", "busy_seconds",
          "waited_seconds", "repeated")
METHOD = (
    "One-way latency of single frames of 64 bytes on this machine: from just before send() at one end to the moment "
    "the kernel has the frame at the other end's interface, one clock for both. In it are the sender's system call "
    "and the kernel's veth, everywhere; for Millrace, its AF_PACKET or AF_XDP ports, too, which are the kernel's and "
    "not Millrace's. One core is Millrace's worker's, which polls, the other the sender's, and both go before other "
    "programs as far as Linux lets them; what the kernel forwards by itself, bridge and XDP, runs on the sender's "
    "core. Ways take turns, within seconds of each other; each number is the median of the rounds' numbers, in "
    "brackets the least and the most. Added is what is above the floor's median of the same round: the second veth "
    "pair is in it. Quantiles that less than ten packets of a round are above are in square brackets. A worker that "
    "is kept waiting lost its core to other programs, for some milliseconds at a time: a run in which that was more "
    "than a hundredth of the time is done again, three times at most and for half a minute in all, and what is left "
    "of it is in the tail."
)
MODEL = (
    "eswitch-*: the packets are real, the device is a MODEL, a program on the worker's core. How long it takes says "
    "nothing about a NIC; that nearly all packets were forwarded by its rules, and not by Millrace's worker, does."
)


def data(runs: list[dict], settings: dict, machine: dict, ways: dict[str, str], floor: str) -> dict:
    """Everything there is to report. Takes the single latencies out of the runs, and leaves curves of them."""
    summaries, curves = {}, {}
    for rate in settings["rates"]:
        of_rate = [run for run in runs if run["rate"] == rate]
        base = {run["round"]: run["ns"]["p50"] for run in of_rate if run["way"] == floor}
        summaries[str(rate)] = {way: _summary([run for run in of_rate if run["way"] == way], base) for way in ways}
        curves[str(rate)] = {
            way: curve(sorted(ns for run in of_rate if run["way"] == way for ns in run["latency_ns"])) for way in ways
        }
    for run in runs:
        del run["latency_ns"]
    faults = [f"round {run['round'] + 1}, {run['rate']}/s, {run['way']}: {fault}"
              for run in runs for fault in run["faults"]]
    return {"machine": machine, "settings": settings, "ways": ways, "floor": floor, "summary": summaries,
            "curves_us": curves, "runs": runs, "faults": faults, "doubts": doubts(summaries)}


def doubts(summaries: dict[str, dict[str, dict]]) -> list[str]:
    """Which numbers are of other programs rather than of what they are called."""
    told = []
    for rate, rows in summaries.items():
        waits = {way: row["waited_seconds"] / row["seconds"] for way, row in rows.items() if "waited_seconds" in row}
        some = [f"{way} ({share:.0%})" for way, share in waits.items() if share > DOUBTFUL]
        if some:
            told.append(f"{rate} packets/s: others kept the worker from its core, {', '.join(some)} of the time")
    return told


def _summary(runs: list[dict], base: dict[int, int | None]) -> dict:
    """One way at one rate, in microseconds."""
    told: dict = {"latency_us": {}, "added_us": {}}
    for name in QUANTILES:
        latency = [run["ns"][name] / 1000 for run in runs if run["ns"][name] is not None]
        added = [(run["ns"][name] - base[run["round"]]) / 1000 for run in runs
                 if run["ns"][name] is not None and base[run["round"]] is not None]
        told["latency_us"][name] = summary(latency) if latency else None
        told["added_us"][name] = summary(added) if added else None
    for name in SUMMED:
        if all(name in run for run in runs):
            told[name] = sum(run[name] for run in runs)
    told["packets_each"] = min(run["sent"] for run in runs)
    return told


def curve(ordered: list[int]) -> list[list[float]]:
    """Points of a distribution: microseconds, and the share of packets that took no longer."""
    if not ordered:
        return []
    count = len(ordered)
    places = {count * step // BODY for step in range(BODY)}
    tail = 0.1
    while tail * count >= 1:
        places |= {int(count * (1 - tail * (1 - 0.9 * step / TAIL))) for step in range(TAIL)}
        tail /= 10
    places.add(count - 1)
    return [[ordered[place] / 1000, (place + 1) / count] for place in sorted(places) if place < count]


def write(found: dict, directory: Path) -> str:
    """All files; the document as text."""
    (directory / "latency.json").write_text(json.dumps(found, indent=1) + "\n")
    blocks = document(found, directory)
    text = markdown(blocks)
    (directory / "report.md").write_text(text)
    (directory / "report.html").write_text(page(blocks, "What Millrace adds to a packet's way", directory))
    return text


def document(found: dict, directory: Path) -> list[Block]:
    """The document; draws its pictures."""
    settings = found["settings"]
    blocks: list[Block] = [Heading("What Millrace adds to a packet's way", 1),
                           Paragraph(f"{describe(found['machine'])}. Measured: {found['machine']['millrace']}.")]
    blocks += [Paragraph(f"FAULT: {fault}", fault=True) for fault in found["faults"]]
    blocks += [Paragraph(f"DOUBT: {doubt}; do it again when they are quiet.", fault=True) for doubt in found["doubts"]]
    blocks += [Paragraph(f"Left out: {name}: {why}", fault=True) for name, why in found["left_out"].items()]
    blocks += [Paragraph(METHOD)]
    if any(way.startswith("eswitch") for way in found["ways"]):
        blocks.append(Paragraph(MODEL))
    blocks.append(Table(["way", "what is between the ends"], [[way, about] for way, about in found["ways"].items()]))
    for rate in settings["rates"]:
        rows = found["summary"][str(rate)]
        blocks.append(Heading(f"{rate} packets/s"))
        about = f"{settings['rounds']} rounds of {settings['seconds']:g} s each way, {settings['flows']} connections."
        blocks.append(Paragraph(f"{about} Microseconds."))
        blocks += [_latency(rows, "latency_us"), Paragraph(f"Added: minus the median of {found['floor']}."),
                   _latency(rows, "added_us"), _books(rows)]
        for kind, draw in (("cdf", cdf), ("tail", tail)):
            file = draw(directory / f"{kind}-{rate}.svg", found, rate)
            blocks.append(Picture(file, f"{kind} of one-way latency at {rate} packets/s"))
    return blocks


def _latency(rows: dict[str, dict], key: str) -> Table:
    return Table(["way", *QUANTILES], [[way, *(_cell(row, key, name) for name in QUANTILES)]
                                       for way, row in rows.items()])


def _cell(row: dict, key: str, name: str) -> str:
    value = row[key][name]
    if not value:
        return "-"
    text = f"{value['median']:.1f}"
    if value["n"] > 1:
        text += f" ({value['least']:.1f} to {value['most']:.1f})"
    few = (1 - QUANTILES[name]) * row["packets_each"] < 9.99
    return f"[{text}]" if few else text


def _books(rows: dict[str, dict]) -> Table:
    """Whose packets they were."""
    def cells(row: dict) -> list[str]:
        forwarded, device, busy, waited = "-", "-", "-", "-"
        if "forwarded" in row:
            forwarded, device = str(row["forwarded"]), f"{row['by_device'] / max(row['sent'], 1):.2%}"
            waited = f"{row['waited_seconds'] / row['seconds']:.1%}"
            software = row["forwarded"] - row["by_device"]
            # Turns of a worker beside which a device forwards are about that device.
            busy = f"{row['busy_seconds'] / software * 1e6:.2f}" if row["by_device"] == 0 and software else "-"
        told = [str(row[name]) for name in ("sent", "lost", "late")]
        return [*told, forwarded, device, busy, waited, str(row["repeated"])]

    header = ["way", "sent", "lost", "sent late", "forwarded, says Millrace", "by the device",
              "worker's turn, us/packet", "worker kept waiting", "runs repeated"]
    return Table(header, [[way, *cells(row)] for way, row in rows.items()])


def _axes(found: dict, title: str, y: str):
    machine = found["machine"]
    about = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}; {machine['millrace']}"
    return _figure(title, f"microseconds (log)\n{about}", y)


def _lines(axes, found: dict, rate: int, share) -> None:
    for number, (way, points) in enumerate(found["curves_us"][str(rate)].items()):
        model = " (MODEL)" if way.startswith("eswitch") else ""
        axes.plot([us for us, _ in points], [share(part) for _, part in points], label=way + model, linewidth=1.4,
                  color=(*COLOURS, "#111111", "#b08900")[number % (len(COLOURS) + 2)],
                  linestyle="-" if way.startswith(("veth", "bridge", "xdp")) else "--" if model else "-.")
    axes.set_xscale("log")
    for axis_of in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis_of(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "125" else "")
    axes.tick_params(axis="x", which="minor", labelsize=7)


def cdf(path: Path, found: dict, rate: int) -> str:
    """Shares of packets that took no longer."""
    title = f"One-way latency at {rate} packets/s: share of packets that took no longer"
    figure, axes = _axes(found, title, "share of packets")
    _lines(axes, found, rate, lambda part: part)
    curves = [points for points in found["curves_us"][str(rate)].values() if points]
    # The body; the tail has a picture of its own.
    body = [us for points in curves for us, part in points if part <= 0.5]
    if body:
        axes.set_xlim(min(body) * 0.9, max(body) * 4)
    axes.set_ylim(0, 1.01)
    _legend(figure, axes)
    return _save(figure, path)


def tail(path: Path, found: dict, rate: int) -> str:
    """Shares of packets that took longer."""
    title = f"One-way latency at {rate} packets/s: share of packets that took longer"
    figure, axes = _axes(found, title, "share of packets (log)")
    # The last point is of none, which a logarithm cannot show.
    _lines(axes, found, rate, lambda part: 1 - part if part < 1 else None)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _legend(figure, axes)
    return _save(figure, path)
