"""Books that agree and books that do not."""

from __future__ import annotations

import dataclasses

import pytest
from stress.ledger import Book, Disagreement, Side, check, must_agree

NOTHING = Book(
    rx={"clients": 0, "servers": 0},
    tx={"clients": 0, "servers": 0},
    missed={"clients": 0, "servers": 0},
    refused=0,
    hw={"original": 0, "reply": 0},
    sw={"original": 0, "reply": 0},
    drops={},
    own=0,
    unsent={"clients": 0, "servers": 0},
)


def book(**changes) -> Book:
    return dataclasses.replace(NOTHING, **changes)


def test_what_was_forwarded_agrees():
    both = book(rx={"clients": 100, "servers": 90}, tx={"clients": 90, "servers": 100})
    assert check(Side(100, 90), Side(90, 100), both) == []


def test_what_was_dropped_and_missed_agrees_if_it_is_named():
    some = book(rx={"clients": 95, "servers": 0}, tx={"clients": 0, "servers": 90}, drops={"tx_ring_full": 5},
                missed={"clients": 5, "servers": 0})
    assert check(Side(sent=100), Side(received=90), some) == []
    unnamed = dataclasses.replace(some, drops={})
    (told,) = check(Side(sent=100), Side(received=90), unnamed)
    assert "the generator misses 10, the device names 5" in told


def test_what_an_eswitch_could_not_send_is_lost_and_named():
    full = book(rx={"clients": 100, "servers": 0}, tx={"clients": 0, "servers": 100},
                unsent={"clients": 0, "servers": 7})
    assert check(Side(sent=100), Side(received=93), full) == []


def test_what_hardware_forwarded_counts():
    hw = book(rx={"clients": 10, "servers": 10}, tx={"clients": 10, "servers": 10}, hw={"original": 90, "reply": 70})
    assert check(Side(100, 80), Side(80, 100), hw) == []


@pytest.mark.parametrize("side", ["clients", "servers"])
def test_a_single_packet_too_many_is_a_disagreement(side):
    both = book(rx={"clients": 100, "servers": 0}, tx={"clients": 0, "servers": 100})
    clients, servers = Side(sent=100), Side(received=100)
    if side == "clients":
        clients = Side(sent=101)
    else:
        servers = Side(received=99)
    with pytest.raises(Disagreement, match="generator"):
        must_agree(clients, servers, both)


def test_what_millrace_sends_itself_is_the_slack():
    arp = book(rx={"clients": 101, "servers": 0}, tx={"clients": 1, "servers": 100}, own=2)
    assert check(Side(sent=100, received=1), Side(received=100), arp) == []


def test_a_book_since_another_has_what_was_added():
    before = book(drops={"a": 3, "b": 1}, own=4, rx={"clients": 7, "servers": 0})
    after = book(drops={"a": 5, "b": 1}, own=9, rx={"clients": 9, "servers": 1})
    added = after.since(before)
    assert (added.drops, added.own, added.rx) == ({"a": 2}, 5, {"clients": 2, "servers": 1})
