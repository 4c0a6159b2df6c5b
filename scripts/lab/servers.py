"""Real servers: nginx and dnsmasq on every backend, Prometheus beside Millrace."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from pathlib import Path
from urllib.parse import urlencode

from .net import LabError, Netns, Process, run, wait_until

_NGINX = """\
daemon off;
master_process off;
user root;
worker_rlimit_nofile 65536;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    client_max_body_size 0;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    keepalive_requests 1000000;
    server {{
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        listen 9000-9010;
        listen [::]:9000-9010;
        location / {{ return 200 "{name}\\n"; }}
        location /client {{ return 200 "$remote_addr\\n"; }}
        # ?rate=N limits to N bytes a second.
        location /files/ {{ alias {files}/; limit_rate $arg_rate; }}
        location /upload/ {{ alias {dir}/upload/; dav_methods PUT; }}
    }}
}}
"""


class Nginx:
    """An HTTP server that answers with the backend's name, serves files and takes uploads."""

    def __init__(self, netns: Netns, name: str, directory: Path, files: Path, *, outlive: bool):
        self.directory = directory
        for sub in ("upload", "body"):
            (directory / sub).mkdir(parents=True)
        config = directory / "nginx.conf"
        config.write_text(_NGINX.format(dir=directory, name=name, files=files))
        argv = ["nginx", "-p", str(directory), "-e", str(directory / "nginx-error.log"), "-c", str(config)]
        self.process = Process(f"nginx on {name}", netns.enter(argv), directory / "nginx.log", outlive=outlive)
        wait_for_port(self.process, netns, 80)

    def uploaded(self, name: str) -> Path | None:
        """The file that was uploaded as /upload/`name`, if it was here."""
        path = self.directory / "upload" / name
        return path if path.exists() else None


_DNSMASQ = """\
pid-file={dir}/dnsmasq.pid
user=root
no-resolv
no-hosts
log-facility=-
local=/lab/
edns-packet-max=4096
txt-record=whoami.lab,{name}
{big}
host-record=www.lab,203.0.113.1,2001:db8:5e::1
"""


class Dnsmasq:
    """A DNS server whose `whoami.lab` TXT record is the backend's name.

    `big.lab` has 3,000 bytes of TXT records: a UDP answer in several fragments.
    """

    def __init__(self, netns: Netns, name: str, directory: Path, *, outlive: bool):
        config = directory / "dnsmasq.conf"
        # Its lines may not be longer than 1,024 characters, hence several records.
        big = "\n".join(f"txt-record=big.lab,{','.join([str(n) * 250] * 3)}" for n in range(4))
        config.write_text(_DNSMASQ.format(dir=directory, name=name, big=big))
        argv = ["dnsmasq", "--keep-in-foreground", f"--conf-file={config}"]
        self.process = Process(f"dnsmasq on {name}", netns.enter(argv), directory / "dnsmasq.log", outlive=outlive)
        wait_for_port(self.process, netns, 53)


class Prometheus:
    """Debian's Prometheus, scraping Millrace every second from within its namespace."""

    PORT = 9091

    def __init__(self, netns: Netns, directory: Path, targets: list[str], *, outlive: bool):
        self.netns = netns
        directory.mkdir(parents=True)
        config = directory / "prometheus.yml"
        scrape = {"job_name": "millrace", "static_configs": [{"targets": targets}]}
        # JSON is YAML.
        config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}))
        argv = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory}/data"]
        argv += [f"--web.listen-address=127.0.0.1:{self.PORT}", "--log.level=warn"]
        self.process = Process("prometheus", netns.enter(argv), directory / "prometheus.log", outlive=outlive)
        wait_for_port(self.process, netns, self.PORT, timeout=30)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Asks Prometheus; gives each series' labels and value."""
        url = f"http://127.0.0.1:{self.PORT}/api/v1/query?{urlencode({'query': expression})}"
        answer = json.loads(self.netns.run(["curl", "-sS", "--max-time", "10", url]))
        if answer.get("status") != "success":
            raise LabError(f"prometheus: {expression}: {answer}")
        return [(series["metric"], float(series["value"][1])) for series in answer["data"]["result"]]

    def value(self, expression: str) -> float:
        """The sum over all series; 0 without any."""
        return sum(value for _, value in self.query(expression))


class Echo:
    """A UDP server that sends every datagram back, from a thread of this process."""

    def __init__(self, netns: Netns, port: int = 7):
        for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            listener = netns.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((anywhere, port))
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    @staticmethod
    def _serve(listener: socket.socket) -> None:
        while True:
            try:
                data, sender = listener.recvfrom(65536)
            except OSError:
                return
            listener.sendto(data, sender)


def wait_for_port(process: Process, netns: Netns, port: int, timeout: float = 15) -> None:
    """Until the program accepts TCP connections on `port`, as these all do when they are ready."""

    def accepts() -> bool:
        process.must_be_alive()
        with netns.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(f"{process.name} on port {port}", accepts, timeout)


def make_file(path: Path, size: int) -> str:
    """A file of pseudo-random content; gives its sha256."""
    block = hashlib.shake_256(path.name.encode()).digest(1 << 20)
    digest = hashlib.sha256()
    with path.open("wb") as out:
        # Every block differs from every other, so that a block lost or swapped is noticed.
        for number, start in enumerate(range(0, size, len(block))):
            piece = (number.to_bytes(8, "big") + block[8:])[: size - start]
            out.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    return run(["sha256sum", str(path)]).split()[0]
