"""The bench against others: that it measures, that it notices what must not count, and its statistics.

One short round with testpmd and Millrace, on plain memory; nothing is asserted about time.
"""

import json
import os
import re
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from bench import chart, machine, packets, peers, report
from bench.contenders import Millrace, Testpmd
from bench.kinds import KINDS
from lab.frames import count_pcap, write_pcap
from lab.net import LabError

MACHINE = {"cpu": "a CPU", "cores": 2}


def results(**ns):
    """Results of one case: of each contender its rounds."""
    return report.Results(
        report.Result("tcp", 64, name.replace("_", "-"), [report.Round(one) for one in rounds])
        for name, rounds in ns.items()
    )


def some(kind="tcp", flows=64, **keys):
    """A result with one round."""
    return report.Result(kind, flows, "millrace", [report.Round(50.0, **keys)])


def test_median_and_ratios():
    found = results(testpmd=[20, 18, 19], millrace=[38, 40, 30], ovs=[200, 190, 210], ovs_default=[150, 160, 152])
    data = report.to_json(found, MACHINE, {}, [])
    cases = {case["contender"]: case for case in data["cases"]}
    assert [cases[name]["ns_per_packet"] for name in ("testpmd", "millrace", "ovs")] == [19, 38, 200]
    assert (cases["millrace"]["least"], cases["millrace"]["most"]) == (30, 40)
    assert cases["millrace"]["times_floor"] == 2
    # Open vSwitch in whichever configuration is faster.
    assert cases["millrace"]["times_ovs"] == 38 / 152
    assert cases["testpmd"]["million_packets_per_second"] == pytest.approx(1e3 / 19)
    line = next(line for line in report.table(found, "a machine", "a note").splitlines() if line.startswith("tcp"))
    assert line.endswith("4.0x")


@pytest.mark.parametrize(
    "keys, fault",
    [
        ({}, None),
        ({"loss": 0.0005}, None),
        ({"loss": 0.02}, "lost 2.0 % of its packets"),
        ({"loss": 0.02, "doubt": 0.0195}, None),
        ({"loss": 0.02, "doubt": 0.01}, "lost 2.0 % of its packets"),
        ({"dropped": {"no_service": 7}}, r"dropped 7 \(no_service\)"),
        ({"connections": (63, "established"), "expected": (64, 64)}, "had 63 connections instead of 64 to 64"),
        ({"connections": (64, "established"), "expected": (64, 64)}, None),
    ],
)
def test_what_does_not_count(keys, fault):
    one = some(**keys)
    assert re.fullmatch(fault, one.fault()) if fault else one.fault() is None
    assert one.median() == (None if fault else 50.0)
    table = report.table(report.Results([one]), "a machine", "a note")
    assert ("FAULT" in table) == bool(fault)


def test_a_noisy_round_is_marked():
    assert "noisy" not in report.table(report.Results([some(waited=0.001)]), "", "")
    assert "noisy" in report.table(report.Results([some(waited=0.05)]), "", "")


@pytest.mark.parametrize("free, had", [(3, 8), (0, 6)])
def test_huge_pages_are_given_back(free, had, tmp_path, monkeypatch):
    """All that were taken and no more, also when Linux has fewer than are asked for."""
    monkeypatch.setattr(machine, "HUGEPAGES", tmp_path)
    number, empty = tmp_path / "nr_hugepages", tmp_path / "free_hugepages"
    number.write_text("5")
    empty.write_text(str(free))
    written = Path.write_text

    def write(path, text):
        """As Linux does, which has no more than that."""
        more = min(int(text), had) - int(path.read_text())
        written(empty, str(int(empty.read_text()) + more))
        return written(path, str(min(int(text), had)))

    monkeypatch.setattr(Path, "write_text", write)
    if free + had - 5 >= 6:
        with machine.hugepages(6):
            assert int(number.read_text()) == had
    else:
        with pytest.raises(LabError, match="12 MiB of huge pages are needed and 2 could be had"), machine.hugepages(6):
            pass
    assert int(number.read_text()) == 5


def test_the_plot():
    found = results(testpmd=[20, 18, 19], millrace=[38, 40, 30])
    found.all.append(report.Result("udp", 64, "millrace", error="it & <that>"))
    root = ElementTree.fromstring(chart.svg(found, "a <title>", "a machine & more"))
    bars = [node for node in root.iter() if node.get("class") == "bar"]
    assert len(bars) == 2
    heights = [float(bar.get("height")) for bar in bars]
    assert heights[1] / heights[0] == pytest.approx(2, abs=0.02)
    assert any(node.text == "fault" for node in root.iter())


def test_words_of_the_plot_keep_apart():
    """Also with one narrow bar above each label."""
    kinds = [(kind.name, flows) for kind in KINDS.values() for flows in kind.flows]
    found = report.Results(report.Result(*kind, "millrace", [report.Round(50.0)]) for kind in kinds)
    root = ElementTree.fromstring(chart.svg(found, "a title", "a machine"))
    texts = [node for node in root.iter() if node.tag.endswith("text") and ", " in (node.text or "")]
    ends = [(float(node.get("x")) + side * chart.LETTER * len(node.text) / 2) for node in texts for side in (-1, 1)]
    assert len(texts) == len(kinds) and ends == sorted(ends)
    assert ends[0] > 0 and ends[-1] < float(root.get("width"))


@pytest.mark.parametrize("kind", packets.KINDS)
def test_packets(kind, tmp_path):
    path = tmp_path / "some.pcap"
    assert write_pcap(path, packets.frames(kind, 1000)) == count_pcap(path) == 1000
    frames = packets.read_pcap(path.read_bytes())
    assert all(len(frame) == 60 and packets.is_ipv4(frame) and packets.is_sound(frame) for frame in frames)
    assert frames[0][23] == packets.PROTOCOL[kind]
    # Every flow once, and in no order; the same ones at every run.
    assert len({packets.addresses(frame)[0] for frame in frames}) == 1000
    assert frames != [packets.frame(kind, flow) for flow in range(1000)]
    assert frames == list(packets.frames(kind, 1000))
    broken = bytearray(frames[0])
    broken[40] ^= 1
    assert not packets.is_sound(bytes(broken))


def test_flows_go_on_at_the_next_client():
    address = packets.addresses(packets.frame("udp", 32768))[0]
    assert address == (bytes([100, 64, 0, 1]), 1024)
    assert packets.client(32767) == (struct.unpack(">I", bytes([100, 64, 0, 0]))[0], 33791)


def test_the_command_line(capsys):
    wanted = peers.arguments(["--flows", "64,10k", "--kinds", "udp", "--only", "testpmd,millrace"])
    assert (wanted.flows, wanted.kinds, wanted.rounds) == ([64, 10_000], ["udp"], 5)
    assert peers.arguments(["--quick", "--rounds", "1"]).rounds == 1
    wanted = peers.arguments(["--kinds", "tcp,memory,new", "--flows", "64,1M", "--only", "testpmd,ovs"])
    assert [(kind.name, flows, names) for kind, flows, names in peers.plan(wanted)] == [
        ("tcp", 64, ["testpmd", "ovs"]),
        ("memory", 64, ["testpmd", "ovs"]),
        ("memory", 1_000_000, ["testpmd", "ovs"]),
        ("new", 1_000_000, ["testpmd"]),
    ]
    for wrong in ("--flows 0", "--flows 5G", "--kinds sctp", "--only vpp", "--rounds 0", "--kinds tcp --flows 1M"):
        with pytest.raises(SystemExit):
            peers.arguments(wrong.split())
    assert "there are testpmd, millrace" in capsys.readouterr().err


def test_one_round(tmp_path, capsys):
    """The whole bench with two contenders: table, JSON and plot."""
    data, plot = tmp_path / "out.json", tmp_path / "out.svg"
    words = "--only testpmd,millrace --kinds tcp --flows 64 --rounds 1 --seconds 0.3 --hugepages no".split()
    found = peers.run(peers.arguments([*words, "--json", str(data), "--svg", str(plot)]))
    assert found.faults() == []
    table = capsys.readouterr().out
    assert re.search(r"^tcp +64 +[\d.]+ \[.*\].? +[\d.]+ \[.*x", table, re.MULTILINE), table
    assert "connections of millrace were picked_up (tcp)" in table
    report_ = json.loads(data.read_text())
    assert {case["contender"] for case in report_["cases"]} == {"testpmd", "millrace"}
    assert all(case["ns_per_packet"] > 0 for case in report_["cases"])
    assert {"cpu", "cores", "kernel", "dpdk", "commit", "hugepages"} <= report_["machine"].keys()
    assert [check["backends"] for check in report_["checks"]] == [None, 8]
    assert len([node for node in ElementTree.parse(plot).iter() if node.get("class") == "bar"]) == 2


def test_from_memory(tmp_path):
    """Connections that are established, that come and go, and that are refused."""
    bench = peers.Bench(tmp_path, hugepages=False, seconds=0.3, warm=0.1)
    found = {}
    for name in ("answered", "memory", "flood", "churn"):
        found[name] = one = report.Result(name, 2000, "millrace", [bench.round(Millrace, KINDS[name], 2000)])
        assert one.fault() is None, name
    assert found["answered"].state() == found["memory"].state() == "established"
    # Of so many a second hardly any finds room.
    assert found["flood"].extra("refused") > 0.5
    assert 0 < found["churn"].extra("turn_p50_ns") <= found["churn"].extra("turn_p99_ns")
    assert found["churn"].extra("fresh_per_second") > 0


def test_loss_is_noticed(tmp_path):
    """Half of the packets are for nobody."""
    bench = peers.Bench(tmp_path, hugepages=False, seconds=0.2, warm=0.2)
    frames = [packets.frame("tcp", flow) for flow in range(32)]
    lost = [frame[:36] + b"\x00\x51" + frame[38:] for frame in (packets.frame("tcp", flow) for flow in range(32, 64))]
    write_pcap(tmp_path / "tcp-64.pcap", frames + lost)
    one = report.Result("tcp", 64, "millrace", [bench.round(Millrace, KINDS["tcp"], 64)])
    assert one.rounds[0].loss == pytest.approx(0.5, abs=0.05)
    assert set(one.rounds[0].dropped) == {"no_service"}
    assert one.rounds[0].connections[0] == 32
    assert one.fault().startswith("lost ")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_wrong_packet_is_noticed():
    """What leaves must be what the contender is there to make of it."""
    frames = [packets.frame("tcp", flow) for flow in range(peers.CHECK_FLOWS)]
    for contender in (Testpmd, Millrace):
        with pytest.raises(LabError, match="should not have left"):
            peers.judge(contender, "tcp", frames)
    swapped = [frame[:26] + frame[30:34] + frame[26:30] + frame[36:38] + frame[34:36] + frame[38:] for frame in frames]
    assert peers.judge(Testpmd, "tcp", swapped)["flows"] == peers.CHECK_FLOWS
    with pytest.raises(LabError, match="of 64 flows 63"):
        peers.judge(Testpmd, "tcp", swapped[1:])


def test_a_contender_that_does_not_start(tmp_path, monkeypatch):
    """It is told with its log, nothing of it is left, and the others go on."""
    monkeypatch.setenv("MILLRACE_BINARY", "/bin/false")
    bench = peers.Bench(tmp_path, hugepages=False, seconds=0.1, warm=0.1)
    wanted = peers.arguments("--only millrace,testpmd --kinds tcp --flows 64 --rounds 1".split())
    found = peers.run_rounds(bench, peers.plan(wanted), wanted.rounds)
    assert "millrace ended with 1" in found.find("tcp", 64, "millrace").fault()
    assert found.median("tcp", 64, "testpmd") > 0
    assert os.listdir(tmp_path) == ["tcp-64.pcap"]
