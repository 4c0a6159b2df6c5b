"""Whether offloaded traffic keeps p99 within three times the median under each fault."""

from __future__ import annotations

import dataclasses

from .figures import LIMIT, ratios
from .model import BEYOND

HOLDS, BROKEN, UNDECIDED = "holds", "BROKEN", "not decided here"
PUBLISHED = "published"
# Where others kept the worker from running for a larger share of the time, the 99th percentile may be theirs.
WAITED_MAX = 0.002


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
    """Share of the time that others kept the worker from running meanwhile."""
    verdict: str


def verdicts(runs: list[dict]) -> list[Verdict]:
    """Of all courses with a fault, in their order."""
    calm = {one["path"]: ratios(one["observed"], "none")["ratio"] for one in runs if one["fault"] == "none"}
    found = []
    for one in runs:
        if one["fault"] == "none":
            continue
        said = ratios(one["observed"], one["fault"])
        without = [value for value in (said["ratio_before"], calm.get(one["path"])) if value is not None]
        quiet, waited = max(without, default=None), one.get("worker_kept_waiting", {}).get(said["stage"])
        found.append(Verdict(one["path"], one["fault"], said["stage"], said["ratio"], quiet,
                             waited, _verdict(one, said["ratio"], quiet, waited)))
    return found


def _verdict(one: dict, ratio: float | None, calm: float | None, waited: float | None) -> str:
    if one["path"] == "software" or one["fault"] in BEYOND:
        return PUBLISHED
    if ratio is None:
        return BROKEN
    if ratio <= LIMIT:
        return HOLDS
    # A machine on which calm traffic is above the limit, or whose others interfere, cannot tell what a fault does.
    return UNDECIDED if (calm or 0) > LIMIT or (waited or 0) > WAITED_MAX else BROKEN
