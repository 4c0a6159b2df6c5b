"""Whether offloaded traffic keeps p99 within three times the median under each fault."""

from __future__ import annotations

import dataclasses

from .figures import LIMIT, ratios
from .model import BEYOND

HOLDS, BROKEN, UNDECIDED = "holds", "BROKEN", "not decided here"
PUBLISHED = "published"
# Where others had the worker's core or the sender's for a larger share of the time, the 99th percentile may be theirs.
WAITED_MAX = 0.002
# Calm traffic of this machine excuses what is not much worse.
CALM_TIMES = 1.5
# Less than that of the packets before the fault in hardware, and it says nothing of offloaded traffic. (All but the
# observed are software's.)
HARDWARE_MIN = 0.8
# A sender that leaves out more of what is due does not make the load that is spoken of.
SKIPPED_MAX = 0.001
# Seconds that a link may take to carry packets again.
BACK_WITHIN = 0.1


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Of one course."""

    path: str
    fault: str
    stage: str
    ratio: float | None
    """p99 under the fault over the smaller one of the medians under it and before it."""
    calm: float | None
    """p99 over median where nothing had happened: the larger one of before the fault, and of a course without any."""
    waited: float | None
    """Share of the time that others had the worker's core or the sender's meanwhile."""
    verdict: str
    why: str
    """In words, unless it holds."""


def verdicts(runs: list[dict]) -> list[Verdict]:
    """Of all courses with a fault, in their order."""
    calm = {one["path"]: ratios(one["observed"], "none")["ratio"] for one in runs if one["fault"] == "none"}
    found = []
    for one in runs:
        if one["fault"] == "none":
            continue
        said = ratios(one["observed"], one["fault"])
        without = [value for value in (said["ratio_before"], calm.get(one["path"])) if value is not None]
        quiet, waited = max(without, default=None), one.get("kept_waiting", {}).get(said["stage"])
        found.append(Verdict(one["path"], one["fault"], said["stage"], said["ratio"], quiet, waited,
                             *judge(one, said["ratio"], quiet, waited)))
    return found


def judge(one: dict, ratio: float | None, calm: float | None, waited: float | None) -> tuple[str, str]:
    """The verdict on a course, and why."""
    if one["path"] == "software" or one["fault"] in BEYOND:
        return PUBLISHED, ""
    if fault := _unfit(one):
        return BROKEN, fault
    if ratio is None:
        return BROKEN, "nothing came"
    if ratio <= LIMIT:
        return HOLDS, ""
    above = f"p99 is {ratio:.3g} times the median"
    # Noise makes no course better: so one that is within the limit holds, however disturbed. For one above it, a
    # machine that interferes, or whose calm traffic looks much the same, cannot tell what the fault did.
    if (skipped := _skipped(one)) > SKIPPED_MAX:
        return UNDECIDED, f"{above}, but the sender left out {skipped:.2%}"
    if (waited or 0) > WAITED_MAX:
        return UNDECIDED, f"{above}, but others had the worker's or the sender's core for {waited:.2%} of the time"
    if (calm or 0) > LIMIT and ratio <= CALM_TIMES * calm:
        return UNDECIDED, f"{above}, but without a fault it is {calm:.3g} times"
    return BROKEN, above


def disturbance(one: dict) -> float:
    """How much this machine interfered with a course, in times of what it may: above 1 it is worth another try. What
    came of the packets under the fault has no part in it."""
    said = ratios(one["observed"], one["fault"])
    calm = [said["ratio_before"], said["ratio"] if one["fault"] == "none" else None]
    # In software calm traffic is what it is, and no limit is asked of any.
    calm = [] if one["path"] == "software" else [value / LIMIT for value in calm if value is not None]
    return max(max(one["kept_waiting"].values()) / WAITED_MAX, _skipped(one) / SKIPPED_MAX, *calm)


def _unfit(one: dict) -> str | None:
    """What is wrong with a course whatever its latency: packets of rules that were not in hardware, or were lost though
    the fault takes none of theirs, or came twice."""
    if (share := one.get("in_hardware")) is not None and share < HARDWARE_MIN:
        return f"only {share:.1%} of the packets were forwarded by hardware before the fault"
    if again := one.get("again"):
        return f"{again} packets came more than once"
    observed, takes = one["observed"], ()
    if one["fault"] == "link-flap":
        takes = ("during", "after")
        until = one["end_s"] - one["begin_s"] if "end_s" in one else (one["end_ns"] - one["begin_ns"]) / 1e9
        if (one["last_lost_s"] or 0) > until + BACK_WITHIN:
            return f"packets were lost {one['last_lost_s'] - until:.3g} s after the link was back"
    if one["fault"] == "backend-death" and one["path"] == "model":
        # There, the dead one's connections are among them.
        takes = ("during",)
    lost = {stage: part["lost"] for stage, part in observed.items() if stage not in takes and part["lost"]}
    return f"packets were lost that the fault did not take: {lost}" if lost else None


def _skipped(one: dict) -> float:
    sent = sum(part["sent"] for part in one["observed"].values())
    return (one.get("skipped") or 0) / max(sent, 1)
