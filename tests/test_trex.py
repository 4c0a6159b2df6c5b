"""The load tests as a user runs them where TRex is not: testpmd on memif ports against Millrace."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "scripts/trex/run.py"
# Rates that any machine makes, and any loss: what is tested is that everybody counts the same packets.
LITTLE = ["--quick", "--seconds", "0.3", "--max-pps", "5000", "--max-cps", "1000", "--loss", "1", "--resolution", "0.5"]


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [str(RUN), *map(str, words)]
    binary = os.environ.get("MILLRACE_BINARY") or str(ROOT / "target/release/millrace")
    environment = {**os.environ, "MILLRACE_BINARY": binary, **environment}
    return subprocess.run(argv, capture_output=True, text=True, timeout=200, env=environment, check=False)


def test_testpmd_and_millrace_count_the_same_packets(tmp_path):
    words = ["--generator", "testpmd", "--only", "latency,cps", *LITTLE, "--out", tmp_path / "out"]
    done = run(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "out/results.json").read_text())
    assert told["faults"] == []
    assert [(one["kind"], one["load"]) for one in told["units"]] == [("latency", "udp-18"), ("cps", "http-short")]
    assert all(trial["servers"]["received"] > 0 for unit in told["units"] for trial in unit["trials"])
    points = told["units"][0]["summary"]["points"]
    assert any(0 < point["latency_us"]["p50"]["median"] for point in points if point["latency_us"])
    assert "cps-dns" in (tmp_path / "out/report.md").read_text(), "what was left out is told"
    again = run(*words, "--resume")
    assert again.returncode == 0 and again.stderr.count("done before") == 2, again.stderr


def test_what_hardware_forwarded_is_counted_too(tmp_path):
    words = ["--generator", "testpmd", "--only", "sweep", "--sizes", "1472", "--modes", "dsr", "--paths", "eswitch"]
    done = run(*words, *LITTLE, "--max-pps", "50000", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    (unit,) = json.loads((tmp_path / "out/results.json").read_text())["units"]
    assert unit["faults"] == [] and unit["size"] == {"frame": 1514, "payload": 1472}
    assert sum(trial["device"]["hw"]["original"] for trial in unit["trials"]) > 0


def test_without_trex_it_is_said_how_to_have_it(tmp_path):
    done = run("--out", tmp_path / "out", TREX_DIR="")
    assert done.returncode == 2 and "--trex-dir or TREX_DIR" in done.stderr
    assert not (tmp_path / "out").exists()
