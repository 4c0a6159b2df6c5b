"""Made-up clients' addresses are what their names say, and the same each time."""

from __future__ import annotations

import ipaddress

import pytest
from partitions import mixes


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes them, and reads back what is in each file."""
    def written(name: str, *words: str) -> dict[str, str]:
        monkeypatch.setattr(mixes.sys, "argv", ["mixes.py", str(tmp_path / name), *words])
        assert mixes.main() == 0
        return {file.stem: file.read_text() for file in (tmp_path / name).iterdir()}

    return written


def test_mixes_are_what_they_are_called(write):
    lines = {name: [line.split() for line in text.splitlines()] for name, text in write("one").items()}
    assert {name: len(clients) for name, clients in lines.items()} == {
        "random": 100_000, "nats": 50_020, "net": 254, "even": 100_000, "eights": 100_000, "routers": 100_000}
    assert sum(int(packets) for _, packets in lines["nats"]) == 100_000
    for name, mask, bits in [("even", 1, 0), ("eights", 7, 0), ("routers", 255, 1)]:
        assert {int(ipaddress.IPv4Address(address)) & mask for address, _ in lines[name]} == {bits}


def test_a_seed_gives_the_same_again(write):
    first, again, other = write("first"), write("again", "--seed", "1"), write("other", "--seed", "2")
    assert first == again and first["net"] == other["net"] and first["random"] != other["random"]
    assert first["random"].startswith("158.24.25.74 1\n41.85.21.67 1\n")
