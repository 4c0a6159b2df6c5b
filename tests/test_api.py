"""The control API: it is as described, only for those who may, and nobody can do it any harm."""

import os
import re
import socket
import subprocess

from lab import clients
from lab.api import ask, forwarded, schemathesis
from lab.millrace import service
from lab.topology import VIP4, Shape, backend4

VIP = VIP4.format(1)
NOBODY = 65534


def unix(path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(30)
    connection.connect(str(path))
    return connection


def tested(report: str) -> int:
    """How many operations were tested; none of them must have been left out."""
    found = re.search(r"Operations:\s+(\d+) selected / (\d+) total", report)
    assert found, report
    assert found[1] == found[2], report
    return int(found[1])


def test_the_socket_is_as_described(labs):
    lab = labs(Shape(backends=1))
    millrace = lab.start_millrace([service("web", 1, backends=[1])])
    with forwarded(lambda: unix(millrace.socket)) as port:
        report = schemathesis(port, lab.directory)
    assert tested(report) >= 14
    assert clients.count_answers(lab.client, VIP, 20).total() == 20


def test_readers_are_as_described_and_need_the_token(labs):
    lab = labs(Shape(backends=1))
    token = lab.directory / "token"
    token.write_text("0123456789abcdef0123456789abcdef\n")
    token.chmod(0o600)
    control = {"listen": "127.0.0.1:9096", "token_file": str(token)}
    lab.start_millrace([service("web", 1, backends=[1])], control=control)

    def connect() -> socket.socket:
        connection = lab.network.millrace.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.connect(("127.0.0.1", 9096))
        return connection

    with forwarded(connect) as port:
        header = f"Authorization: Bearer {token.read_text().strip()}"
        report = schemathesis(port, lab.directory, "--header", header)
        argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{port}/v1/services"]
        assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "401"
    assert tested(report) >= 10


def as_nobody(path, *, groups: str = "--clear-groups") -> tuple[int, str]:
    """What another user is told at the control socket: curl's exit code and the HTTP status."""
    argv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", groups]
    argv += ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", str(path)]
    done = subprocess.run([*argv, "http://millrace/v1/services"], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_other_users_are_refused(labs):
    lab = labs(Shape(backends=1), servers=False)
    millrace = lab.start_millrace([])
    lab.directory.chmod(0o711)
    # The mode keeps them from connecting, and were it not for that, who they are from being answered.
    assert as_nobody(millrace.socket) == (7, "000")
    millrace.socket.chmod(0o666)
    assert as_nobody(millrace.socket) == (0, "403")
    assert ask(millrace.socket, "GET", "/v1/services") == (200, [])


def test_a_group_is_let_in(labs):
    lab = labs(Shape(backends=1), servers=False)
    millrace = lab.start_millrace([], control={"group": "4242", "mode": "0660"})
    lab.directory.chmod(0o711)
    assert (os.stat(millrace.socket).st_gid, os.stat(millrace.socket).st_mode & 0o777) == (4242, 0o660)
    assert as_nobody(millrace.socket, groups="--groups=4242") == (0, "200")
    assert as_nobody(millrace.socket) == (7, "000")


def test_a_dry_run_tells_and_history_remembers(labs):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1)])
    web = millrace.service("web")
    web["backend"][0]["weight"] = 3
    del web["backend"][2]
    millrace.write()
    told = millrace.do("reload", "--dry-run")
    assert f'~ service "web" backend "{backend4(1)}": weight 1 -> 3' in told
    assert f'- service "web" backend "{backend4(3)}"' in told
    assert len(millrace.show("backends")) == 3
    assert set(clients.count_answers(lab.client, VIP, 60)) == {"b1", "b2", "b3"}

    assert "service backend: 1 removed, 1 changed" in millrace.do("reload")
    assert "nothing has changed" in millrace.do("reload", "--dry-run")
    millrace.do("drain", "web", backend4(1))
    web["backend"][0]["weight"] = -1
    millrace.write()
    assert millrace.cli("reload", "--dry-run").returncode == 2
    assert millrace.cli("reload").returncode == 2
    status, rows = ask(millrace.socket, "GET", "/v1/history")
    assert status == 200
    assert [row["cause"] for row in rows] == ["start", "reload", "drain", "reload"]
    assert [row["generation"] is None for row in rows] == [False, False, False, True]
    assert all(row["by"].startswith("user 0, process ") for row in rows[1:])
    assert "GENERATION" in millrace.do("history")
