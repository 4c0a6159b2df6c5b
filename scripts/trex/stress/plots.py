"""Results as pictures."""

from __future__ import annotations

from pathlib import Path

from .layers import NAMES, Size

COLOURS = ("#1f6fb4", "#d9822b", "#2a9d5c", "#8a4fbf", "#c23b4a", "#6b7280")
WIDTH, HEIGHT = 8.0, 4.2


def _figure(title: str, x: str, y: str):
    import matplotlib

    matplotlib.use("svg")
    # The same results give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "millrace"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(figure, axes) -> None:
    """Beside the plot, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3), fontsize=8, frameon=False,
                  handlelength=3)


def _save(figure, path: Path) -> str:
    figure.savefig(path, format="svg", metadata={"Date": None})
    return path.name


def _whiskers(summary: dict) -> tuple[float, float]:
    return summary["median"] - summary["least"], summary["most"] - summary["median"]


def bars(path: Path, title: str, y: str, groups: dict[str, dict[str, dict]], scale: float) -> str:
    """Medians with whiskers from least to most: groups on the axis, each with a bar for each series. A series that
    a group has not is a gap."""
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure, axes = _figure(title, "", y)
    width = 0.8 / max(len(series), 1)
    for number, name in enumerate(series):
        places, values, whiskers = [], [], []
        for place, group in enumerate(groups.values()):
            if name in group:
                places.append(place - 0.4 + (number + 0.5) * width)
                values.append(group[name]["median"] * scale)
                whiskers.append([part * scale for part in _whiskers(group[name])])
        drawn = axes.bar(places, values, width * 0.9, label=name, color=COLOURS[number % len(COLOURS)],
                         yerr=list(zip(*whiskers)), capsize=3, ecolor="#333333")
        axes.bar_label(drawn, fmt="%.3g", fontsize=8, padding=2)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.grid(False, axis="x")
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return _save(figure, path)


def sweep(path: Path, title: str, lines: dict[str, list[tuple[int, dict]]]) -> str:
    """Packets per second by payload."""
    figure, axes = _figure(title, "UDP payload, bytes", "no-drop rate, million packets/s")
    for number, (name, points) in enumerate(lines.items()):
        x, y = [payload for payload, _ in points], [one["median"] / 1e6 for _, one in points]
        whiskers = list(zip(*([part / 1e6 for part in _whiskers(one)] for _, one in points)))
        axes.errorbar(x, y, yerr=whiskers, marker="o", markersize=4, capsize=3, label=name,
                      color=COLOURS[number % len(COLOURS)])
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return _save(figure, path)


def layers(path: Path, title: str, points: list[tuple[int, Size, float]]) -> str:
    """Gbit/s by payload, in each layer."""
    figure, axes = _figure(title, "UDP payload, bytes", "Gbit/s at the no-drop rate")
    for number, (layer, about) in enumerate(NAMES.items()):
        y = [size.gbps(pps)[layer] for _, size, pps in points]
        axes.plot([payload for payload, _, _ in points], y, marker="o", markersize=4, label=about,
                  color=COLOURS[number])
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return _save(figure, path)


def loss(path: Path, title: str, lines: dict[str, list[dict]]) -> str:
    """Loss by offered load."""
    figure, axes = _figure(title, "offered, million packets/s", "lost, %")
    for number, (name, points) in enumerate(lines.items()):
        x = [point["offered"]["median"] / 1e6 for point in points]
        whiskers = [[100 * part for part in _whiskers(point["loss"])] for point in points]
        axes.errorbar(x, [100 * point["loss"]["median"] for point in points], yerr=list(zip(*whiskers)), fmt="o-",
                      markersize=4, capsize=3, color=COLOURS[number % len(COLOURS)], label=name)
    axes.set_ylim(bottom=-0.5)
    _legend(figure, axes)
    return _save(figure, path)


def latency(path: Path, title: str, lines: dict[str, list[dict]]) -> str:
    """Latency by load: p50 and p99 of each configuration."""
    figure, axes = _figure(title, "load, % of the no-drop rate", "one-way latency, microseconds (log)")
    for number, (name, points) in enumerate(lines.items()):
        for quantile, style in (("p50", "o-"), ("p99", "x--")):
            some = [one for one in points if quantile in one["latency_us"]]
            x = [100 * one["share"] for one in some]
            y = [max(one["latency_us"][quantile]["median"], 0.1) for one in some]
            axes.plot(x, y, style, markersize=4, label=f"{name}, {quantile}", color=COLOURS[number % len(COLOURS)])
    axes.set_yscale("log")
    # As numbers, not as powers; between decades without, which would lie on one another.
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda _value, _at: "")
    _legend(figure, axes)
    return _save(figure, path)
