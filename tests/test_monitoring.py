"""The alerts and the dashboard of docs/monitoring fit the metrics that Millrace serves."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from pathlib import Path

from conftest import ROOT
from lab import clients, servers
from lab.millrace import service
from lab.net import LabError, wait_until
from lab.topology import VIP4

PAGES = ROOT / "docs" / "monitoring"
RULES = PAGES / "millrace.rules.yml"
DASHBOARD = json.loads((PAGES / "grafana-dashboard.json").read_text())

# Prometheus' own, and what it makes of histograms.
FOREIGN = {"up", "ALERTS"}
# A metric's name: what no parenthesis follows, labels taken away.
NAME = re.compile(r"\b([a-z]+(?:_[a-z0-9]+)+|up)\b(?!\s*\()")
KEYWORDS = {"group_left", "group_right"}


def documented() -> set[str]:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    histograms = {name for name, kind in rows if kind == "histogram"}
    return {name for name, _ in rows} | {name + "_bucket" for name in histograms}


def expressions(panel: dict) -> list[str]:
    return [target["expr"] for target in panel.get("targets", [])]


def queries() -> list[tuple[str, str]]:
    return [(panel["title"], query) for panel in DASHBOARD["panels"] for query in expressions(panel)]


def asked(query: str) -> str:
    """A query as Grafana would send it, for all nodes and services."""
    return query.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$service", ".*")


def names(query: str) -> set[str]:
    outside_labels = re.sub(r"\{[^}]*\}|\b(by|on)\s*\([^)]*\)|\"[^\"]*\"|\[[^\]]*\]", " ", query)
    return set(NAME.findall(outside_labels)) - KEYWORDS


def test_the_alerts_are_tested_rules():
    for command in (["check", "rules", RULES.name], ["test", "rules", "millrace.rules.test.yml"]):
        done = subprocess.run(["promtool", *command], cwd=PAGES, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_tests_of_the_alerts_can_fail(tmp_path):
    """With a threshold out of reach, or one that a healthy node passes, they do."""
    for was, becomes in (("> 0.85", "> 0.95"), ("> 0.85", "> 0.5"), ('{result="failure"}', "")):
        for page in PAGES.glob("millrace.rules*.yml"):
            shutil.copy(page, tmp_path)
        text = RULES.read_text()
        assert was in text
        (tmp_path / RULES.name).write_text(text.replace(was, becomes))
        command = ["promtool", "test", "rules", "millrace.rules.test.yml"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0, (was, becomes)


def test_all_names_are_metrics_that_are_documented():
    known = documented()
    rules = re.findall(r"expr: (?:>-\n)?((?:.|\n)+?)\n\s+(?:for|labels):", RULES.read_text())
    assert len(rules) == 20
    for query in rules + [query for _, query in queries()]:
        assert names(query), query
        assert names(query) <= known | FOREIGN, (query, names(query) - known)


def test_the_page_lists_the_alerts():
    page = (ROOT / "docs" / "monitoring.md").read_text()
    listed = re.findall(r"^\| `(Millrace\w+)` \|", page, re.MULTILINE)
    assert listed == re.findall(r"alert: (\w+)", RULES.read_text())


def test_the_dashboard_is_well_formed():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}" and panel["fieldConfig"]["defaults"]["unit"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__rate_interval"}
    assert used == variables


def test_prometheus_answers_what_the_dashboard_asks(labs):
    """On a node with traffic; which of the panels may be empty on a healthy one without an engine is said."""
    lab = labs()
    digest = servers.make_file(lab.files / "file", 4 << 20)
    lab.start_millrace([service("web", 1, health={"type": "tcp"})])
    prometheus = lab.start_prometheus()

    packets, violations = (expressions(panel_named(title))[0] for title in ("Packets", "Violations"))
    empty = set()

    def answers() -> bool:
        assert clients.http_sha256(lab.client, VIP4.format(1), "/files/file") == digest
        empty.clear()
        empty.update(title for title, query in queries() if not prometheus.query(asked(query)))
        if not empty <= {"Drops by reason", "Time to install a rule", "Time to enforce", "Price"}:
            return False
        return prometheus.value(asked(packets)) > 0

    # Rates take two scrapes of each metric, and are above zero when there was traffic between the two.
    with contextlib.suppress(LabError):
        wait_until("panels with data", answers, timeout=60, pause=1)
    assert answers(), empty
    assert prometheus.value(asked(violations)) == 0


def panel_named(title: str) -> dict:
    return next(panel for panel in DASHBOARD["panels"] if panel["title"] == title)
