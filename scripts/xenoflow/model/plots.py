"""Figures 4 to 8 as pictures. Each says MODEL, and which; what was measured is drawn into them as squares."""

from __future__ import annotations

from pathlib import Path

from stress.plots import COLOURS, _figure, _save

from .compare import CHART

LOADS = "offered load, million packets/s"
PAPER = {"color": "#c23b4a", "linestyle": "--", "linewidth": 1.2}


def _axes(data: dict, title: str, x: str, y: str):
    measured = data.get("measured")
    figure, axes = _figure(f"MODEL{' and measured' if measured else ''}: {title}", x, y)
    seen = f"squares: measured, {measured['name']}" if measured else "nothing in it was measured"
    about = f"MODEL: profile {data['profile']}, commit {data['commit']}, seed {data['seed']}; {seen}"
    figure.supxlabel(about, fontsize=7, color="#555555")
    return figure, axes


def _alone(data: dict) -> dict:
    """Without what was measured: of a picture that has nothing of it."""
    return {key: value for key, value in data.items() if key != "measured"}


def _payloads(axes) -> None:
    axes.set_xscale("symlog", base=2, linthresh=16)
    ticks = [0, 8, 23, 64, 128, 256, 512, 1024]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(-1, 1600)
    axes.minorticks_off()


def throughput(path: Path, data: dict) -> str:
    """Figure 4."""
    title = "most packets a second by payload (figure 4)"
    figure, axes = _axes(data, title, "UDP payload, bytes", "million packets/s")
    points = data["throughput"]
    x = [point["payload"] for point in points]
    offered = [point["offered_packets_per_second"] / 1e6 for point in points]
    axes.plot(x, offered, color="#8a8f98", label="wire, 100 Gbit/s")
    axes.plot(x, [point["packets_per_second"] / 1e6 for point in points], "o-", color=COLOURS[0], markersize=4,
              label="model")
    axes.plot([0, 22], [96.7, 96.7], label="paper's text: 96.7 and 92.8", **PAPER)
    axes.plot([23, 69], [92.8, 92.8], **PAPER)
    chart = "authors' chart, converted from Gbit/s (not fitted)"
    axes.plot(list(CHART), list(CHART.values()), "x", color=COLOURS[4], label=chart)
    if measured := data.get("measured"):
        axes.plot(*zip(*sorted(measured["mpps"].items())), "s", color=COLOURS[2], label=f"measured, {measured['name']}")
    _payloads(axes)
    axes.set_ylim(0, 160)
    axes.legend(fontsize=8)
    return _save(figure, path)


def loss(path: Path, data: dict) -> str:
    """Figure 5."""
    figure, axes = _axes(data, "packets lost by load (figure 5)", LOADS, "lost, %")
    for number, payload in enumerate(dict.fromkeys(point["payload"] for point in data["loss"])):
        points = sorted((point["offered_packets_per_second"] / 1e6, point["loss"] * 100)
                        for point in data["loss"] if point["payload"] == payload)
        axes.plot(*zip(*points), "o-", color=COLOURS[number], markersize=4, label=f"{payload} B of payload")
    for number, (payload, points) in enumerate(sorted(data.get("measured", {}).get("loss", {}).items())):
        offered, lost = zip(*points)
        axes.plot(offered, [100 * share for share in lost], "s", color=COLOURS[number + 2], markersize=4,
                  label=f"{payload} B, measured, {data['measured']['name']}")
    axes.axvline(96.7, label="paper's text: 96.7 and 92.8", **PAPER)
    axes.axvline(92.8, **PAPER)
    axes.set_ylim(bottom=-0.5)
    axes.legend(fontsize=8)
    return _save(figure, path)


def line_rate(path: Path, data: dict) -> str:
    """Figure 6, by what is counted."""
    figure, axes = _axes(data, "bandwidth by what is counted (figure 6)", "UDP payload, bytes", "Gbit/s")
    x = [point["payload"] for point in data["throughput"]]
    names = {"wire_gbit": "on the wire (FCS, preamble, gap)", "counted_gbit": "as an entry counts (no FCS)",
             "goodput_gbit": "payload only"}
    for number, (key, name) in enumerate(names.items()):
        y = [point[key] for point in data["throughput"]]
        axes.plot(x, y, "o-", color=COLOURS[number], markersize=4, label=name)
    if measured := data.get("measured"):
        by_payload = sorted(measured["gbit"].items())
        axes.plot([payload for payload, _ in by_payload], [layers["wire"] for _, layers in by_payload], "s",
                  color=COLOURS[3], label=f"on the wire, measured, {measured['name']}")
    axes.axhline(100, label="line rate", **PAPER)
    _payloads(axes)
    axes.set_ylim(0, 110)
    axes.legend(fontsize=8, loc="lower right")
    return _save(figure, path)


def latency(path: Path, data: dict) -> str:
    """Figure 7."""
    figure, axes = _axes(_alone(data), "round trip without load (figure 7)", "", "microseconds")
    names = {"baseline": "no balancer", "balanced": "XenoFlow on the device", "ebpf": "eBPF on a host"}
    rows = [data["latency"][name] for name in names]
    values = [row["p50_ns"] / 1000 for row in rows]
    drawn = axes.bar(range(len(rows)), values, 0.5, color=COLOURS[0], capsize=4, ecolor="#333333",
                     yerr=[row["deviation_ns"] / 1000 for row in rows])
    added = [value - values[0] for value in values]
    labels = [f"{value:.1f} (+{more:.1f})" if more else f"{value:.1f}" for value, more in zip(values, added)]
    axes.bar_label(drawn, labels, label_type="center", color="white", fontsize=9)
    axes.set_xticks(range(len(rows)), ["no balancer", "XenoFlow on the device\n(paper's text: +5.2)",
                                       "eBPF on a host\n(paper's text: +9.3)"])
    axes.grid(False, axis="x")
    axes.set_ylabel("median and standard deviation, microseconds")
    return _save(figure, path)


def load(path: Path, data: dict) -> str:
    """Figure 8."""
    figure, axes = _axes(_alone(data), "round trip under load (figure 8)", LOADS, "microseconds")
    splits = list(dict.fromkeys(point["split"] for point in data["load"]))
    for number, split in enumerate(splits):
        points = [point for point in data["load"] if point["split"] == split]
        # Thinner than those before it, so that all are seen where they coincide.
        width = 1.4 + 1.6 * (len(splits) - 1 - number)
        x = [point["offered_packets_per_second"] / 1e6 for point in points]
        for key, style, thinner, name in (("p50_ns", "o-", 1, "median"), ("p99_ns", ":", 2, "99th percentile")):
            y = [point["round_trip"][key] / 1000 for point in points]
            axes.plot(x, y, style, color=COLOURS[number], linewidth=width / thinner, markersize=width + 2,
                      label=f"{split}, {name}")
    axes.axvline(90, label="paper's text: flat below 90", **PAPER)
    curves = {tuple(tuple(point["round_trip"].values()) for point in data["load"] if point["split"] == split)
              for split in splits}
    if len(curves) == 1:
        axes.annotate("the splits coincide: no entry costs more than another", (0.02, 0.55), xycoords="axes fraction",
                      fontsize=8, color="#555555")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, ncols=2, loc="lower left")
    return _save(figure, path)


ALL = {"figure-4": throughput, "figure-5": loss, "figure-6": line_rate, "figure-7": latency, "figure-8": load}
