"""Faults in the model of XenoFlow's testbed (eswitch/src/testbed), in virtual time. Nothing of it was measured."""

from __future__ import annotations

import json
import subprocess

from lab.lab import ROOT

from .figures import STAGES

ABOUT = {
    "link-flap": "nothing comes in by the wire",
    "rule-storm": "updates of rules as many as the device takes of one queue",
    "spike": "8 times the load",
    "backend-death": "one of two backends; its connections' rules are taken out, and made for the other one",
    "spike-beyond": "12 times the load, which is more than the device forwards",
}
# Not held to the limit: what is beyond a device's rate has to be lost.
BEYOND = ("spike-beyond",)


def run(seed: int, ms: int) -> dict:
    """What the model says; each fault lasts so many milliseconds of virtual time."""
    argv = ["cargo", "run", "--quiet", "--locked", "--package", "eswitch", "--example", "faults", "--"]
    done = subprocess.run([*argv, str(seed), str(ms)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    data = json.loads(done.stdout)
    data["runs"] = [_as_measured(one) for one in data["runs"]]
    return data


def _as_measured(run_: dict) -> dict:
    """A course as those on real packets are: hits are the observed connections', misses the others'."""
    shaped = {key: value for key, value in run_.items() if key not in ("hits", "misses")}
    for name, key in (("observed", "hits"), ("opened", "misses")):
        shaped[name] = {stage: _part(run_[key][stage]) for stage in STAGES}
    last = run_["last_lost_ns"]
    shaped |= {"path": "model", "last_lost_s": None if last is None else last / 1e9}
    return shaped


def _part(part: dict) -> dict:
    return {**part, "sent": part["latency"]["count"] + part["lost"]}
