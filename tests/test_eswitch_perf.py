"""DPDK's dpdk-test-flow-perf, unmodified, makes and destroys rules of many shapes on the software eSwitch.

Nothing is asserted about time; `scripts/bench/flow_perf.py` prints it.
"""

import pytest
from bench.flow_perf import CASES, PROFILES, run


@pytest.mark.parametrize("case", CASES)
def test_rules_of_a_shape(case, full):
    rates = run(case, rules=1_000_000 if full else 10_000)
    assert rates["insertion"] > 0 and rates["deletion"] > 0


@pytest.mark.parametrize("profile", PROFILES)
def test_rules_take_time(profile):
    run("nat", profile=profile, rules=500)
