"""What the system tests share: the release build, labs, and what must hold after every test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from lab.lab import Lab, exit_on_signals  # noqa: E402
from lab.millrace import STOP_SECONDS  # noqa: E402
from lab.topology import Shape  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="full sizes: 1 GiB, 100,000 connections, a million packets")


def pytest_configure(config):
    config.addinivalue_line("markers", "full: tested with --full only")
    if os.geteuid() != 0:
        pytest.exit("the system tests make network namespaces: run them as root", returncode=1)
    exit_on_signals()


def pytest_collection_modifyitems(config, items):
    """Leaves out what is only tested at full size; the last line says how many."""
    if config.getoption("--full"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def full(request) -> bool:
    """Whether to test at full size."""
    return request.config.getoption("--full")


@pytest.fixture(scope="session", autouse=True)
def release_build():
    if "MILLRACE_BINARY" not in os.environ:
        subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=ROOT, check=True)


@pytest.fixture
def labs(request):
    """Makes labs. When a test has passed, Millrace must still run, its books must balance, and it must
    stop in time; when it has failed, the report ends with the logs."""
    made: list[Lab] = []

    def make(shape: Shape = Shape(), **options) -> Lab:
        made.append(Lab(shape, **options))
        return made[-1]

    yield make
    try:
        if request.node.passed:
            for lab in made:
                check_in_peace(lab)
    except BaseException:
        for lab in made:
            print(lab.log_tails())
        raise
    finally:
        for lab in made:
            lab.close()


def check_in_peace(lab: Lab) -> None:
    if lab.millrace and lab.millrace.process.alive():
        balance = lab.millrace.at_rest(timeout=20).imbalance()
        assert not any(balance.values()), f"packets lost sight of, by worker: {balance}"
        assert lab.millrace.stop() <= STOP_SECONDS


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if call.when == "setup":
        item.passed = False
    if call.when == "call":
        item.passed = report.passed
        factory = item.funcargs.get("labs")
        if report.failed and factory is not None:
            made = factory.__closure__[0].cell_contents
            report.sections.append(("logs of the lab", "\n".join(lab.log_tails() for lab in made)))
