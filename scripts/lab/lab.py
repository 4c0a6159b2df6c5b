"""The lab as one context manager."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .eswitch import Eswitch
from .millrace import METRICS_PORT, Millrace, configuration, device, on_eswitch
from .net import LabError, Process
from .servers import Dnsmasq, Nginx, Prometheus
from .telemetry import runtime_directory
from .topology import Network, Shape

ROOT = Path(__file__).resolve().parents[2]


def built_binary() -> Path:
    """The release build of Millrace, or what MILLRACE_BINARY names."""
    path = Path(os.environ.get("MILLRACE_BINARY") or ROOT / "target/release/millrace")
    if not path.exists():
        raise LabError(f"{path} is not there: cargo build --release")
    return path


def require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces: run this as root")


def exit_on_signals() -> None:
    """Lets SIGTERM and SIGHUP unwind the stack, as Ctrl-C does, so that labs are removed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))


def run_to_its_end(argv: Sequence[str | Path], **how: object) -> int:
    """A command's status. If this process is to end, the command ends first: it may have things to put back."""
    with subprocess.Popen(argv, **how) as child:
        try:
            return child.wait()
        except KeyboardInterrupt:
            # The terminal has told it, too.
            child.wait()
            raise
        except SystemExit:
            child.terminate()
            child.wait()
            raise


class Lab:
    """A network with servers, and Millrace once it is started, on plain ports or on a software eSwitch.

    With `keep`, everything outlives this process; `names` of the namespaces and `directory` are what
    has to be removed some day.
    """

    def __init__(
        self,
        shape: Shape = Shape(),
        *,
        workers: int = 1,
        driver: str = "af_packet",
        eswitch: Eswitch | None = None,
        servers: bool = True,
        keep: bool = False,
    ):
        require_root()
        self.workers, self.driver, self.eswitch, self.keep = workers, driver, eswitch, keep
        self.name = f"mr{secrets.token_hex(3)}"
        self.millrace: Millrace | None = None
        self.prometheus: Prometheus | None = None
        self.processes: list[Process] = []
        self.web: list[Nginx] = []
        self.dns: list[Dnsmasq] = []
        self._undo = contextlib.ExitStack()
        try:
            # Short, because paths of Unix sockets are bounded.
            self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir="/tmp"))
            self._undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._undo.callback(shutil.rmtree, runtime_directory(self.directory.name), ignore_errors=True)
            self.files = self.directory / "files"
            self.files.mkdir()
            self.network = Network(self.name, shape)
            self._undo.callback(self.network.remove)
            if servers:
                self._start_servers()
        except BaseException:
            self.close()
            raise

    @property
    def client(self):
        """The client's namespace."""
        return self.network.client

    def _start_servers(self) -> None:
        for n, netns in enumerate(self.network.backends, start=1):
            name = f"b{n}"
            directory = self.directory / name
            directory.mkdir()
            self.web.append(Nginx(netns, name, directory, self.files, outlive=self.keep))
            self.dns.append(Dnsmasq(netns, name, directory, outlive=self.keep))
            self.processes += [self.web[-1].process, self.dns[-1].process]

    def start_millrace(self, services: list[dict], ports: dict | None = None, **sections: dict | list) -> Millrace:
        """Starts Millrace. `ports` is added to the `[[port]]`s, `sections` to those of their names: keys to
        `[name]`, tables to `[[name]]`."""
        numbers = (0,) if self.network.shape.one_arm else (0, 1)
        devices = [device(self.driver, number, self.workers) for number in numbers]
        config = configuration(self.directory, devices, workers=self.workers)
        if self.eswitch:
            on_eswitch(config, self.eswitch)
        config["service"] = services
        for port in config["port"]:
            port.update((ports or {}).get(port["name"], {}))
        for name, more in sections.items():
            if isinstance(more, list):
                config.setdefault(name, []).extend(more)
            else:
                config.setdefault(name, {}).update(more)
        self.millrace = Millrace(
            self.network.millrace, built_binary(), self.directory, config, outlive=self.keep
        )
        self.processes.append(self.millrace.process)
        return self.millrace

    def start_prometheus(self) -> Prometheus:
        """Starts Prometheus, scraping Millrace."""
        targets = [f"127.0.0.1:{METRICS_PORT}"]
        self.prometheus = Prometheus(self.network.millrace, self.directory / "prometheus", targets, outlive=self.keep)
        self.processes.append(self.prometheus.process)
        return self.prometheus

    def log_tails(self) -> str:
        """The ends of Millrace's log and of those of programs that have died."""
        told = [one for one in self.processes if one.name == "millrace" or not one.alive()]
        return "\n".join(f"--- {one.name}, {one.log.name}\n{one.tail()}" for one in told)

    def close(self) -> None:
        """Stops and removes everything."""
        for process in reversed(self.processes):
            process.stop(timeout=3)
        self._undo.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.keep:
            self.close()
