"""How long a machine that disturbs what is measured is borne with."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

from .verdict import disturbance


@dataclasses.dataclass
class Patience:
    """What is spent on courses that this machine disturbs."""

    tries: int
    """Of each course, the first one, too."""
    again_for: float = math.inf
    """Seconds that are left for having courses again, all of them together."""

    def least_disturbed(self, have: Callable[[str], dict]) -> dict:
        """The course that this machine disturbed least, and how much it did each. `have` is told why it is again."""
        best, disturbed, why = {}, [], ""
        while self._goes_on(disturbed):
            began = time.monotonic()
            found = have(why)
            if disturbed:
                self.again_for -= time.monotonic() - began
            disturbed.append(disturbance(found))
            if disturbed[-1] == min(disturbed):
                best = found
            why = f", again: disturbed {disturbed[-1]:.3g} times too much"
        return {**best, "disturbed": disturbed}

    def _goes_on(self, disturbed: list[float]) -> bool:
        if not disturbed:
            return True
        return min(disturbed) > 1 and len(disturbed) < self.tries and self.again_for > 0
