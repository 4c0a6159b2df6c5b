"""What a course comes to: latency as quantiles and distribution, loss, times of detection and recovery."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from .faults import DEAD, Course, Load, by_backend
from .probe import Packet

# A distribution has so many buckets for each power of two: as wide as a 64th of their value.
STEPS = 64
BIN_NS = 50_000_000
STAGES = ("before", "during", "after")
LIMIT = 3.0


def bucket(value: int) -> int:
    """The largest value of the bucket that a value is in."""
    shift = max(value.bit_length() - STEPS.bit_length(), 0)
    return ((value >> shift) + 1 << shift) - 1


def distribution(latencies: Iterable[int]) -> dict:
    """Quantiles, which are exact (by nearest rank), and buckets that are not empty: largest value and count."""
    ordered = sorted(latencies)

    def quantile(part: float) -> int | None:
        return ordered[max(math.ceil(len(ordered) * part) - 1, 0)] if ordered else None

    buckets = sorted(Counter(map(bucket, ordered)).items())
    return {"count": len(ordered), "p50_ns": quantile(0.5), "p99_ns": quantile(0.99), "p999_ns": quantile(0.999),
            "buckets": [list(one) for one in buckets]}


def part(packets: list[Packet]) -> dict:
    """One stage of some connections."""
    came = [one.latency_ns for one in packets if one.latency_ns is not None]
    return {"sent": len(packets), "lost": len(packets) - len(came), "latency": distribution(came)}


def stages(packets: list[Packet], course: Course, load: Load) -> dict[str, dict]:
    """Before, during and after; a datagram is of the time at which it was sent."""
    edges = [load.warm, course.begin, course.end, float("inf")]
    pairs = zip(STAGES, edges, edges[1:])
    return {stage: part([one for one in packets if begin <= one.sent_ns / 1e9 < end]) for stage, begin, end in pairs}


def by_time(packets: list[Packet], load: Load) -> list[list]:
    """Begin in seconds, sent, lost and 99th percentile of each 50 ms from when it is warm."""
    bins: dict[int, list[Packet]] = {}
    for one in packets:
        if one.sent_ns >= load.warm * 1e9:
            bins.setdefault(one.sent_ns // BIN_NS, []).append(one)
    parts = ((number, part(some)) for number, some in sorted(bins.items()))
    return [[number * BIN_NS / 1e9, one["sent"], one["lost"], one["latency"]["p99_ns"]] for number, one in parts]


def describe(fault: str, course: Course, load: Load) -> dict:
    """All of it."""
    steady, opened, *more = course.result.streams
    first = by_backend(course, load)
    found = {
        "begin_s": course.begin, "end_s": course.end, "skipped": course.result.skipped, "again": course.result.again,
        "in_hardware": course.hardware, "kept_waiting": course.waited, **course.told,
        "observed": stages(steady, course, load), "opened": stages(opened, course, load),
        "more": [stages(packets, course, load) for packets in more], "observed_by_time": by_time(steady, load),
    }
    found["last_lost_s"] = _last_lost(steady, course)
    if fault == "link-flap":
        found["recovered_s"] = _first_come(steady, course)
    if fault == "backend-death":
        dead = [one for one in steady if first.get(one.flow) == DEAD]
        found["observed"] = stages([one for one in steady if first.get(one.flow) != DEAD], course, load)
        found["of_the_dead"] = stages(dead, course, load)
        found["of_the_dead_by_time"] = by_time(dead, load)
        found["last_lost_s"] = _last_lost(dead, course)
        found["avoided_s"] = _last_lost(opened, course)
        found["recovered_s"] = _first_come([one for one in opened if one.backend == DEAD], course)
    return found


def _last_lost(packets: list[Packet], course: Course) -> float | None:
    """When the last one was sent that was lost, from the fault's begin on; after its end, too."""
    lost = [one.sent_ns / 1e9 for one in packets if one.latency_ns is None and one.sent_ns / 1e9 >= course.begin]
    return max(lost) - course.begin if lost else None


def _first_come(packets: list[Packet], course: Course) -> float | None:
    """From the fault's end on."""
    after = (one.sent_ns / 1e9 for one in packets if one.latency_ns is not None and one.sent_ns / 1e9 >= course.end)
    first = next(after, None)
    return None if first is None else first - course.end


def ratios(observed: dict[str, dict], fault: str) -> dict[str, float | str | None]:
    """p99 over median: of the stage that counts (the fault's own, or what follows where nothing comes meanwhile), over
    its own median and over that before, of which the larger one counts; and before the fault."""
    under = "after" if fault == "link-flap" else "during"
    now, before = observed[under]["latency"], observed["before"]["latency"]
    if not (now["count"] and before["count"]):
        return {"stage": under, "ratio": None, "ratio_before": None}
    least = min(now["p50_ns"], before["p50_ns"])
    return {"stage": under, "ratio": now["p99_ns"] / max(least, 1),
            "ratio_before": before["p99_ns"] / max(before["p50_ns"], 1)}
