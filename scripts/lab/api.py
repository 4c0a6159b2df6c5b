"""The control API, asked as anybody could: its description's own tester, and raw bytes."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from .forward import copy
from .net import LabError

ROOT = Path(__file__).resolve().parents[2]


class UnixConnection(http.client.HTTPConnection):
    """HTTP on a Unix socket."""

    def __init__(self, path: Path, timeout: float = 20):
        super().__init__("millrace", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, page: str, body: object = None) -> tuple[int, object]:
    """A request on the control socket: the answer's status and JSON."""
    with contextlib.closing(UnixConnection(path)) as connection:
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, page, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def forwarded(connect: Callable[[], socket.socket]) -> Iterator[int]:
    """A port on this machine's loopback, each of whose connections is joined to one that `connect` makes."""

    def join(near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), connect() as far:
            back = threading.Thread(target=copy, args=(far, near), daemon=True)
            back.start()
            copy(near, far)
            back.join()

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=join, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def schemathesis(port: int, directory: Path, *options: str, examples: int = 20) -> str:
    """Tests the API behind this port against its description; gives the report, and is an error if it fails."""
    listed = hashlib.sha256((ROOT / "scripts/python-tools.txt").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    program = cache / f"millrace/python-tools-{listed}/bin/schemathesis"
    if not program.exists():
        raise LabError(f"{program} is not there: run scripts/setup.sh")
    # Nothing but a parser can say which text is a configuration: what is no such text is refused with 422.
    rule = 'checks.positive_data_acceptance.expected-statuses = ["2xx", "422"]'
    rule = f'[[operations]]\ninclude-path = "/v1/config"\n{rule}\n'
    (directory / "schemathesis.toml").write_text(f'hooks = "toml_is_text.py"\n{rule}')
    alias = 'import schemathesis\nschemathesis.serializer.alias("application/toml", "text/plain")\n'
    (directory / "toml_is_text.py").write_text(alias)
    argv = [str(program), "run", f"http://127.0.0.1:{port}/v1/openapi.json", "--checks", "all", "--seed", "1"]
    argv += ["--max-examples", str(examples), "--request-timeout", "20", "--suppress-health-check", "all"]
    argv += ["--no-color", "--generation-database", "none", *options]
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise LabError(f"schemathesis: exit {done.returncode}\n{done.stdout[-20000:]}{done.stderr[-2000:]}")
    return done.stdout
