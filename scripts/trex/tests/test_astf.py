"""Stateful profiles. No client with ASTF is published, so the conversations are played, both sides against each other,
and the profile is composed with a stand-in that knows ASTF's names and what may follow what. With TREX_DIR, TRex's own
client compiles them, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stress import astf
from stress.traffic import STATEFUL, Conversation, Step, dns_answer, dns_query

CONVERSATIONS = {conversation.name: conversation for load in STATEFUL.values() for _, conversation in load.parts}


def unrolled(steps: tuple[Step, ...]) -> list[Step]:
    """What is done, one after the other."""
    done: list[Step] = []
    again = next((step for step in steps if step.do == "again"), None)
    body = [step for step in steps if step.do != "again"]
    for _ in range(1 + (again.times if again else 0)):
        done += body
    return done


def play(conversation: Conversation) -> tuple[int, int]:
    """Both sides in turns until both are done; bytes each has sent. Nobody may wait for what never comes."""
    left = {"client": unrolled(conversation.client), "server": unrolled(conversation.server)}
    waiting, sent = {"client": 0, "server": 0}, {"client": 0, "server": 0}
    while any(left.values()):
        moved = False
        for side, other in (("client", "server"), ("server", "client")):
            while left[side]:
                step = left[side][0]
                if step.do == "receive" and waiting[side] < step.amount:
                    break
                if step.do == "receive":
                    waiting[side] -= step.amount
                elif step.do == "send":
                    assert len(step.data) == step.amount
                    waiting[other] += step.amount
                    sent[side] += step.amount
                left[side].pop(0)
                moved = True
        assert moved, f"{conversation.name}: both wait"
    assert waiting == {"client": 0, "server": 0}, "everything sent is read"
    return sent["client"], sent["server"]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_both_sides_of_a_conversation_agree(name):
    asked, told = play(CONVERSATIONS[name])
    assert asked > 0 and told > 0


def test_long_ones_are_long():
    assert play(CONVERSATIONS["http-long"])[1] > 4 * 65536
    waits = [step.amount for step in unrolled(CONVERSATIONS["http-live"].client) if step.do == "wait"]
    assert sum(waits) == 10_000 and max(waits) <= 700, "TRex's longest delay is 0.7 s"


def test_dns_is_dns():
    from scapy.layers.dns import DNS

    query, answer = DNS(dns_query()), DNS(dns_answer())
    assert (query.qr, answer.qr, query.id) == (0, 1, answer.id)
    assert answer.an[0].rdata == "192.0.2.1" and answer.an[0].rrname == b"www.example.org."


class Program:
    """ASTFProgram, as far as it is used."""

    def __init__(self, stream=True):
        self.stream, self.done, self.variables, self.labels = stream, [], set(), set()

    def send(self, data):
        assert self.stream
        self.done.append(("send", len(data)))

    def send_msg(self, data):
        assert not self.stream
        self.done.append(("send", len(data)))

    def recv(self, count, clear):
        assert self.stream and clear
        self.done.append(("receive", count))

    def recv_msg(self, count, clear):
        assert not self.stream and clear and count == 1
        self.done.append(("receive", count))

    def delay(self, microseconds):
        assert 50 <= microseconds <= 700_000
        self.done.append(("wait", microseconds))

    def set_var(self, name, value):
        self.variables.add(name)
        self.done.append(("set", value))

    def set_label(self, label):
        self.labels.add(label)

    def jmp_nz(self, name, label):
        assert name in self.variables and label in self.labels
        self.done.append(("again", 0))


def test_repetitions_are_counted_as_trex_counts_them():
    program = Program()
    astf.compose(program, CONVERSATIONS["http-live"].client, True)
    # It counts down and then looks, so 20 turns are a counter of 20.
    assert program.done[0] == ("set", 20) and program.done[-1] == ("again", 0)
    assert [what for what, _ in program.done[1:-1]] == ["send", "receive", "wait"]


@pytest.mark.skipif("TREX_DIR" not in os.environ, reason="TREX_DIR names no TRex")
def test_trex_compiles_them():
    # In a process of its own: TRex brings a Scapy that is not the other tests'.
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILE], cwd=Path(__file__).parent, check=True,
                          capture_output=True, text=True, timeout=120)
    told = json.loads(done.stdout)
    assert told.keys() == STATEFUL.keys()
    for name, profile in told.items():
        templates = [one["client_template"] for one in profile["templates"]]
        assert sum(one["cps"] for one in templates) == pytest.approx(1000)
        ports = {one["port"] for one in templates}
        assert len(ports) == len(templates) == len(STATEFUL[name].parts)


COMPILE = """
import conftest, json
from stress import astf
from stress.generators import trex
from stress.scene import Scene
from stress.traffic import STATEFUL
api = trex.api(trex.find(None), "astf")
made = {name: astf.profile(api, load, Scene(), 1000).to_json_str() for name, load in STATEFUL.items()}
print(json.dumps({name: json.loads(text) for name, text in made.items()}))
"""
