"""Scripts of testpmd commands with the driver under a memory checker.

    python3 -m lab.memcheck valgrind|asan [--quick | NAME ...]

Nothing is compared here, tests/test_eswitch.py does that: all that matters is that every command and every
frame of the tests comes by, in whatever order, and how the checker likes it. Needs no root: wires are pcap files.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from eswitch.packets import frames

from .flowscript import Script
from .frames import write_pcap
from .net import run
from .testpmd import ROOT, built_driver

SCRIPTS = ROOT / "tests/eswitch"
# Of these a few that together do a bit of everything.
QUICK = re.compile(r"miss|sws-(life|objects)|hws-rules")
ENDING = """
port stop all
port start all
start
show port xstats all
flow flush 0
flow create 0 transfer pattern eth / ipv4 / end actions count / represented_port ethdev_port_id 1 / end
stop
port stop 0
port start 0
port close 1
device detach net_eswitch0
quit
"""
# As long as valgrind may take; AddressSanitizer takes a tenth.
SECONDS_MAX = 120
VALGRIND = [
    "valgrind",
    "--quiet",
    "--fair-sched=yes",
    "--num-callers=30",
    "--leak-check=full",
    "--show-leak-kinds=definite",
]


def main() -> int:
    checker, *names = sys.argv[1:]
    if names in ([], ["--quick"]):
        paths = [path for path in sorted(SCRIPTS.glob("*.testpmd")) if not names or QUICK.fullmatch(path.stem)]
    else:
        paths = [SCRIPTS / f"{name}.testpmd" for name in names]
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory) / "corpus.pcap"
        write_pcap(corpus, frames().values())
        failures = [path for path in paths if not check(checker, path, corpus)]
    return 1 if failures else 0


def check(checker: str, path: Path, corpus: Path) -> bool:
    """Runs one script; prints what there is to say."""
    script, log = Script(path), corpus.with_name(f"{path.stem}.log")
    commands = corpus.with_name(path.name)
    commands.write_text(path.read_text() + ENDING)
    prefix, environment = under(checker, log)
    started = time.monotonic()
    done = subprocess.run(
        prefix + testpmd(script, corpus, commands),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        timeout=SECONDS_MAX,
        check=False,
    )
    said = "\n".join(file.read_text() for file in sorted(corpus.parent.glob(f"{log.name}*")))
    # testpmd itself must have come to its end, with packets on the way.
    good = done.returncode == 0 and re.search(r"wire_rx_packets: [1-9]\d*", done.stdout)
    good = good and "internal error" not in done.stdout + done.stderr
    good = good and (checker != "asan" or "AddressSanitizer Init done" in said)
    ours = [finding for finding in findings(said) if concerns_us(finding)]
    verdict = "clean" if good and not ours else "NOT CLEAN"
    print(f"{path.stem}: {verdict}, {time.monotonic() - started:.1f} s", flush=True)
    if not good:
        print(f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    print("\n\n".join(ours), end="\n" if ours else "")
    return bool(good and not ours)


def findings(said: str) -> list[str]:
    """What a checker found: paragraphs with a stack."""
    paragraphs = re.split(r"\n\s*\n", re.sub(r"^==\d+==[ ]?", "", said, flags=re.MULTILINE))
    return [paragraph for paragraph in paragraphs if re.search(r"^\s+(at|#0) 0x", paragraph, re.MULTILINE)]


def concerns_us(finding: str) -> bool:
    """Everything but what others allocated and lost: testpmd forgets some of its own."""
    leak = "leak of" in finding or "lost in loss record" in finding
    return not leak or "eswitch" in finding or "unknown module" in finding


def under(checker: str, log: Path) -> tuple[list[str], dict[str, str]]:
    """What comes before the command, and its environment."""
    if checker == "valgrind":
        return [*VALGRIND, f"--log-file={log}"], dict(os.environ)
    # The driver comes into a program that was not built with the sanitizer, so its runtime has to be there first.
    runtime = run(["cc", "-print-file-name=libasan.so"]).strip()
    options = f"detect_leaks=1:exitcode=0:verify_asan_link_order=0:verbosity=1:log_path={log}"
    return [], {**os.environ, "LD_PRELOAD": runtime, "ASAN_OPTIONS": options}


def testpmd(script: Script, corpus: Path, commands: Path) -> list[str]:
    """testpmd with a file for each wire to read again and again."""
    names = [f"{'uplink' if name == 'uplink' else 'host'}=net_pcap{n}" for n, name in enumerate(script.wires)]
    device = ",".join(["net_eswitch0", *names, "mbufs=4096", *filter(None, [script.devargs])])
    argv = ["dpdk-testpmd", "-l", "0,1", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--no-shconf"]
    argv += ["-d", str(built_driver()), "--vdev", device]
    for number in range(len(script.wires)):
        out = corpus.with_name(f"out{number}.pcap")
        argv += ["--vdev", f"net_pcap{number},rx_pcap={corpus},tx_pcap={out},infinite_rx=1"]
    argv += ["--", "-i", "--total-num-mbufs=2048", f"--cmdline-file={commands}", *script.options]
    return argv


if __name__ == "__main__":
    sys.exit(main())
