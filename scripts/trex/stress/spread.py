"""What repetitions say together."""

from __future__ import annotations

import math


def median(values: list[float]) -> float:
    """The middle one, or the mean of the two in the middle. There must be some."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def variation(values: list[float]) -> float | None:
    """The coefficient of variation: standard deviation (of a sample) over mean. `None`: one value has none, and a mean
    of 0 neither."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    if mean == 0:
        return None
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)) / abs(mean)


def summary(values: list[float]) -> dict[str, float | int | None]:
    """Median, coefficient of variation, extremes and how many there are."""
    return {
        "median": median(values),
        "cov": variation(values),
        "least": min(values),
        "most": max(values),
        "n": len(values),
    }
