"""The search, against simulated devices."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stress.search import Settings, Verdict, search

RATES = st.floats(min_value=1.0, max_value=1e8, allow_nan=False)


def device(
    capacity: float, trials: list[float], noise: float = 0.0, seed: int = 0, passes: list[float] | None = None
):
    """One that passes up to its capacity, but for spurious losses; `passes` has the rates of trials that did."""
    chance = random.Random(seed)

    def trial(rate: float) -> Verdict:
        trials.append(rate)
        passed = rate <= capacity and chance.random() >= noise
        if passed and passes is not None:
            passes.append(rate)
        return Verdict(passed, "loss")

    return trial


@given(low=RATES, span=st.floats(1, 1e5), place=st.floats(0, 1.2), resolution=st.floats(0.001, 0.5))
def test_a_quiet_device_is_found_within_the_resolution(low, span, place, resolution):
    high, trials = low * span, []
    capacity = low + (high - low) * place
    wanted = Settings(low, high, resolution, trials_max=200)
    found = search(device(capacity, trials), wanted)
    assert found.trials == len(trials) <= 200
    assert found.rate <= capacity and trials.count(found.rate) >= 2
    if capacity >= high:
        assert (found.rate, found.bounded_by, found.above) == (high, "range", None)
    else:
        assert found.bounded_by == "loss" and found.above > capacity
        assert found.above - found.rate <= resolution * found.above
        assert all(low <= rate <= high for rate in trials)


@given(capacity=st.floats(0, 0.99), low=st.floats(1, 100))
def test_nothing_is_found_below_the_lowest_rate(capacity, low):
    trials = []
    found = search(device(capacity * low, trials), Settings(low, low * 1000))
    assert (found.rate, found.above, found.bounded_by) == (0, low, "loss")


@settings(max_examples=60)
@given(noise=st.floats(0, 0.9), again=st.integers(0, 3), seed=st.integers(0, 10**6), most=st.integers(1, 80))
def test_noise_neither_keeps_it_running_nor_makes_it_lie(noise, again, seed, most):
    trials, passes = [], []
    wanted = Settings(1.0, 1000.0, 0.02, again=again, confirm=1, trials_max=most)
    found = search(device(420.0, trials, noise, seed, passes), wanted)
    assert len(trials) == found.trials <= most
    assert found.rate <= 420
    assert found.rate == 0 or passes.count(found.rate) >= 2, "only what was confirmed is told"


def test_repeating_failed_trials_finds_the_threshold_through_noise():
    near = 0
    for seed in range(40):
        trials = []
        wanted = Settings(1.0, 1000.0, 0.02, again=3, confirm=1, trials_max=200)
        near += 420 * 0.96 <= search(device(420.0, trials, 0.1, seed), wanted).rate <= 420
    assert near >= 38


def test_what_bounds_it_is_told():
    def trial(rate: float) -> Verdict:
        return Verdict(rate < 100, "not taken")

    assert search(trial, Settings(1, 1000)).bounded_by == "not taken"


def test_what_was_not_confirmed_when_trials_end_is_not_told():
    trials = []
    found = search(device(500.0, trials), Settings(1.0, 1000.0, 0.001, confirm=1, trials_max=4))
    assert (found.rate, found.bounded_by) == (0.0, "trials")


@pytest.mark.parametrize("wrong", [{"low": 0}, {"low": 2, "high": 1}, {"resolution": 1}, {"again": -1}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError):
        Settings(**({"low": 1.0, "high": 10.0} | wrong))
