"""The model's numbers beside the paper's.

Figures are of "XenoFlow: How Fast Can a SmartNIC-Based DNS Load Balancer Run?", arXiv 2509.21656, sections 5.2 to
5.5; `chart` are points of the chart in the authors' repository, docs/Praktikum/report/img/pps_bandwidth.pdf.

What kind a number is, by what its agreement says:

* fitted: nothing but that the model is consistent with itself; it is a parameter of the profile.
* derived: likewise; it follows from fitted ones.
* consistent with: nothing about the model's inside. Nothing was fitted to it, but the model could not have given
  another number, or only because of what was assumed about how the paper counted. What is tested is an assumption. For
  the rates from 128 B on that is that nothing but the wire limits large packets: from 69 B on the model's rate is the
  line rate's arithmetic, 100 Gbit/s / 8 / (payload + 66 B), and the chart agrees with it or does not.
"""

from __future__ import annotations

import dataclasses

FITTED, DERIVED, CONSISTENT = "fitted", "derived", "consistent with"
# What may deviate by how much, in per cent.
BOUNDS = {FITTED: 5.0, DERIVED: 5.0, CONSISTENT: 15.0}
# Payload and million packets a second, where wires and not the device are the limit. The chart has Gbit/s: these are
# its points at 55 bytes a packet beyond the payload, which is what makes its points below 64 B the text's 96.7 and
# 92.8. So the scale is inferred from numbers that were fitted; how the rate falls with the payload is not.
CHART = {128: 64.0, 256: 37.5, 512: 21.31, 1024: 11.23}
# A point of figure 5 with less than this lost is one without loss. Loads are a million packets/s apart there, and a
# run ends before the buffer shows an overload of less than half a per cent: closer than that, nothing is found.
NO_LOSS = 0.001


@dataclasses.dataclass(frozen=True)
class Comparison:
    what: str
    source: str
    unit: str
    reference: float
    """The paper's number, or the chart's, as far as it had to be converted."""
    model: float
    kind: str

    @property
    def deviation(self) -> float:
        """In per cent of the reference."""
        return (self.model / self.reference - 1) * 100

    @property
    def holds(self) -> bool:
        return abs(self.deviation) <= BOUNDS[self.kind]


def comparisons(data: dict) -> list[Comparison]:
    """All that can be compared, in the order of figures."""
    by_payload = {point["payload"]: point for point in data["throughput"]}
    mpps = {payload: point["packets_per_second"] / 1e6 for payload, point in by_payload.items()}
    short = sorted(rate for payload, rate in mpps.items() if payload < 23)
    longer = sorted(rate for payload, rate in mpps.items() if 23 <= payload <= 64)
    found = [
        Comparison("rate below 23 B of payload", "figure 4", "Mpps", 96.7, short[len(short) // 2], FITTED),
        Comparison("rate from 23 B on", "figure 4", "Mpps", 92.8, longer[len(longer) // 2], FITTED),
        Comparison("first payload after the step", "figure 4", "B", 23, step(mpps), DERIVED),
        Comparison("most without loss, 18 B, to within 0.5 %", "figure 5", "Mpps", 96.7, lossless(data, 18), DERIVED),
        Comparison("most without loss, 23 B, to within 0.5 %", "figure 5", "Mpps", 92.8, lossless(data, 23), DERIVED),
        Comparison("line rate at 1024 B, as an entry counts", "figure 6", "Gbit/s", 100.0,
                   by_payload[1024]["counted_gbit"], CONSISTENT),
    ]
    found += [Comparison(f"rate at {payload} B", "chart", "Mpps", rate, mpps[payload], CONSISTENT)
              for payload, rate in CHART.items()]
    latency = data["latency"]
    base = latency["baseline"]["p50_ns"]
    ours, ebpf = ((latency[name]["p50_ns"] - base) / 1000 for name in ("balanced", "ebpf"))
    found += [
        Comparison("added by XenoFlow", "figure 7", "us", 5.2, ours, FITTED),
        Comparison("added by eBPF on the host", "figure 7", "us", 9.3, ebpf, FITTED),
        Comparison("less than eBPF adds", "figure 7", "%", 44.0, (1 - ours / ebpf) * 100, DERIVED),
    ]
    for split in dict.fromkeys(point["split"] for point in data["load"]):
        idle, busy = (round_trip(data, split, million) for million in (1, 85))
        found.append(Comparison(f"median at 85 Mpps to that at 1, {split}", "figure 8", "ratio", 1.0, busy / idle,
                                CONSISTENT))
    return found


def step(mpps: dict[int, float]) -> float:
    """The first payload at which the rate falls by more than one per cent."""
    payloads = sorted(mpps)
    pairs = zip(payloads, payloads[1:])
    return next((after for before, after in pairs if mpps[after] < mpps[before] * 0.99), 0)


def lossless(data: dict, payload: int) -> float:
    """The most that was offered and not lost, of the loads that were tried: million packets a second."""
    offered = [point["offered_packets_per_second"] for point in data["loss"]
               if point["payload"] == payload and point["loss"] < NO_LOSS]
    return max(offered, default=0) / 1e6


def round_trip(data: dict, split: str, million: int) -> float:
    """The median of one point of figure 8, in nanoseconds."""
    return next(point["round_trip"]["p50_ns"] for point in data["load"]
                if point["split"] == split and point["offered_packets_per_second"] == million * 1_000_000)
