"""The report of all figures: its page, and how the command ends; with parts that are made in no time."""

from __future__ import annotations

import json
import signal
import sys

import pytest
from figures import cli, index
from figures.parts import PARTS
from lab.lab import exit_on_signals

FACTS = {"cpu": "A CPU", "virtual": True, "cores": 2, "kernel": "6.1", "dpdk": "22.11", "load": 0.5, "commit": "abc",
         "binary": None}


@pytest.fixture
def made(monkeypatch):
    """Parts whose commands only draw; gives how each ends, and the facts, to be changed."""
    statuses, facts = {part.name: 0 for part in PARTS}, dict(FACTS)

    def run(argv):
        directory = index.Path(argv[-1])
        status = statuses[directory.name]
        if status == "interrupted":
            raise KeyboardInterrupt
        if status != 2:
            directory.mkdir()
            (directory / "one.svg").write_text("<svg/>")
            (directory / "report.md").write_text(f"![{directory.name} drawn](one.svg)\n")
        return status

    monkeypatch.setattr(cli, "run", run)
    monkeypatch.setattr(cli.machine, "facts", lambda: facts)
    return statuses, facts


def figures(output, *words: str) -> tuple[int, str]:
    """The status, and the page."""
    status = cli.main(["--output", str(output), *words])
    return status, (output / "index.md").read_text()


def test_a_run_has_all_parts(tmp_path, made):
    status, page = figures(tmp_path)
    assert status == 0 and "Not here" not in page and "several builds" not in page and "to be quoted" not in page
    for part in PARTS:
        assert f"## {part.title}\n" in page and f"![{part.name} drawn]({part.name}/one.svg)" in page
    assert (tmp_path / "index.html").read_text().count("data:image/svg+xml;base64,") == len(PARTS)


def test_what_is_missing_is_made_later_and_the_rest_stays(tmp_path, made):
    statuses, facts = made
    statuses["faults"] = "interrupted"
    status, page = figures(tmp_path)
    assert status == 130 and "![latency drawn]" in page
    assert "Not here: faults, load. scripts/figures.sh --only faults,load" in page
    statuses["faults"], facts["commit"] = 0, "def"
    status, page = figures(tmp_path, "--only", "faults,load")
    assert status == 0 and "Not here" not in page and "of several builds of Millrace" in page
    lines = [line for part in PARTS for line in page.splitlines() if line.startswith(f"| {part.title}")]
    assert [("| abc |" in line, "| def |" in line) for line in lines] == [(True, False)] * 2 + [(False, True)] * 2


def test_a_part_that_is_interrupted_does_not_pass_for_the_one_before(tmp_path, made):
    statuses, _ = made
    assert figures(tmp_path)[0] == 0
    statuses["latency"] = "interrupted"
    status, page = figures(tmp_path, "--only", "latency")
    assert status == 130 and "Not here: latency." in page and "![load drawn]" in page


CHILD = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
try:
    os.kill(os.getppid(), int(sys.argv[1]))
    time.sleep(1)
finally:
    open(sys.argv[2], "x")
"""


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_interrupted_part_may_clean_up(tmp_path, number, ends):
    # A shell starts what is in the background with interrupts ignored.
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    exit_on_signals()
    try:
        with pytest.raises(ends):
            cli.run([sys.executable, "-c", CHILD, str(int(number)), str(tmp_path / "cleaned")])
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
    assert (tmp_path / "cleaned").exists()


def test_what_was_quick_says_so_later_too(tmp_path, made):
    figures(tmp_path, "--only", "xenoflow", "--quick")
    _, page = figures(tmp_path, "--only", "latency")
    assert "**--quick, too short to be quoted: xenoflow.**" in page


@pytest.mark.parametrize("text", ["", "{", "[]", '{"part": "load"}'])
def test_books_that_cannot_be_read_are_none(tmp_path, made, text):
    (tmp_path / "load").mkdir()
    (tmp_path / "load/done.json").write_text(text)
    _, page = figures(tmp_path, "--only", "xenoflow")
    assert "Not here: latency, faults, load." in page


@pytest.mark.parametrize(("ends", "status"), [
    ({}, 0), ({"faults": 1}, 1), ({"faults": 1, "load": 2}, 2), ({"load": 127}, 2), ({"latency": -9}, 1),
])
def test_the_status_is_the_worst_of_the_parts(tmp_path, made, ends, status):
    statuses, _ = made
    statuses.update(ends)
    found, page = figures(tmp_path)
    assert found == status
    for name, ended in ends.items():
        assert json.loads((tmp_path / name / "done.json").read_text())["status"] == ended
    assert ("could not be made" in page) == (2 in ends.values())


def test_parts_of_runs_before_do_not_count(tmp_path, made):
    statuses, _ = made
    statuses["faults"] = 1
    assert figures(tmp_path)[0] == 1
    status, page = figures(tmp_path, "--only", "xenoflow")
    assert status == 0 and "numbers out of their bounds" in page


@pytest.mark.parametrize("words", [["--only", "typo"], ["--only", ""], ["--typo"]])
def test_arguments_that_make_no_sense_are_refused(tmp_path, words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--output", str(tmp_path / "none"), *words])
    assert ended.value.code == 2 and not (tmp_path / "none").exists()


@pytest.mark.parametrize(("words", "needs"), [
    (["--only", "xenoflow"], ""),
    (["--only", "xenoflow,faults", "--quick"], "eswitch millrace"),
    ([], "eswitch millrace traffic"),
])
def test_what_is_to_be_built_is_told_and_nothing_made(tmp_path, made, capsys, words, needs):
    assert cli.main(["--needs", "--output", str(tmp_path / "none"), *words]) == 0
    assert capsys.readouterr().out == f"{needs}\n" and not (tmp_path / "none").exists()
