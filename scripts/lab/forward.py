"""Makes a TCP port of a namespace's loopback reachable on this machine's own loopback.

    python3 -m lab.forward NAMESPACE PORT LOCAL_PORT

For `quickstart.sh --keep`: so that a browser finds the Prometheus in the lab.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading

from .net import Netns


def main() -> None:
    netns, port, local_port = Netns(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with socket.create_server(("127.0.0.1", local_port)) as listener:
        while True:
            near, _ = listener.accept()
            threading.Thread(target=serve, args=(netns, port, near), daemon=True).start()


def serve(netns: Netns, port: int, near: socket.socket) -> None:
    far = netns.socket(socket.AF_INET, socket.SOCK_STREAM)
    with near, far, contextlib.suppress(OSError):
        far.connect(("127.0.0.1", port))
        back = threading.Thread(target=copy, args=(far, near), daemon=True)
        back.start()
        copy(near, far)
        back.join()


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Until the source has said all, or one of the two is gone: then both are told."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
