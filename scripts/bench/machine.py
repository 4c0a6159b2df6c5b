"""The machine a bench runs on: what it is, whose its cores are, and huge pages lent for the time of a bench."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lab.lab import ROOT
from lab.net import LabError

HUGEPAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
HUGEPAGE_MIB = 2


def _said(*argv: str) -> str:
    """The first line a program says; nothing if it is not there or fails."""
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return (done.stdout.splitlines() or [""])[0].strip()


def _chosen(path: Path) -> str | None:
    """The word in brackets of a file that lists choices."""
    found = re.search(r"\[(\w+)\]", path.read_text()) if path.exists() else None
    return found[1] if found else None


def facts() -> dict[str, object]:
    """What a number depends on, apart from what is measured."""
    info = Path("/proc/cpuinfo").read_text()

    def field(name: str) -> str | None:
        found = re.search(rf"^{name}\s*: (.*)$", info, re.MULTILINE)
        return found[1].strip() if found else None

    mhz, bogomips = field("cpu MHz"), field("bogomips")
    return {
        "cpu": field("model name") or _said("uname", "-m"),
        "cores": os.cpu_count(),
        "mhz": float(mhz) if mhz else None,
        # Linux derives the one from the other where it knows the TSC's rate.
        "tsc_mhz": float(bogomips) / 2 if bogomips and mhz else None,
        "virtual": bool(re.search(r"^flags\s*:.*\bhypervisor\b", info, re.MULTILINE)),
        "kernel": os.uname().release,
        "dpdk": _said("pkg-config", "--modversion", "libdpdk"),
        "ovs": _said("ovs-vsctl", "--version").rpartition(" ")[2] or None,
        "transparent_hugepages": _chosen(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "load": os.getloadavg()[0],
        "binary": os.environ.get("MILLRACE_BINARY"),
        "commit": _said("git", "describe", "--always", "--dirty", "--abbrev=12"),
    }


def describe(machine: dict[str, object]) -> str:
    """The facts as one line."""
    clock = ", ".join(
        f"{machine[key]:.0f} MHz{suffix}" for key, suffix in (("mhz", ""), ("tsc_mhz", " TSC")) if machine[key]
    )
    words = [f"{machine['cpu']}{' (virtual)' if machine['virtual'] else ''}", f"{machine['cores']} cores", clock]
    words += [f"Linux {machine['kernel']}", f"DPDK {machine['dpdk']}"]
    words += [f"Open vSwitch {machine['ovs']}"] if machine["ovs"] else []
    words += [f"buffers in pages of {'2 MiB' if machine['hugepages'] else '4 KiB'}"]
    words += [f"transparent huge pages: {machine['transparent_hugepages'] or 'none'}", f"load {machine['load']:.1f}"]
    ours = f"; Millrace is {machine['binary']}" if machine["binary"] else ""
    return ", ".join(filter(None, words)) + f"; commit {machine['commit']}{ours}"


def cores() -> tuple[int, int]:
    """The core for everything else and the core that forwards."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise LabError("two cores are needed, one of which does nothing but forward; this process may use one")
    return usable[0], usable[1]


def read_at_once() -> None:
    """Puts this process, which mostly sleeps, before all others: so that it reads two counters at one time. Not
    what it starts."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


@contextlib.contextmanager
def hugepages(pages: int) -> Iterator[None]:
    """Has so many free huge pages of 2 MiB for a while, and takes back what it added."""
    number, free = HUGEPAGES / "nr_hugepages", HUGEPAGES / "free_hugepages"
    try:
        before = int(number.read_text())
        added = max(pages - int(free.read_text()), 0)
        if added:
            number.write_text(str(before + added))
            # Linux gives what it has, and says nothing if that is less.
            added = max(int(number.read_text()) - before, 0)
    except OSError as error:
        raise LabError(f"no huge pages: {error}") from error
    try:
        if (have := int(free.read_text())) < pages:
            needed, had = pages * HUGEPAGE_MIB, have * HUGEPAGE_MIB
            remedy = "free some memory, or go without (--hugepages no)"
            raise LabError(f"{needed} MiB of huge pages are needed and {had} could be had: {remedy}")
        yield
    finally:
        # Others may have changed it meanwhile.
        if added:
            number.write_text(str(max(int(number.read_text()) - added, 0)))


class Forwarder:
    """The thread of a process that forwards: the busiest of those that are bound to a core alone."""

    def __init__(self, pid: int, core: int):
        tasks = [task for task in Path(f"/proc/{pid}/task").iterdir() if _bound_to(task, core)]
        self._file = max((task / "schedstat" for task in tasks), key=_times, default=None)

    def waited_ns(self) -> int:
        """How long it has been kept from running by other programs, ever."""
        return _times(self._file)[1] if self._file else 0


def stolen_ns(core: int, stat: Path = Path("/proc/stat")) -> int:
    """How long the host of this virtual machine has given the core to others, ever: proc_stat(5), in steps of 10 ms."""
    with contextlib.suppress(OSError):
        for line in stat.read_text().splitlines():
            words = line.split()
            if words[0] == f"cpu{core}" and len(words) > 8:
                return int(words[8]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return 0


def _bound_to(task: Path, core: int) -> bool:
    return re.search(rf"^Cpus_allowed_list:\t{core}$", (task / "status").read_text(), re.MULTILINE) is not None


def _times(schedstat: Path) -> tuple[int, int]:
    """Nanoseconds it ran, and nanoseconds it was ready and did not."""
    try:
        ran, waited, _ = map(int, schedstat.read_text().split())
    except (OSError, ValueError):
        return 0, 0
    return ran, waited
