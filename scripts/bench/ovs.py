"""Open vSwitch with DPDK in the bench against others: connection tracking and NAT to the same eight backends.

It runs from Debian's package with a database, sockets and a network namespace of its own (its userspace datapath
makes tap devices), so nothing of a switch that this machine may have is touched.
"""

from __future__ import annotations

import re
from pathlib import Path

from lab.net import LabError, Process, run, wait_until

from .contenders import BACKEND_PORT, BACKENDS, Contender

SWITCH = Path("/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk")
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
FRONT, BACK = 1, 2
# Its packet buffers, whose number is its own affair.
BASE_MB = 1536

# What a connection's packets need when it is known: one look-up of the connection, and out. That its entry
# translates them (+dnat) decides, not that it is established: with UDP, and as long as nobody answers, it never
# is. Only a packet that no entry translates is given a backend.
FLOWS = f"""
table=0,priority=20,in_port={FRONT},ip,actions=ct(table=1,nat)
table=0,priority=20,in_port={BACK},ip,actions=ct(table=3,nat)
table=1,priority=20,ip,ct_state=+trk+dnat,actions=output:{BACK}
table=1,priority=10,ip,ct_state=+trk+new,actions=group:1
table=2,priority=20,ip,actions=output:{BACK}
table=3,priority=20,ip,ct_state=+trk+est,actions=output:{FRONT}
"""


def group() -> str:
    """The backends as a group that selects one by a hash of the packet."""
    buckets = [f"bucket=weight:1,actions=ct(commit,table=2,nat(dst={one}:{BACKEND_PORT}))" for one in BACKENDS]
    return ",".join(["group_id=1,type=select", *buckets])


class Ovs(Contender):
    """In its best configuration: signature match cache on, no insertion into the exact match cache."""

    name, title = "ovs", "OVS-DPDK ct+nat"
    caches = ("smc-enable=true", "emc-insert-inv-prob=0")

    def start(self) -> Process:
        if not SWITCH.exists():
            raise LabError(f"{SWITCH} is not there: scripts/setup.sh --peers")
        scene = self.scene
        directory = scene.directory
        self._database, self._control = f"unix:{directory}/db.sock", f"{directory}/switch.ctl"
        # Where it would otherwise look for, and leave, things of this machine's own switch.
        private = ["env", *(f"OVS_{what}DIR={directory}" for what in ("RUN", "LOG", "DB", "SYSCONF"))]
        run(["ovsdb-tool", "create", f"{directory}/conf.db", str(SCHEMA)])
        server = [*private, "ovsdb-server", f"{directory}/conf.db", f"--remote=p{self._database}", "--no-chdir"]
        self._serve(self.run("ovsdb", [*server, f"--unixctl={directory}/db.ctl"]), directory / "db.sock")
        self._vsctl("--no-wait", "init")
        main, worker = scene.cores
        settings = ["dpdk-init=true", f"pmd-cpu-mask={1 << worker:#x}", f"dpdk-lcore-mask={1 << main:#x}", *self.caches]
        # It adds --in-memory unless it finds that; without huge pages there is no difference.
        memory = [*scene.eal_memory(BASE_MB), *scene.plugins(), *([] if scene.hugepages else ["--legacy-mem"])]
        extra = " ".join(["--no-pci", f"--file-prefix={directory.name}", "--telemetry", *memory])
        pairs = [f"other_config:{pair}" for pair in (*settings, f'dpdk-extra="{extra}"')]
        self._vsctl("--no-wait", "set", "Open_vSwitch", ".", *pairs)
        argv = [*private, "unshare", "--net", "--", str(SWITCH), self._database, "--no-chdir"]
        argv += [f"--unixctl={self._control}"]
        process = self._serve(self.run("vswitchd", argv), Path(self._control))
        self._make_bridge()
        return process

    def _serve(self, process: Process, socket: Path) -> Process:
        def ready() -> bool:
            process.must_be_alive()
            return socket.exists()

        wait_until(f"{process.name} listens", ready, timeout=30)
        return process

    def _make_bridge(self) -> None:
        """The source comes last, when all is in place for its packets."""
        scene = self.scene
        self._vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail-mode=secure")
        self._add_port("back", BACK, scene.sink)
        bridge = f"unix:{scene.directory}/br0.mgmt"
        run(["ovs-ofctl", "-O", "OpenFlow15", "add-group", bridge, group()])
        run(["ovs-ofctl", "-O", "OpenFlow15", "add-flows", bridge, "-"], text=FLOWS)
        self.appctl("dpctl/ct-set-maxconns", str(scene.connections_max))
        self._add_port("front", FRONT, scene.source)

    def _add_port(self, name: str, number: int, device: str) -> None:
        # Commas would end the value; quoted, they do not.
        devargs = f'options:dpdk-devargs="{device}"'
        interface = ["type=dpdk", f"ofport_request={number}", devargs]
        self._vsctl("add-port", "br0", name, "--", "set", "Interface", name, *interface)

    def _vsctl(self, *words: str) -> None:
        run(["ovs-vsctl", f"--db={self._database}", *words], timeout=90)

    def appctl(self, *words: str) -> str:
        """What the switch answers to a command."""
        return run(["ovs-appctl", "-t", self._control, *words], timeout=90)

    def connections(self) -> tuple[int, str] | None:
        number = int(self.appctl("dpctl/ct-get-nconns"))
        states = sorted(set(re.findall(r"\[(\w+)\]=[1-9]", self.appctl("dpctl/ct-stats-show", "-m"))))
        return number, ",".join(states)

    def dropped(self) -> dict[str, int]:
        # Its other drop counters are seconds late. What they count shows as packets that did not leave.
        failed = re.findall(r"miss with failed upcall: (\d+)", self.appctl("dpif-netdev/pmd-stats-show"))
        return {"failed upcalls": sum(map(int, failed))}


class OvsDefault(Ovs):
    """As it comes."""

    name, title = "ovs-default", "OVS-DPDK ct+nat, default caches"
    caches = ()
