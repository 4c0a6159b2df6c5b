"""Finding the highest rate that passes: RFC 2544's throughput, on machines that are not always quiet.

A bisection between a rate that passed and one that did not, until they are `resolution` apart. A trial that failed
is repeated `again` times before its rate counts as too high, which is what ETSI GS NFV-TST 009 (clause 12.3.3) calls
loss verification: a transient loss would otherwise cost half of the range. And what was found is confirmed: the rate
must pass `confirm` more times, or the search goes on below it. Nothing here knows packets or clocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one trial."""

    passed: bool
    why: str = ""
    """If not: `loss`, or what else there was, e.g. `not taken` if the rate was not reached."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the search goes."""

    low: float
    """A rate below which nothing is looked for, over 0."""
    high: float
    """The highest rate that is tried: of the link, or of the generator."""
    resolution: float = 0.02
    """How far apart, as a share of the higher one, the rates may be between which the answer lies."""
    again: int = 0
    """How often a trial that failed is repeated."""
    confirm: int = 1
    """How often what was found must pass again."""
    trials_max: int = 60
    """An end, whatever happens."""

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"rates from {self.low:g} to {self.high:g}: the lower one must be over 0, and not above")
        if not 0 < self.resolution < 1:
            raise ValueError(f"resolution {self.resolution:g}: a share between 0 and 1")
        if self.again < 0 or self.confirm < 0 or self.trials_max < 1:
            raise ValueError("numbers of trials cannot be negative, and one trial is the least")


@dataclasses.dataclass
class Found:
    """What a search found."""

    rate: float
    """The highest rate that passed and was confirmed; 0: none did."""
    bounded_by: str
    """`loss`, `not taken`, ...: why the next higher rate failed. `range`: the highest rate that may be tried passed.
    `trials`: there were no trials left, and the answer is a lower bound."""
    trials: int
    above: float | None
    """The lowest rate that failed; `None`: none did."""


def search(trial: Callable[[float], Verdict], settings: Settings) -> Found:
    """The highest rate that passes, with as many calls of `trial` as that takes."""
    return _Search(trial, settings).run()


class _Search:
    def __init__(self, trial: Callable[[float], Verdict], settings: Settings):
        self._trial, self._settings = trial, settings
        self._left = settings.trials_max
        self._passed: dict[float, int] = {}
        """How often a rate passed; without those that failed later."""
        self._above: float | None = None
        self._why = "range"

    def run(self) -> Found:
        settings = self._settings
        if self._passes(settings.high) and self._confirmed(settings.high):
            return self._found(settings.high, "range")
        while self._left > 0:
            rate = self._next()
            if rate is None:
                best = max(self._passed, default=0.0)
                if best == 0.0 or self._confirmed(best):
                    return self._found(best, self._why)
                continue
            self._passes(rate)
        # Only what was confirmed may be told.
        sure = [rate for rate, times in self._passed.items() if times > settings.confirm]
        return self._found(max(sure, default=0.0), "trials")

    def _next(self) -> float | None:
        """The rate to try, or nothing if the answer is near enough."""
        above = self._above if self._above is not None else self._settings.high
        below = max(self._passed, default=0.0)
        if above - below <= self._settings.resolution * above:
            return None
        low = self._settings.low
        if below == 0.0:
            # Nothing passed yet: the lowest rate last.
            return None if above <= low else max((above + low) / 2 if above > 2 * low else low, low)
        return (above + below) / 2

    def _confirmed(self, rate: float) -> bool:
        while self._passed.get(rate, 0) <= self._settings.confirm:
            if self._left <= 0 or not self._passes(rate):
                return False
        return True

    def _passes(self, rate: float) -> bool:
        """Tries a rate, again if it fails, and remembers."""
        for _ in range(1 + self._settings.again):
            if self._left <= 0:
                return False
            self._left -= 1
            verdict = self._trial(rate)
            if verdict.passed:
                self._passed[rate] = self._passed.get(rate, 0) + 1
                return True
        self._above = rate if self._above is None else min(rate, self._above)
        self._why = verdict.why or "loss"
        self._passed = {one: times for one, times in self._passed.items() if one < rate}
        return False

    def _found(self, rate: float, why: str) -> Found:
        return Found(rate=rate, bounded_by=why, trials=self._settings.trials_max - self._left, above=self._above)
