"""Whole runs with a simulated generator: what they find, that they go on where they ended, and what they report."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
from simulated import CAPACITY, CONNECTIONS, MADE, Device, Generator
from stress import cli, experiments, scene
from stress.document import markdown, page
from stress.generators import trex
from stress.layers import Size, udp_frame
from stress.store import Store, StoreError
from stress.traffic import udp

HEADINGS = ["Millrace under load", "No-drop rate", "No-drop rate by size", "More than is forwarded",
            "Latency against load", "New connections", "SYN flood", "Left out", "Machine and programs"]


@pytest.fixture
def simulated(monkeypatch):
    """Runs with a simulated generator instead of TRex; gives what was started."""
    started: list[Generator] = []

    @contextlib.contextmanager
    def place(wanted, testbed, mode, path):
        device = Device()
        started.append(Generator(device, lying=getattr(place, "lying", False)))
        yield started[-1], device

    monkeypatch.setattr(cli, "place", place)
    monkeypatch.setattr(cli, "check", lambda wanted, testbed: None)
    monkeypatch.setattr(trex.Trex, "can", staticmethod(Generator.can))
    started_by = place
    return started, started_by


def run(out, *words: str) -> int:
    return cli.main(["--out", str(out), "--seconds", "1", "--max-pps", "1000000", "--max-cps", "50000", *words])


def test_a_run_finds_the_device_and_reports_it(tmp_path, simulated):
    assert run(tmp_path / "out", "--sizes", "0,1472", "--modes", "nat,dsr") == 0
    told = json.loads((tmp_path / "out/results.json").read_text())
    assert told["faults"] == []
    by_kind = {(unit["mode"], unit["kind"], unit["load"]): unit for unit in told["units"]}
    rate = by_kind["nat", "no-drop", "udp-18"]["summary"]["rate"]
    assert CAPACITY * 0.97 <= rate["median"] <= CAPACITY and (rate["n"], rate["cov"]) == (3, 0)
    assert ("dsr", "cps", "http-short") not in by_kind and "dsr: cps-http-short" in told["left_out"]
    cps = by_kind["nat", "cps", "http-short"]["summary"]
    assert CONNECTIONS * 0.98 <= cps["rate"]["median"] <= CONNECTIONS
    assert cps["bounded_by"] == {"failed connections": 3}
    points = by_kind["nat", "latency", "udp-18"]["summary"]["points"]
    assert [point["share"] for point in points] == list(experiments.LOADS)
    assert points[-1]["latency_us"]["p50"]["median"] > points[0]["latency_us"]["p50"]["median"]
    flood = by_kind["nat", "flood", "syn"]["summary"]
    assert flood["forwarded"]["median"] == pytest.approx(0.5, rel=0.02) and flood["other"]["median"] > 0.49
    text = (tmp_path / "out/report.md").read_text()
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE) == HEADINGS
    assert "imix | it has no mixes" in text and "BOOKS DISAGREE" not in text
    assert "All " in text and "goodput (UDP or TCP payload)" in text
    html = (tmp_path / "out/report.html").read_text()
    assert html.count("<img ") == html.count("data:image/svg+xml;base64,") == 6 and "http" not in html.split("<body>")[0]


def test_what_is_offered_too_much_is_forwarded_in_part(tmp_path, simulated):
    assert run(tmp_path / "out", "--only", "overload", "--sizes", "18,64") == 0
    units = {unit["load"]: unit for unit in json.loads((tmp_path / "out/results.json").read_text())["units"]}
    points = units["udp-18"]["summary"]["points"]
    assert [point["share"] for point in points] == list(experiments.OFFERED)
    for point in points:
        offered = MADE * point["share"] * 1e6
        assert point["offered"]["median"] == pytest.approx(offered)
        assert point["forwarded"]["median"] == pytest.approx(min(offered, CAPACITY))
        assert point["loss"]["median"] == pytest.approx(max(1 - CAPACITY / offered, 0), abs=1e-5)
    large = units["udp-64"]["summary"]
    assert len(large["points"]) == 1 and large["rate"]["median"] == pytest.approx(CAPACITY)
    text = (tmp_path / "out/report.md").read_text()
    assert re.findall(r"^#+ (.*)$", text, re.MULTILINE)[1] == "More than is forwarded"
    assert "| udp-64 | nat, software | 990 k | 500 k (cov 0.0 %) [500 k 500 k] | 49.5 % | 0 % |" in text


def test_no_rate_is_above_the_links(tmp_path, simulated):
    testbed = tmp_path / "slow.toml"
    lab = (cli.HERE / "testbeds/lab.toml").read_text()
    testbed.write_text(re.sub(r"(?m)^link_gbps = .*$", "link_gbps = 1", lab))
    words = ("--testbed", str(testbed), "--only", "no-drop,sweep", "--sizes", "0,1472", "--repetitions", "1")
    assert run(tmp_path / "out", *words) == 0
    units = json.loads((tmp_path / "out/results.json").read_text())["units"]
    summaries = {unit["load"]: unit["summary"] for unit in units}
    assert summaries["udp-1472"]["gbps"]["wire"]["median"] == pytest.approx(0.99, rel=1e-3)
    assert summaries["udp-1472"]["bounded_by"] == {"range": 1} and summaries["udp-0"]["bounded_by"] == {"loss": 1}


def test_what_was_made_is_told_and_not_what_was_asked_for(tmp_path, simulated):
    assert run(tmp_path / "out", "--only", "no-drop", "--loads", "udp-18", "--repetitions", "1") == 0
    (unit,) = json.loads((tmp_path / "out/results.json").read_text())["units"]
    (found,) = unit["results"]
    assert found["rate"] == pytest.approx(MADE * found["asked"]) and found["rate"] <= CAPACITY < found["above"]
    assert "simulated" in unit["about"]


def test_latency_is_at_shares_of_the_rates_median_also_after_a_pause(tmp_path, simulated, monkeypatch):
    words = ("--only", "no-drop,latency", "--loads", "udp-18", "--repetitions", "3")
    whole = experiments.Bench.run

    def interrupted(bench, unit):
        if unit.kind == "latency":
            raise KeyboardInterrupt
        return whole(bench, unit)

    monkeypatch.setattr(experiments.Bench, "run", interrupted)
    assert run(tmp_path / "out", *words) == 130
    monkeypatch.setattr(experiments.Bench, "run", whole)
    assert run(tmp_path / "out", "--resume", *words) == 0
    found = {unit["kind"]: unit["results"] for unit in json.loads((tmp_path / "out/results.json").read_text())["units"]}
    asked = sorted(one["asked"] for one in found["no-drop"])
    assert [one["rate"] for one in found["latency"]] == [asked[1]] * 3


def test_builds_that_differ_are_told(tmp_path, simulated, monkeypatch):
    words = ("--only", "no-drop", "--repetitions", "1")
    assert run(tmp_path / "out", *words, "--modes", "nat") == 0
    header = tmp_path / "out/run.json"
    header.write_text(header.read_text().replace('"nat"', '"nat",\n  "dsr"'))
    monkeypatch.setattr(Device, "built", "0.1.0 (def)")
    assert run(tmp_path / "out", "--resume", *words, "--modes", "nat,dsr") == 0
    text = (tmp_path / "out/report.md").read_text()
    assert "**THESE ARE OF SEVERAL BUILDS OF MILLRACE: 0.1.0 (abc): no-drop udp-18 (nat, software)" in text


@pytest.mark.parametrize(("mode", "why"), [("dsr", "see `fresh`"), ("source-partition", "it opens no connections")])
def test_connections_per_second_that_cannot_be_had_say_why(tmp_path, simulated, mode, why):
    words = ("--only", "no-drop,cps", "--loads", "udp-18,dns,http-short", "--repetitions", "1", "--modes", mode)
    assert run(tmp_path / "out", *words) == 0
    left_out = json.loads((tmp_path / "out/results.json").read_text())["left_out"]
    assert why in left_out[f"{mode}: cps-http-short"] and left_out[f"{mode}: cps-dns"].startswith(f"n/a with {mode}")


@pytest.mark.parametrize(("words", "said"), [
    (("--loads", "typo"), "there is no load typo; there are"),
    (("--only", "cps", "--modes", "dsr"), "none of these experiments can be done here"),
])
def test_nothing_to_do_is_no_success(tmp_path, simulated, capsys, words, said):
    assert run(tmp_path / "out", *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--max-pps", "0"), ("--max-cps", "-1"), ("--loss", "1.5")])
def test_numbers_that_make_no_sense_are_refused(tmp_path, words):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "out", *words)
    assert ended.value.code == 2


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, simulated, monkeypatch):
    started, _ = simulated
    words = ("--only", "no-drop", "--loads", "udp-18,dns", "--repetitions", "2")
    whole = experiments.Bench.run

    def interrupted(bench, unit):
        if unit.load.name == "dns":
            raise KeyboardInterrupt
        return whole(bench, unit)

    monkeypatch.setattr(experiments.Bench, "run", interrupted)
    assert run(tmp_path / "out", *words) == 130
    monkeypatch.setattr(experiments.Bench, "run", whole)
    first = started[-1].trials
    assert run(tmp_path / "out", *words) == 2, "without --resume nothing is overwritten"
    assert run(tmp_path / "out", "--resume", *words) == 0
    assert 0 < started[-1].trials <= first + 2, "one of two units was left"
    count = len(started)
    assert run(tmp_path / "out", "--resume", *words) == 0
    assert len(started) == count, "with nothing left to do, nothing is started"
    assert run(tmp_path / "out", "--resume", *words, "--loss", "0.1") == 2, "other settings are another run"


def test_books_that_disagree_are_told_loudly(tmp_path, simulated, monkeypatch):
    _, place = simulated
    place.lying = True
    monkeypatch.setattr(experiments, "RECOUNT_SECONDS", 0)
    assert run(tmp_path / "out", "--only", "no-drop", "--repetitions", "1") == 1
    text = (tmp_path / "out/report.md").read_text()
    assert "**BOOKS DISAGREE: nat, software, no-drop udp-18: at " in text
    assert 'class="fault"' in (tmp_path / "out/report.html").read_text()


def test_without_trex_it_is_said_how_to_have_it(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("TREX_DIR", raising=False)
    assert run(tmp_path / "out") == 2
    assert "--trex-dir or TREX_DIR" in capsys.readouterr().err
    assert run(tmp_path / "out", "--trex-dir", str(tmp_path)) == 2
    assert "has no t-rex-64" in capsys.readouterr().err


def test_a_store_keeps_units_whole(tmp_path):
    store = Store(tmp_path, {"a": (1, 2)}, resume=False)
    assert store.done("one") is None
    store.keep("one", {"x": 1})
    again = Store(tmp_path, {"a": [1, 2]}, resume=True)
    assert again.done("one") == {"x": 1}
    with pytest.raises(StoreError, match="a was"):
        Store(tmp_path, {"a": 3}, resume=True)


def test_layers_count_what_they_say():
    small = Size(udp_frame(0), 0)
    assert small.line_rate_pps(10) == pytest.approx(14_880_952, abs=1)
    assert small.gbps(14_880_952)["l2"] == pytest.approx(7.619, abs=0.001)
    large = udp(1472).size
    assert (large.frame, large.gbps(1e6)["goodput"]) == (1514, pytest.approx(11.776))
    with pytest.raises(ValueError):
        large.bits("ip")


@pytest.mark.parametrize("name", ["lab", "bluefield"])
def test_the_testbeds_can_be_read(name):
    testbed = scene.load(cli.HERE / f"testbeds/{name}.toml")
    assert testbed.name == name and testbed.lab == (name == "lab")
    assert trex.server_config(testbed, cli.HERE, (1, 2))["version"] == 2


@pytest.mark.parametrize(("text", "said"), [
    ("name = 'x'\nlink = 3", "link: no such key; there are about,"),
    ("name = 'x'\nabout = ''\nlab = false\nlink_gbps = 1", "metrics: where Millrace's are"),
    ("name = 'x'", "missing"),
    ("name = 'x'\nabout = ''\nlab = false\nlink_gbps = 1\nmetrics = 'm'\nserver = '10.0.0.1'", "start = false"),
    ("[scene]\nvip = 'here'", "here"),
    ("name", "testbed.toml"),
])
def test_a_wrong_testbed_is_told_where(tmp_path, text, said):
    file = tmp_path / "testbed.toml"
    file.write_text(text)
    with pytest.raises(scene.TestbedError, match=re.escape(said)):
        scene.load(file)


def test_latency_quantiles_are_of_the_histogram():
    found = {"latency": {7: {"latency": {"average": 14.0, "total_max": 230, "histogram": {0: 50, 10: 45, 200: 5}}}}}
    told = trex.quantiles(found)
    assert (told["p50"], told["p90"], told["p99"], told["most"]) == (10, 20, 230, 230)
    assert trex.quantiles({"latency": {}}) is None
    found["latency"][7]["latency"]["total_max"] = 0
    assert trex.quantiles(found)["most"] == 300


def test_documents_escape_what_they_are_told(tmp_path):
    from stress.document import Paragraph, Table

    blocks = [Paragraph("<b>"), Table(["a", "b"], [["x|y", "1"]])]
    assert "x\\|y" in markdown(blocks)
    assert "&lt;b&gt;" in page(blocks, "t", tmp_path)
