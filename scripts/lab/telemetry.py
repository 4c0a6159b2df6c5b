"""DPDK's telemetry socket: what `dpdk-telemetry.py` types at, for programs."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

from .net import LabError


def runtime_directory(file_prefix: str) -> Path:
    """Where an EAL with this prefix keeps its socket (`eal_create_runtime_dir`)."""
    base = "/var/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "/tmp")
    return Path(base) / "dpdk" / file_prefix


class Telemetry:
    """The socket of the DPDK process with this file prefix; connected anew for each question."""

    def __init__(self, file_prefix: str):
        self.directory = runtime_directory(file_prefix)

    def ask(self, command: str, timeout: float = 10) -> object:
        """The answer to a command with its parameters, e.g. `/eswitch/stats,net_eswitch0`."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect(str(self.directory / "dpdk_telemetry.v2"))
                longest = json.loads(connection.recv(1024))["max_output_len"]
                connection.send(command.encode())
                answer = json.loads(connection.recv(longest))
            except OSError as error:
                raise LabError(f"telemetry, {command}: {error}") from error
        return answer[command.partition(",")[0]]

    def remove(self) -> None:
        """Removes what the process leaves behind."""
        shutil.rmtree(self.directory, ignore_errors=True)

