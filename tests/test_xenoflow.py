"""XenoFlow's figures from the model: the one command, and that what is out of bounds is told."""

import copy
import json
import subprocess
import sys

import pytest
from lab.lab import ROOT

sys.path.insert(0, str(ROOT / "scripts/xenoflow"))

from model.compare import CONSISTENT, comparisons  # noqa: E402


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    directory = tmp_path_factory.mktemp("xenoflow")
    done = subprocess.run([ROOT / "scripts/xenoflow/run.py", "--json", "--output", directory],
                          capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return directory, json.loads(done.stdout)


def test_figures_agree_with_the_paper(report):
    directory, data = report
    found = data["comparisons"]
    assert all(one["holds"] for one in found)
    assert {"figure 4", "figure 5", "figure 6", "figure 7", "figure 8", "chart"} == {one["source"] for one in found}
    # Nothing is called a prediction.
    assert {one["kind"] for one in found} == {"fitted", "derived", "consistent with"}
    assert {one["source"] for one in found if one["kind"] == CONSISTENT} == {"figure 6", "figure 8", "chart"}
    text, page = (directory / "report.md").read_text(), (directory / "report.html").read_text()
    for number in range(4, 9):
        assert f"figure-{number}.svg" in text
        assert (directory / f"figure-{number}.svg").stat().st_size > 5000
    assert "| reference |" in text and "55 bytes" in text
    assert text.count("MODEL") >= 5 and data["commit"] in text and page.count("<img ") == 5


def test_what_deviates_is_told(report):
    data = copy.deepcopy(report[1])
    for point in data["throughput"]:
        point["packets_per_second"] *= 0.9
        point["counted_gbit"] *= 0.8
    told = {one.what for one in comparisons(data) if not one.holds}
    assert told >= {"rate below 23 B of payload", "rate from 23 B on", "line rate at 1024 B, as an entry counts"}


@pytest.mark.parametrize("words", [
    ["--seed", "-1"], ["--seed", str(2**64)], ["--packets", "10"], ["--packets", "100000001"], ["--packets", "many"],
])
def test_numbers_that_the_model_does_not_take_are_refused(tmp_path, words):
    argv = [ROOT / "scripts/xenoflow/run.py", "--output", tmp_path / "none", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stderr.startswith("usage: ") and "is no number from" in done.stderr
    assert not (tmp_path / "none").exists()
