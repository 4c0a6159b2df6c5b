"""Faults under load: that the one command has one, and that its books are right. No time is judged."""

import json
import subprocess

from lab.lab import ROOT


def test_a_link_flap_is_measured(tmp_path):
    argv = [ROOT / "scripts/faults/run.py", "--quick", "--only", "link-flap", "--paths", "eswitch-hws", "--json"]
    done = subprocess.run([*argv, "--output", tmp_path], capture_output=True, text=True, timeout=120, check=False)
    # 1: this machine was too slow for the limit.
    assert done.returncode in (0, 1), done.stderr
    data = json.loads(done.stdout)
    calm, flap = data["runs"]
    assert (calm["fault"], flap["fault"]) == ("none", "link-flap")
    assert calm["observed"]["during"]["sent"] > 0 and flap["in_hardware"] > 0.5
    for run in data["runs"]:
        for part in (*run["observed"].values(), *run["opened"].values()):
            assert part["sent"] == part["lost"] + part["latency"]["count"]
            assert part["latency"]["count"] == sum(count for _, count in part["latency"]["buckets"])
    assert flap["observed"]["during"]["lost"] > 0 and flap["observed"]["after"]["latency"]["count"] > 0
    assert flap["last_lost_s"] > 0
    assert [one["fault"] for one in data["verdicts"]] == ["link-flap"]
    report = (tmp_path / "report.md").read_text()
    assert data["machine"]["commit"] in report and "MODEL" in report
    for picture in ("ratio.svg", "link-flap.svg", "link-flap-course.svg"):
        assert picture in report and (tmp_path / picture).stat().st_size > 5000
