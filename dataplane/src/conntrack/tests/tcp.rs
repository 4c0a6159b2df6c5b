//! The state machine, scenario by scenario.

use crate::conntrack::{Segment, State};
use crate::flow::{Direction, Protocol};
use crate::snapshot::Timeouts;
use crate::wire::parse::TcpFlags;

/// Runs segments written as `C:SA` (client, SYN|ACK) or `B:F` through the machine, from the first one
/// on; gives the names of the states passed, or `reuse`. A `+` before the sender: at a later tick.
fn run(one_way: bool, segments: &str) -> String {
    let mut names = Vec::new();
    let mut current: Option<State> = None;
    let mut half_open = true;
    for text in segments.split_whitespace() {
        let (later, text) = text.strip_prefix('+').map_or((false, text), |rest| (true, rest));
        let (sender, letters) = text.split_once(':').expect("sender:flags");
        let direction = if sender == "C" { Direction::Original } else { Direction::Reply };
        let flags = letters.chars().fold(TcpFlags(0), |flags, letter| {
            flags.with(match letter {
                'S' => TcpFlags::SYN,
                'A' => TcpFlags::ACK,
                'F' => TcpFlags::FIN,
                'R' => TcpFlags::RST,
                other => panic!("flag {other}"),
            })
        });
        let segment = Segment { direction, flags, one_way, half_open, later };
        let before = *current.get_or_insert(State::opening(Protocol::Tcp, flags));
        let Some(state) = before.next(&segment) else {
            names.push("reuse");
            break;
        };
        half_open &= !state.confirms();
        names.push(state.name());
        current = Some(state);
    }
    names.join(" ")
}

#[test]
fn both_ways() {
    let cases = [
        ("C:S C:S B:SA B:SA C:A B:A", "syn_sent syn_sent syn_received syn_received established established"),
        // Closed by the client, by the backend, by both at once.
        (
            "C:S B:SA C:A C:FA B:A B:FA C:A",
            "syn_sent syn_received established fin_wait_client fin_wait_client last_ack_client time_wait",
        ),
        (
            "C:S B:SA C:A B:FA C:A C:FA B:A",
            "syn_sent syn_received established fin_wait_backend fin_wait_backend last_ack_backend time_wait",
        ),
        (
            "C:S B:SA C:A C:FA B:FA B:A C:A",
            "syn_sent syn_received established fin_wait_client last_ack_client last_ack_client time_wait",
        ),
        // The handshake's ACK and the FIN in one segment; a retransmitted FIN is not the last ACK.
        (
            "C:S B:SA C:FA B:FA C:FA C:A",
            "syn_sent syn_received fin_wait_client last_ack_client last_ack_client time_wait",
        ),
        // Refused; given up.
        ("C:S B:RA B:A", "syn_sent reset_backend reset_backend"),
        ("C:S C:R C:A", "syn_sent reset_client reset_client"),
        // A RST before the handshake that was not the client's: the backend goes on.
        ("C:S C:R B:SA C:A", "syn_sent reset_client syn_received established"),
        // A RST that counts, and one that its supposed sender does not know of.
        ("C:S B:SA C:A B:R C:A", "syn_sent syn_received established reset_backend reset_backend"),
        ("C:S B:SA C:A B:R B:A", "syn_sent syn_received established reset_backend established"),
        (
            "C:S B:SA C:A C:R B:A C:A",
            "syn_sent syn_received established reset_client reset_client established",
        ),
        ("C:S B:SA C:A C:R C:FA", "syn_sent syn_received established reset_client fin_wait_client"),
        // The port is used again after the end, and only then.
        ("C:S B:SA C:A B:R C:S", "syn_sent syn_received established reset_backend reuse"),
        (
            "C:S B:SA C:A C:FA B:FA C:S",
            "syn_sent syn_received established fin_wait_client last_ack_client reuse",
        ),
        (
            "C:S B:SA C:A C:FA B:FA C:A C:S",
            "syn_sent syn_received established fin_wait_client last_ack_client time_wait reuse",
        ),
        ("C:S B:SA C:A C:S B:A", "syn_sent syn_received established established established"),
        ("C:S B:SA C:A C:FA C:S", "syn_sent syn_received established fin_wait_client fin_wait_client"),
        // A RST in time-wait does not cut it short, nor does a backend's SYN start anything.
        (
            "C:S B:SA C:A C:FA B:FA C:A B:R B:S",
            "syn_sent syn_received established fin_wait_client last_ack_client time_wait time_wait time_wait",
        ),
        // The client alone cannot complete a handshake that the backend does not take part in.
        ("C:S C:A C:A C:FA", "syn_sent syn_sent syn_sent syn_sent"),
        ("C:A C:A +C:A B:A", "picked_up picked_up picked_up established"),
        ("C:A B:FA", "picked_up fin_wait_backend"),
        ("C:A C:S B:SA C:A", "picked_up syn_sent syn_received established"),
        ("C:R C:A", "reset_client reset_client"),
    ];
    for (segments, states) in cases {
        assert_eq!(run(false, segments), states, "{segments}");
    }
}

#[test]
fn one_way() {
    let cases = [
        ("C:S C:A C:FA C:A", "syn_sent established fin_wait_client fin_wait_client"),
        ("C:S C:A C:FA C:S", "syn_sent established fin_wait_client reuse"),
        ("C:S C:A C:R C:A", "syn_sent established reset_client established"),
        ("C:S C:A C:R C:S", "syn_sent established reset_client reuse"),
        ("C:S C:FA", "syn_sent fin_wait_client"),
        ("C:A C:A +C:A", "picked_up picked_up established"),
        ("C:A +C:FA", "picked_up fin_wait_client"),
    ];
    for (segments, states) in cases {
        assert_eq!(run(true, segments), states, "{segments}");
    }
}

#[test]
fn udp_is_believed_when_the_client_sends_again() {
    let udp = |one_way, direction, later| {
        let flags = TcpFlags(0xff);
        State::Unreplied.next(&Segment { direction, flags, one_way, half_open: true, later })
    };
    assert_eq!(udp(false, Direction::Reply, false), Some(State::Answered));
    assert_eq!(udp(false, Direction::Original, true), Some(State::Unreplied));
    assert_eq!(udp(true, Direction::Original, false), Some(State::Unreplied));
    assert_eq!(udp(true, Direction::Original, true), Some(State::Replied));

    let answered = |direction| {
        let flags = TcpFlags(0);
        State::Answered.next(&Segment { direction, flags, one_way: false, half_open: true, later: true })
    };
    assert_eq!(answered(Direction::Reply), Some(State::Answered), "backends answer spoofed datagrams, too");
    assert_eq!(answered(Direction::Original), Some(State::Replied));
}

/// Nothing in the machine may be unreachable or lead from TCP to UDP, whatever the flags.
#[test]
fn every_state_and_every_flag() {
    for state in State::ALL {
        for bits in 0..=u8::MAX {
            for ways in 0..16u8 {
                let segment = Segment {
                    direction: if ways & 1 == 0 { Direction::Original } else { Direction::Reply },
                    flags: TcpFlags(bits),
                    one_way: ways & 2 != 0,
                    half_open: ways & 4 != 0,
                    later: ways & 8 != 0,
                };
                let udp = |state| matches!(state, State::Unreplied | State::Answered | State::Replied);
                let next = state.next(&segment).unwrap_or(state);
                assert_eq!(udp(next), udp(state));
                assert!(
                    !next.is_opening() || state.is_opening() || state.is_reset(),
                    "{state:?} {segment:?}"
                );
                assert!(Timeouts::default().timeout_ms(next) > 0);
            }
        }
    }
}
