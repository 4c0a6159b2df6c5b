"""XenoFlow's figures from the model: the one command, and that what is out of bounds is told."""

import copy
import json
import subprocess
import sys

import pytest
from lab.lab import ROOT, run_to_its_end

sys.path.insert(0, str(ROOT / "scripts/xenoflow"))

from model import measured  # noqa: E402
from model.compare import CONSISTENT, comparisons  # noqa: E402
from run import tools  # noqa: E402


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


# What the load runner would have measured, with a generator and a device that are neither.
SIMULATED = """
import contextlib, sys
sys.path[:0] = sys.argv.pop(1).split(":")
from simulated import Device, Generator
from stress import cli
cli.place = contextlib.contextmanager(lambda *_: iter([(Generator(device := Device()), device)]))
sys.exit(cli.main(sys.argv[1:]))
"""


def command(directory, *words: object) -> subprocess.CompletedProcess[str]:
    argv = [ROOT / "scripts/xenoflow/run.py", "--output", directory, "--packets", "30000", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)


def test_what_was_measured_is_put_beside_it(tmp_path, monkeypatch):
    words = ["--generator", "testpmd", "--quick", "--max-pps", "1000000", "--sizes", "18,1472"]

    def simulated(argv, **how):
        path = ":".join(str(ROOT / "scripts" / part) for part in ("trex/tests", "trex", ""))
        return run_to_its_end([tools() / "bin/python", "-c", SIMULATED, path, *argv[2:]], **how)

    monkeypatch.setattr(measured, "run_to_its_end", simulated)
    found = measured.measure("lab", tmp_path / "measured", words)
    monkeypatch.undo()
    # More than the simulated device takes; the link is the bound of large ones.
    assert found.mpps == pytest.approx({18: 0.5, 1472: 0.5}) and found.lab and not found.faults
    assert [round(share, 3) for _, share in found.loss[18]][::5] == [0, 0.327, 0.495] and list(found.loss) == [18]
    # All is there, so that the command measures nothing again.
    done = command(tmp_path, "--json", "--testbed", "lab", "--", *words)
    assert done.returncode == 0 and done.stderr.count("done before") == 3, done.stderr
    told = json.loads(done.stdout)["measured"]
    assert told["mpps"] == {str(payload): rate for payload, rate in found.mpps.items()} and len(told["latency"]) == 6
    text = (tmp_path / "report.md").read_text()
    assert "MODEL and measured" in text and "No hardware was measured" in text, "the lab is none"
    assert "| 18 | 96.7 (text) | 96.7 | 0.5 | 0 % |" in text
    assert "NOT THE DEVICE'S RATES" in text and "with 18, 1472 B" in text, "a device that offloads nothing"
    assert "squares: measured, lab" in (tmp_path / "figure-4.svg").read_text()


def results(*units: dict) -> dict:
    testbed = {"name": "bench", "about": "one", "lab": False}
    return {"settings": {"testbed": testbed}, "units": list(units), "faults": []}


def overload(**more: object) -> dict:
    gbps = {"wire": {"median": 1}}
    told = {"rate": {"median": 1e6}, "in_hardware": {"median": 0.98}, "gbps": gbps, "points": [{}]}
    unit = {"kind": "overload", "mode": "source-partition", "path": "hardware", "millrace": "a"}
    return unit | {"size": {"payload": 18}, "summary": told} | more


def test_results_of_something_else_are_not_taken_for_the_devices():
    found = measured.read(results(overload(), overload(millrace="b", size={"payload": 22})), "now")
    assert found.in_software() == [18, 22] and found.faults == ["THESE ARE OF SEVERAL BUILDS OF MILLRACE: a, b"]
    with pytest.raises(measured.MeasureError, match="nat hardware"):
        measured.read(results(overload(), overload(mode="nat")), "now")
    with pytest.raises(measured.MeasureError, match="no overload"):
        measured.read(results(), "now")


def test_what_cannot_be_measured_is_said(tmp_path):
    done = command(tmp_path, "--testbed", tmp_path / "none.toml")
    assert done.returncode == 2 and "none.toml" in done.stderr and "nothing was measured" in done.stderr
    done = command(tmp_path, "--testbed", "lab", "--", "--modes=nat")
    assert done.returncode == 2 and "--modes=nat: says what these figures are of" in done.stderr
    done = command(tmp_path, "--", "--quick")
    assert done.returncode == 2 and "only with --testbed" in done.stderr
