"""What Millrace adds to a packet's way: the one command, its books, and that it tells what is not to be believed."""

import json
import subprocess
import sys

from lab.lab import ROOT

sys.path[:0] = [str(ROOT / "scripts/latency"), str(ROOT / "scripts/trex")]

from added.cli import faults  # noqa: E402
from added.probe import Made  # noqa: E402
from added.report import curve, doubts  # noqa: E402
from added.ways import WAYS, Counted  # noqa: E402

ASKED = ["xdp", "software-nat", "eswitch-dsr"]


def test_a_quick_run(tmp_path):
    done = subprocess.run(
        [ROOT / "scripts/latency/run.py", "--quick", "--json", "--ways", ",".join(ASKED), "--rates", "500",
         "--output", tmp_path], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    found = json.loads(done.stdout)
    # A kernel may have no XDP.
    assert found["faults"] == [] and set(found["left_out"]) <= {"xdp"}
    rows = found["summary"]["500"]
    assert list(rows) == ["veth", *(way for way in ASKED if way not in found["left_out"])]
    for way, row in rows.items():
        assert row["sent"] == 100 == row["received"] + row["lost"], way
        quantiles = [row["latency_us"][name]["median"] for name in ("p50", "p90", "p99", "p99.9")]
        assert quantiles == sorted(quantiles) and quantiles[0] > 0
        assert found["curves_us"]["500"][way][-1][1] == 1
    assert rows["veth"]["added_us"]["p50"]["median"] == 0 and "forwarded" not in rows["veth"]
    assert rows["software-nat"]["forwarded"] == 100 == rows["eswitch-dsr"]["forwarded"]
    assert rows["software-nat"]["by_device"] == 0 and rows["eswitch-dsr"]["by_device"] >= 99
    text = (tmp_path / "report.md").read_text()
    assert "MODEL" in text and found["machine"]["commit"] in text
    for file in ("cdf-500.svg", "tail-500.svg", "report.html", "latency.json"):
        assert (tmp_path / file).stat().st_size > 3000


def made(**numbers: int) -> Made:
    usual = {"sent": 100, "refused": 0, "received": 100, "duplicates": 0, "wrong_mac": 0, "answered": 0, "late": 0}
    return Made(**usual | numbers, seconds=0.1, latency_ns=[4000] * 100)


def test_what_is_not_to_be_believed():
    veth, eswitch = WAYS["veth"], WAYS["eswitch-nat"]
    way, device = veth.__new__(veth), eswitch.__new__(eswitch)
    assert faults(way, made(), None) == []
    assert "nobody counted" in faults(way, made(received=99), None)[0]
    assert "another MAC" in faults(way, made(wrong_mac=1), None)[0]
    assert "refused" in faults(way, made(refused=1), None)[0]
    assert faults(device, made(), Counted(forwarded=100, by_device=99)) == []
    assert "only 98 of 100" in faults(device, made(), Counted(forwarded=100, by_device=98))[0]
    # A loss that is counted is one of the books.
    assert faults(device, made(received=99), Counted(forwarded=99, by_device=99, dropped=1)) == []
    assert "forwarded 101" in faults(device, made(), Counted(forwarded=101, by_device=101))[0]


def test_a_worker_that_was_kept_waiting_is_told_of():
    rows = {"veth": {"seconds": 5.0}, "software-nat": {"seconds": 5.0, "waited_seconds": 0.05}}
    assert doubts({"1000": rows}) == []
    rows["eswitch-nat"] = {"seconds": 5.0, "waited_seconds": 2.5}
    told = doubts({"1000": rows, "500": {}})
    assert len(told) == 1 and "eswitch-nat (50%)" in told[0] and "software-nat" not in told[0]


def test_a_curve():
    points = curve(list(range(1000, 11_000_000, 1000)))
    assert points[0] == [1, 1 / 10_999] and points[-1] == [10_999, 1]
    shares = [share for _, share in points]
    assert shares == sorted(set(shares)) and max(after - before for before, after in zip(shares, shares[1:])) < 0.006
    # The tail is in it to its end.
    assert sum(share > 0.999 for share in shares) >= 10
    assert curve([]) == []
