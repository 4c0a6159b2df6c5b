"""The report: what the limit says, what was lost, who noticed when, and the distributions."""

from __future__ import annotations

from pathlib import Path

from stress.document import Block, Heading, Paragraph, Picture, Table

from . import plots
from .faults import FAULTS, FLOWS
from .figures import LIMIT
from .model import ABOUT
from .scene import PATHS
from .verdict import BROKEN, UNDECIDED, WAITED_MAX

MISSING = "-"
WHO = {"observed": "observed", "opened": "new", "of_the_dead": "the dead backend's"}


def summary(data: dict) -> list[Block]:
    """What is printed at the end."""
    return [*_faults_told(data), _verdicts(data), _times(data)]


def report(data: dict, directory: Path) -> list[Block]:
    """The document; draws its pictures."""
    load, builds = data["load"], sorted(set(data["builds"].values()))
    blocks: list[Block] = [Heading("Faults under load", 1)]
    if data["builds"]:
        blocks.append(Paragraph(
            f"Real packets on this machine: {data['machine_text']}. Millrace's build: {', '.join(builds)}. "
            f"{load['rate']} datagrams of 32 bytes a second on {FLOWS} connections are observed, {load['opened']} "
            "connections a second are opened beside them. Latency is one way, from the system call that sends to the "
            "backend's interface; worker and prober have a core each, which others use, too. "
            "The software eSwitch is a MODEL of a device: its packets take a worker's time, and a machine's queues."))
    if "model" in data:
        blocks.append(Paragraph(_about_model(data["model"])))
    blocks += [*_faults_told(data), Heading("The limit"), Paragraph(
        f"Offloaded traffic is to keep its 99th percentile within {LIMIT:g} times the median under each fault. The "
        "ratio is that of the packets sent during the fault, or after it where nothing came meanwhile, over their own "
        "median or that before the fault: the smaller one. 'Calm' is the same where nothing had happened, before the "
        f"fault or in a course without any: the larger one. What is above {LIMIT:g} is not decided where calm traffic "
        "is, too, and not much better, or other programs kept the worker from running, or this machine's host took "
        f"its core or the sender's, for more than {WAITED_MAX:.1%} of the time. Packets that were lost though the "
        "fault took none of theirs, or were not in hardware, break it whatever their latency.")]
    blocks += [_verdicts(data), Picture(plots.ratio(directory / "ratio.svg", data["verdicts"], LIMIT),
                                        "p99 over median by fault and path")]
    blocks += [Heading("Detection and recovery"), _times(data), Heading("All numbers"), _numbers(data)]
    if "model" in data:
        blocks += [Heading("What if updates kept the pipeline?"), *_stalls(data["model"])]
    return blocks + _pictures(data, directory)


def _faults_told(data: dict) -> list[Block]:
    """What must not be overlooked."""
    told: list[Block] = []
    for verdict, words in ((BROKEN, "Does not keep to the limit"), (UNDECIDED, "Not decided on this machine")):
        if bad := [f"{one['fault']} ({one['path']}): {one['why']}" for one in data["verdicts"]
                   if one["verdict"] == verdict]:
            told.append(Paragraph(f"{words}: {'; '.join(bad)}", fault=True))
    if data.get("failed"):
        told.append(Paragraph("Not had to the end: " + "; ".join(data["failed"]), fault=True))
    return told


def _about_model(model: dict) -> str:
    assumed = model["assumed"]
    return (f"MODEL: profile {model['profile']}, seed {model['seed']}, {model['packets_per_second'] / 1e6:g} "
            f"million packets a second of {model['payload']} B of payload, {model['software_percent']} % of which no "
            f"rule takes. Assumed of software: {assumed['packet_ns']} ns a packet on one core, {assumed['passage_ns']} "
            f"ns to it and back, room for {assumed['room_packets']} packets. {model['updates_per_second']} updates a "
            "second in the storm, which cost the pipeline nothing, as no source gives them a price. Nothing of it was "
            "measured.")


def _verdicts(data: dict) -> Table:
    header = ["fault", "path", "p99 / median", "calm", "over calm", "of packets", "kept waiting",
              "verdict"]
    rows = []
    for one in data["verdicts"]:
        over = one["ratio"] / one["calm"] if one["ratio"] and one["calm"] else None
        rows.append([one["fault"], _name(one["path"]), _number(one["ratio"]), _number(one["calm"]), _number(over),
                     one["stage"], MISSING if one["waited"] is None else f"{one['waited']:.2%}", one["verdict"]])
    return Table(header, rows)


def _times(data: dict) -> Table:
    header = ["fault", "path", "lost of observed", "detected by Millrace", "avoided by new connections",
              "last lost, from begin", "back, from end", "rules' updates/s", "updates, p50 / p99 ms"]
    rows = []
    for run in data["runs"]:
        if run["fault"] == "none":
            continue
        stages, updates, modelled = run["observed"].values(), MISSING, run["path"] == "model"
        lost, sent = (sum(stage[key] for stage in stages) for key in ("lost", "sent"))
        if modelled and run["updates"]["count"]:
            updates = " / ".join(f"{run['updates'][key] / 1e6:.3g}" for key in ("p50_ns", "p99_ns"))
        rate = data["model"]["updates_per_second"] if modelled and run["fault"] == "rule-storm" else None
        seen, avoided = run.get("detected_s"), run.get("avoided_s")
        if modelled and run["fault"] == "backend-death":
            seen = avoided = data["model"]["detection_ns"] / 1e9
        rows.append([run["fault"], _name(run["path"]), f"{lost} of {sent}", _seconds(seen), _seconds(avoided),
                     _seconds(run["last_lost_s"]), _seconds(run.get("recovered_s")),
                     str(run.get("updates_per_second") or rate or MISSING), updates])
    return Table(header, rows)


def _numbers(data: dict) -> Table:
    header = ["fault", "path", "connections", "when", "sent", "lost", "p50 us", "p99 us", "p99.9 us", "in hardware",
              "kept waiting"]
    rows = []
    for run in data["runs"]:
        for key, who in WHO.items():
            for stage, part in run.get(key, {}).items():
                quantiles = [_number(_micro(part["latency"][name])) for name in ("p50_ns", "p99_ns", "p999_ns")]
                share = f"{run['in_hardware']:.1%}" if stage == "before" and "in_hardware" in run else ""
                waited = f"{run['kept_waiting'][stage]:.2%}" if "kept_waiting" in run else MISSING
                if run["path"] == "model":
                    who = {"observed": "rules'", "opened": "software's"}[key]
                rows.append([run["fault"], _name(run["path"]), who, stage, str(part["sent"]), str(part["lost"]),
                             *quantiles, share, waited])
    return Table(header, rows)


def _stalls(model: dict) -> list[Block]:
    rows = [[f"{one['stall_ps'] / 1000:g}", *(_number(_micro(one["hits"]["latency"][name]))
             for name in ("p50_ns", "p99_ns", "p999_ns")), str(one["hits"]["lost"])] for one in model["stalls"]]
    words = (f"MODEL, {model['updates_per_second']} updates a second: what rules' packets would take if each update "
             "kept the pipeline for so long. No source says that it does.")
    return [Paragraph(words), Table(["stall, ns", "p50 us", "p99 us", "p99.9 us", "lost"], rows)]


def _pictures(data: dict, directory: Path) -> list[Block]:
    blocks: list[Block] = []
    stages = {(one["path"], one["fault"]): one["stage"] for one in data["verdicts"]}
    for fault in FAULTS[1:]:
        measured = [run for run in data["runs"] if run["fault"] == fault.name and run["path"] != "model"]
        modelled = [run for run in data["runs"] if run["fault"].removesuffix("-beyond") == fault.name
                    and run["path"] == "model"]
        if not measured and not modelled:
            continue
        about = [fault.about] if measured else []
        about += [f"MODEL: {ABOUT[run['fault']]}" for run in modelled]
        blocks += [Heading(fault.name), Paragraph("; ".join(about) + ".")]
        drawn = plots.cdf(directory / f"{fault.name}.svg", f"{fault.name}: latency of observed connections", measured,
                          modelled, stages)
        blocks.append(Picture(drawn, f"latency distributions, {fault.name}"))
        if measured:
            drawn = plots.course(directory / f"{fault.name}-course.svg", f"{fault.name}: what happened when", measured)
            blocks.append(Picture(drawn, f"loss and latency over time, {fault.name}"))
    return blocks


def _name(path: str) -> str:
    about = {one.name: one.name for one in PATHS}
    return about.get(path, "MODEL")


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _micro(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1000


def _seconds(value: float | None) -> str:
    return MISSING if value is None else f"{value * 1000:.0f} ms"
