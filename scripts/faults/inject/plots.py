"""Distributions and courses as pictures."""

from __future__ import annotations

from pathlib import Path

from stress.plots import COLOURS, _legend, _save

NAMES = {"software": "software", "eswitch-sws": "software eSwitch, sws", "eswitch-hws": "software eSwitch, hws"}
PATH_COLOURS = dict(zip(NAMES, (COLOURS[1], COLOURS[0], COLOURS[2])))
# From the shares of packets that are slower.
TICKS = {1.0: "0", 0.5: "50", 0.1: "90", 0.01: "99", 0.001: "99.9", 0.0001: "99.99"}
LEGEND = {"fontsize": 7, "loc": "upper right"}


def _panels(number: int, title: str):
    import matplotlib

    matplotlib.use("svg")
    # The same results give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "millrace"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.8), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure, figure.subplots(1, number, squeeze=False)[0]


def _slower(latency: dict) -> tuple[list[float], list[float]]:
    """Microseconds, and the share of packets that took longer."""
    x, y, rest = [], [], latency["count"]
    for largest, count in latency["buckets"]:
        x.append(largest / 1000)
        y.append(rest / latency["count"])
        rest -= count
    return x, y


def _distribution(axes, latency: dict, **style) -> None:
    x, y = _slower(latency)
    if x:
        axes.step([*x, x[-1]], [*y, 0.5 / latency["count"]], where="post", linewidth=1.4, **style)


def _cdf_axes(axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1.1, 0.0001)
    axes.set_yticks(list(TICKS), list(TICKS.values()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("one-way latency, microseconds (log)")
    axes.set_ylabel("per cent of packets that were no slower")
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.xaxis.set_major_locator(_decades())
    axes.minorticks_off()
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)


def _decades():
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(1.0, 2.0, 5.0), numticks=20)


def cdf(path: Path, title: str, measured: list[dict], modelled: list[dict], stages: dict[tuple[str, str], str]) -> str:
    """A fault's distributions: solid under the fault, dashed before."""
    figure, panels = _panels(bool(measured) + bool(modelled), title)
    panels = list(panels)
    if measured:
        axes = panels.pop(0)
        for run in measured:
            name, colour = NAMES[run["path"]], PATH_COLOURS[run["path"]]
            under = stages[run["path"], run["fault"]]
            observed = run["observed"]
            _distribution(axes, observed["before"]["latency"], color=colour, linestyle=":", label=f"{name}, before")
            _distribution(axes, observed[under]["latency"], color=colour, label=f"{name}, {under}")
        _cdf_axes(axes, "real packets on this machine; with an eSwitch: MODEL of a device")
    if modelled:
        axes = panels.pop(0)
        for run in modelled:
            beyond = ", beyond its rate" if run["fault"].endswith("-beyond") else ""
            under = stages[run["path"], run["fault"]]
            for number, (key, name) in enumerate({"observed": "rules", "opened": "software"}.items()):
                colour = COLOURS[number * 2 + 2 * bool(beyond)] if not beyond else COLOURS[3 + number]
                if not beyond:
                    _distribution(axes, run[key]["before"]["latency"], color=colour, linestyle=":",
                                  label=f"{name}, before")
                _distribution(axes, run[key][under]["latency"], color=colour, label=f"{name}, {under}{beyond}")
        _cdf_axes(axes, "MODEL of a BlueField-3, virtual time")
    return _save(figure, path)


def course(path: Path, title: str, runs: list[dict]) -> str:
    """Loss and latency over time, around a fault."""
    figure, (lost, late) = _panels(2, title)
    for run in runs:
        name, colour = NAMES[run["path"]], PATH_COLOURS[run["path"]]
        key = "of_the_dead" if run["fault"] == "backend-death" else "observed"
        bins = run[f"{key}_by_time"]
        x = [one[0] - run["begin_s"] for one in bins]
        lost.plot(x, [100 * one[2] / max(one[1], 1) for one in bins], color=colour, label=name, linewidth=1.2)
        # Nothing where nothing came.
        late.plot(x, [float("nan") if one[3] is None else one[3] / 1000 for one in bins], color=colour, label=name,
                  linewidth=1.2)
    for axes in (lost, late):
        axes.axvspan(0, runs[0]["end_s"] - runs[0]["begin_s"], color="#c23b4a", alpha=0.1, linewidth=0)
        axes.set_xlabel("seconds from the fault's begin (red while it lasts)")
        axes.grid(True, color="#dddddd", linewidth=0.6)
        axes.legend(**LEGEND)
    whose = "of the dead backend's connections" if runs[0]["fault"] == "backend-death" else "of observed connections"
    lost.set_ylabel(f"lost {whose}, %")
    lost.set_ylim(-2, 102)
    late.set_ylabel("99th percentile of each 50 ms, microseconds (log)")
    late.set_yscale("log")
    late.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return _save(figure, path)


def ratio(path: Path, verdicts: list[dict], limit: float) -> str:
    """p99 over median of every course."""
    figure, (axes,) = _panels(1, "99th percentile over median under each fault, one way")
    faults = list(dict.fromkeys(one["fault"] for one in verdicts))
    paths = list(dict.fromkeys(one["path"] for one in verdicts))
    width = 0.8 / len(paths)
    colours = PATH_COLOURS | {"model": COLOURS[3]}
    for number, name in enumerate(paths):
        some = [one for one in verdicts if one["path"] == name and one["ratio"] is not None]
        x = [faults.index(one["fault"]) - 0.4 + (number + 0.5) * width for one in some]
        label = NAMES.get(name, "MODEL of a BlueField-3, rules")
        drawn = axes.bar(x, [one["ratio"] for one in some], width * 0.9, color=colours[name], label=label)
        axes.bar_label(drawn, fmt="%.3g", fontsize=7, padding=2)
        calm = [(at, one["calm"]) for at, one in zip(x, some) if one["calm"] is not None]
        axes.plot([at for at, _ in calm], [value for _, value in calm], "_", color="#111111", markersize=14,
                  label="without a fault" if number == 0 else None)
    axes.axhline(limit, color="#c23b4a", linestyle="--", linewidth=1.2, label=f"limit for offloaded traffic: {limit:g}")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(_decades())
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xticks(range(len(faults)), faults)
    axes.set_ylabel("p99 / median (log)")
    axes.set_ylim(bottom=0.8)
    axes.margins(y=0.15)
    _legend(figure, axes)
    return _save(figure, path)
