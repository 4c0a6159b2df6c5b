"""The quickstart: Millrace between real clients and real servers, seen from all sides, in a minute.

It runs on the software eSwitch, into which established connections move: the report says how many packets
never touched a worker.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from . import clients, forward
from .eswitch import NAME, Eswitch
from .lab import ROOT, Lab, exit_on_signals
from .millrace import STOP_SECONDS, service
from .net import LabError, Netns, Process, wait_until
from .servers import Prometheus, make_file
from .telemetry import runtime_directory
from .topology import DSR_HOSTS, VIP4, VIP6, Shape, backend4

KEPT = ROOT / ".lab"
MODES = ("nat", "dsr")
FAMILIES = (4, 6)
FILE_SIZE = 64 << 20
LOAD_SECONDS = 3
DRAIN_SECONDS = 6


def host_part(mode: str) -> int:
    """The VIP's last part: the backends hold the VIPs of DSR services only."""
    return 1 if mode == "nat" else DSR_HOSTS[0]


def vip(mode: str, family: int) -> str:
    return (VIP4 if family == 4 else VIP6).format(host_part(mode))


def services() -> list[dict]:
    """HTTP and DNS in both modes on both families."""
    made = []
    for mode in MODES:
        for family in FAMILIES:
            host, suffix = host_part(mode), f"{mode}-v{family}"
            made.append(service(f"web-{suffix}", host, 80, family=family, mode=mode))
            # Every datagram on its own, as DNS wants it.
            dns = {"protocol": "udp", "mode": mode, "affinity": "none"}
            made.append(service(f"dns-{suffix}", host, 53, family=family, **dns))
    return made


class Tour:
    """What is shown, step by step; every step says what it found, or raises `LabError`."""

    def __init__(self, lab: Lab):
        self.lab = lab
        self.millrace = lab.start_millrace(services())
        self.prometheus = lab.start_prometheus()
        self.digest = make_file(lab.files / "file", FILE_SIZE)

    def counted(self) -> tuple[int, int]:
        """Packets that came from the wires, and how many of them workers saw."""
        if not self.lab.eswitch:
            return 0, 0
        received = self.millrace.metrics().received()
        return self.millrace.eswitch.from_wires(), received

    def share(self, before: tuple[int, int]) -> float:
        """Of the packets since, the share that never touched a worker."""
        came, received = (now - then for now, then in zip(self.counted(), before, strict=True))
        return max(0, came - received) / max(came, 1)

    def report(self, what: str, result: str) -> None:
        print(f"    {what:<22} {result}", flush=True)

    def run(self) -> None:
        for mode in MODES:
            for family in FAMILIES:
                self._forward(mode, family)
        self._drain()
        self._observe()

    def _forward(self, mode: str, family: int) -> None:
        address, where = vip(mode, family), f"{mode} IPv{family}"
        client, before = self.lab.client, self.counted()
        answers = clients.count_answers(client, address, 300)
        demand(answers.total() == 300 and len(answers) == 3, f"curl {address}: answers from {dict(answers)}")
        self.report(f"{where} curl", f"300 connections answered: {spread(answers)}")
        names = {clients.dig(client, address) for _ in range(12)}
        demand(names <= {"b1", "b2", "b3"}, f"dig @{address}: {names}")
        self.report(f"{where} dig", f"12 questions answered by {', '.join(sorted(names))}")
        self._download(where, address)
        log = self.lab.directory
        load = clients.wrk(client, address, log / f"wrk-{mode}{family}.log", seconds=LOAD_SECONDS, close=True).finish()
        self._loaded(f"{where} wrk", "short connections", load)
        load = clients.dnsperf(client, address, log / f"dns-{mode}{family}.log", seconds=LOAD_SECONDS).finish()
        self._loaded(f"{where} dnsperf", "questions", load)
        if self.lab.eswitch:
            came = self.counted()[0] - before[0]
            text = f"{self.share(before):.1%} of {came:,} packets never touched a worker"
            self.report(f"{where} in all", f"{text} (what is short, stays with them)")

    def _download(self, where: str, address: str) -> None:
        started, before = time.monotonic(), self.counted()
        digest = clients.http_sha256(self.lab.client, address, "/files/file")
        demand(digest == self.digest, f"{where}: the file arrived with sha256 {digest}, not {self.digest}")
        rate = FILE_SIZE * 8 / (time.monotonic() - started)
        text = f"{FILE_SIZE >> 20} MiB, sha256 as sent, {rate / 1e9:.2f} Gbit/s"
        if self.lab.eswitch:
            share = self.share(before)
            demand(share > 0.9, f"{where}: hardware took {share:.1%} of a download's packets")
            text += f", {share:.1%} of its packets in hardware"
        self.report(f"{where} download", text)

    def _loaded(self, what: str, unit: str, load: clients.Load) -> None:
        demand(load.failed == 0 and load.completed > 0, f"{what}: {load}")
        self.report(what, f"{load.completed:,} {unit}, none failed, {load.per_second:,.0f}/s, {load.latency}")

    def _drain(self) -> None:
        """Drains a backend while connections are being made and used."""
        name, backend = "web-nat-v4", backend4(2)
        opened = dict(service=name, backend=backend)
        load = clients.wrk(
            self.lab.client, vip("nat", 4), self.lab.directory / "wrk-drain.log", seconds=DRAIN_SECONDS, close=True
        )
        time.sleep(DRAIN_SECONDS / 3)
        before = self.millrace.metrics().sum("lb_connections_total", **opened)
        demand(before > 0, f"{backend} had no connections before it was drained")
        self.millrace.do("drain", name, backend)
        # Workers take the new tables at their next burst.
        time.sleep(0.5)
        drained = self.millrace.metrics().sum("lb_connections_total", **opened)
        result = load.finish()
        after = self.millrace.metrics().sum("lb_connections_total", **opened) - drained
        demand(result.failed == 0, f"drain under load: {result}")
        demand(after == 0, f"drain: {backend} got {after} new connections after it was drained")
        answers = clients.count_answers(self.lab.client, vip("nat", 4), 300)
        demand("b2" not in answers, f"drain: answers from {dict(answers)}")
        self.millrace.do("undrain", name, backend)
        text = f"{result.completed:,} short connections meanwhile, none failed; then {spread(answers)}"
        self.report("drain b2 under load", text)

    def _observe(self) -> None:
        """Asks Prometheus what it saw, and Millrace whether the books balance."""
        ask = self.prometheus.value
        demand(ask("up") == 1, "Prometheus cannot scrape Millrace")
        wait_until("Prometheus to see the traffic", lambda: ask("sum(lb_packets_total)") > 0)
        rate = ask("sum(rate(lb_packets_total[30s]))")
        demand(rate > 0, "Prometheus: rate(lb_packets_total[30s]) is 0")
        self.report("Prometheus", f"{ask('sum(lb_packets_total)'):,.0f} packets forwarded, {rate:,.0f}/s over 30 s")
        drops = {labels["reason"]: value for labels, value in self.prometheus.query("drops_total > 0")}
        text = ", ".join(f"{reason} {value:,.0f}" for reason, value in sorted(drops.items())) or "none"
        self.report("Prometheus drops", text)
        metrics = self.millrace.at_rest()
        demand(not any(metrics.imbalance().values()), f"packets lost sight of, by worker: {metrics.imbalance()}")
        received = metrics.received()
        self.report("balance", f"{received:,} received = sent + dropped by reason + held, exactly")
        if self.lab.eswitch:
            came, offloaded = self.millrace.eswitch.from_wires(), metrics.in_hardware()
            self.report("balance", f"{came:,} from the wires, {offloaded:,} of them forwarded in hardware")

    def stop(self) -> None:
        seconds = self.millrace.stop()
        demand(seconds <= STOP_SECONDS, f"SIGTERM: took {seconds:.1f} s to stop")
        self.report("SIGTERM", f"stopped cleanly in {seconds:.2f} s")


def demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LabError(otherwise)


def spread(answers: dict[str, int]) -> str:
    return ", ".join(f"{name} {answers[name]}" for name in sorted(answers))


def keep(lab: Lab) -> None:
    """Notes what is left running, and says how to look around."""
    KEPT.mkdir(exist_ok=True)
    local_port = forward.free_port()
    argv = [sys.executable, "-m", "lab.forward", lab.network.millrace.name, str(Prometheus.PORT), str(local_port)]
    forwarder = Process("forwarder", argv, lab.directory / "forward.log", outlive=True)
    note = {
        "namespaces": [netns.name for netns in lab.network.namespaces],
        "directory": str(lab.directory),
        "runtime": str(runtime_directory(lab.directory.name)),
        "forwarder": forwarder.pid,
    }
    (KEPT / f"{lab.name}.json").write_text(json.dumps(note))
    inside = f"ip netns exec {lab.name}"
    cli = f"{lab.millrace.binary} --socket {lab.millrace.socket}"
    print(f"""
Left running. Look around (as root):

    {inside}-client curl http://{vip('nat', 4)}/         a request; dsr: http://{vip('dsr', 4)}/
    {cli} show services
    {cli} show backends
    {cli} drain web-nat-v4 {backend4(2)}
    {inside}-millrace curl -s http://127.0.0.1:9090/metrics
    http://127.0.0.1:{local_port}/graph?g0.expr=rate(lb_packets_total[10s])   Prometheus, from this machine
    {inside}-b1 tcpdump -ni any
    $EDITOR {lab.millrace.file}    then: {cli} reload
    tail -f {lab.millrace.process.log}""")
    if lab.eswitch:
        telemetry = f"| dpdk-telemetry.py -f {lab.directory.name}"
        print(f"""
    {inside}-client curl -o /dev/null 'http://{vip('nat', 4)}/files/file?rate=1000000' &     a long connection
    {cli} show offload
    {cli} show rules
    echo /eswitch/rules,{NAME} {telemetry}     what the eSwitch holds
    echo /eswitch/faults,{NAME},reset {telemetry}     a bad day for it: docs/eswitch.md has more""")
    print("\nRemove it: scripts/quickstart.sh --down")


def take_down() -> None:
    """Removes what earlier runs with --keep left running."""
    for note in sorted(KEPT.glob("*.json")):
        kept = json.loads(note.read_text())
        end_forwarder(kept["forwarder"])
        for name in kept["namespaces"]:
            Netns(name).remove()
        shutil.rmtree(kept["directory"], ignore_errors=True)
        shutil.rmtree(kept["runtime"], ignore_errors=True)
        note.unlink()
        print(f"removed {note.stem}")


def end_forwarder(pid: int) -> None:
    # The number may be another program's by now.
    with contextlib.suppress(OSError):
        if b"lab.forward" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/quickstart.sh",
        description="Build Millrace and let real clients talk to real servers through it: curl, dig, wrk and "
        "dnsperf against nginx and dnsmasq on three backends, nat and dsr, IPv4 and IPv6, watched by "
        "Prometheus. Needs root, Debian, and no hardware: Millrace runs on a software eSwitch that forwards what "
        "a BlueField would. Everything runs in network namespaces and is removed at the end.",
    )
    parser.add_argument("--no-eswitch", action="store_true", help="plain ports, on which nothing is offloaded")
    parser.add_argument("--keep", action="store_true", help="leave it all running and say how to look around")
    parser.add_argument("--down", action="store_true", help="remove what --keep left running")
    return parser.parse_args()


def main() -> int:
    chosen = arguments()
    exit_on_signals()
    if chosen.down:
        take_down()
        return 0
    started = time.monotonic()
    workers = min(2, len(os.sched_getaffinity(0)))
    lab = None
    try:
        print("==> client, Millrace and three backends, in namespaces", flush=True)
        eswitch = None if chosen.no_eswitch else Eswitch()
        lab = Lab(Shape(backends=3, dsr=True), workers=workers, eswitch=eswitch, keep=chosen.keep)
        tour = Tour(lab)
        ports = "on plain ports" if chosen.no_eswitch else "on the software eSwitch"
        print(f"==> Millrace runs {ports} with {workers} workers; clients at work", flush=True)
        tour.run()
        if chosen.keep:
            keep(lab)
            return 0
        tour.stop()
    except LabError as error:
        tails = lab.log_tails() if lab else ""
        print(f"\nFAILED: {error}\n\n{tails}", file=sys.stderr)
        if lab:
            lab.close()
        return 1
    except BaseException:
        if lab:
            lab.close()
        raise
    lab.close()
    print(f"==> all of it worked, and is removed again ({time.monotonic() - started:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
