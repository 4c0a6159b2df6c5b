"""The control API: it is as described, only for those who may, and nobody can do it any harm."""

import contextlib
import os
import re
import socket
import subprocess

from lab import clients, servers
from lab.api import ask, forwarded, schemathesis
from lab.millrace import service, to_toml
from lab.topology import VIP4, Shape, backend4

VIP = VIP4.format(1)
NOBODY = 65534


def unix(path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(30)
    connection.connect(str(path))
    return connection


def operations(report: str) -> int:
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
    assert operations(report) >= 22
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
    assert operations(report) >= 10


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


def exchange(path, *parts: bytes) -> bytes:
    """Sends until it is refused, then reads what was answered."""
    with unix(path) as connection:
        with contextlib.suppress(OSError):
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                answer += data
        return answer


def post(page: str, length: int) -> bytes:
    head = f"POST {page} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return head.encode()


def memory(millrace) -> int:
    """Resident memory, bytes."""
    status = open(f"/proc/{millrace.process.popen.pid}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10


def test_large_slow_and_malformed_requests_harm_nothing(labs):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1)])
    before = memory(millrace)
    generation = ask(millrace.socket, "GET", "/v1/version")[1]["generation"]
    load = clients.wrk(lab.client, VIP, lab.directory / "wrk.log", seconds=8, connections=16)

    large = 100 << 20
    megabyte = b" " * (1 << 20)
    assert b" 413 " in exchange(millrace.socket, post("/v1/drain", large), *[megabyte] * 100)
    # A page without a body wants none of this size either.
    assert b" 413 " in exchange(millrace.socket, post("/v1/reload?dry_run=true", large), *[megabyte] * 100)
    chunked = post("/v1/drain", 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    assert b" 413 " in exchange(millrace.socket, chunked, *[b"100000\r\n" + megabyte + b"\r\n"] * 100)
    for nonsense in (b"\0" * 100_000, b"GET / HTTP/9.9\r\n\r\n", b"A" * 1_000_000, os.urandom(1 << 20), b"\r\n" * 1000):
        answer = exchange(millrace.socket, nonsense)
        assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:200]
    nested = b"[" * 60_000
    assert b" 422 " in exchange(millrace.socket, post("/v1/drain", len(nested)), nested)
    # As many as there is room for say nothing, or half of it; whoever comes then waits for one of them to be ended.
    slow = [unix(millrace.socket) for _ in range(32)]
    for number, connection in enumerate(slow):
        connection.sendall(post("/v1/drain", 100) if number % 2 else b"GET /v1/ser")
    assert ask(millrace.socket, "GET", "/v1/services")[0] == 200
    for connection in slow:
        connection.close()

    result = load.finish()
    assert result.failed == 0 and result.completed > 0
    assert memory(millrace) - before < 64 << 20
    assert ask(millrace.socket, "GET", "/v1/version")[1]["generation"] == generation


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


def test_a_configuration_can_be_sent(labs):
    lab = labs()
    millrace = lab.start_millrace([service("web", 1)])
    on_disk = millrace.file.read_text()
    web = millrace.service("web")
    web["backend"] = web["backend"][:1]
    other = lab.directory / "other.toml"
    other.write_text(to_toml(millrace.config))
    told = millrace.do("apply", "--dry-run", str(other))
    assert f'- service "web" backend "{backend4(2)}"' in told and "would apply the upload" in told, told
    assert len(millrace.show("backends")) == 3
    assert "service backend: 2 removed" in millrace.do("apply", str(other))
    assert set(clients.count_answers(lab.client, VIP, 30)) == {"b1"}
    assert millrace.file.read_text() == on_disk

    lines = other.read_text().splitlines()
    at = lines.index('name = "web"') + 1
    other.write_text("\n".join([*lines[:at], 'mode = "fly"', *lines[at:]]))
    refused = millrace.cli("apply", str(other))
    assert refused.returncode == 2 and f"upload:{at + 1}" in refused.stderr, refused
    assert millrace.cli("apply", str(lab.directory)).returncode == 2
    # Of the wrong kind, no text, and more than there can be.
    assert ask(millrace.socket, "POST", "/v1/config", {})[0] == 415
    toml = post("/v1/config", 3).replace(b"application/json", b"application/toml")
    assert b" 400 " in exchange(millrace.socket, toml, b"\xff\xfe\xfd")
    large = toml.replace(b": 3\r", b": 16777217\r")
    assert b" 413 " in exchange(millrace.socket, large, *[b"#" * (1 << 20)] * 17)

    # The file has not changed, and is what a reload reads.
    assert "service backend: 2 added" in millrace.do("reload")
    assert set(clients.count_answers(lab.client, VIP, 60)) == {"b1", "b2", "b3"}
    rows = ask(millrace.socket, "GET", "/v1/history")[1]
    told = [(row["cause"], row["generation"] is None) for row in rows]
    assert told == [("start", False), ("upload", False), ("upload", True), ("reload", False)]


def many(services: int, backends: int, first: int) -> list[dict]:
    """Services on VIPs of their own, whose backends are nowhere."""

    def one(number: int) -> dict:
        low, high = number % 250, number // 250
        members = [{"address": f"198.51.100.{100 + first + n}:{10_000 + number}"} for n in range(backends)]
        return {
            "name": f"s{number}", "vip": f"100.64.{high}.{low}", "protocol": "tcp", "ports": [80], "backend": members,
        }

    return [one(number) for number in range(services)]


def test_a_large_reload_under_load_disturbs_nobody(labs):
    """1,000 services and 10,000 backends come, then all backends give way to others. Takes an optimized build."""
    lab = labs()
    servers.make_file(lab.files / "slow", 2_000_000)
    web = service("web", 1)
    millrace = lab.start_millrace([web])
    url = f"http://{VIP}/files/slow?rate=200000&n=[1-20]"
    argv = ["curl", "-sS", "--parallel", "--parallel-max", "20", "--parallel-immediate", "--max-time", "60"]
    downloads = clients.Background(lab.client, [*argv, "-o", "/dev/null", "-w", "%{http_code} %{size_download}\n", url])
    load = clients.wrk(lab.client, VIP, lab.directory / "wrk.log", seconds=9, connections=16, close=True)
    for first in (0, 50):
        millrace.config["service"] = [web, *many(1000, 10, first)]
        millrace.write()
        status, reloaded = ask(millrace.socket, "POST", "/v1/reload")
        assert status == 200, reloaded
    assert len(ask(millrace.socket, "GET", "/v1/services")[1]) == 1001
    result = load.finish()
    assert result.failed == 0 and result.completed > 0
    assert downloads.output().splitlines() == ["200 2000000"] * 20
    assert [row["dropped"] for row in millrace.show("services") if row["name"] == "web"] == [0]
