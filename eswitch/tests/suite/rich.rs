//! Frames of all kinds, and of no kind, through rules of all kinds.

use crate::support::rich;
use eswitch::model::switch::DropReason;
use proptest::prelude::*;

const TCP: [u8; 20] = [4, 210, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 16, 0x10, 0, 0, 0, 0, 0];
const IPV4: [u8; 20] = [0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];

fn frame(kind: u16, parts: &[&[u8]]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &kind.to_be_bytes(), &parts.concat()].concat()
}

/// A VXLAN tunnel over IPv4 around this frame.
fn vxlan(inner: &[u8]) -> Vec<u8> {
    let mut ip = IPV4;
    ip[9] = 17;
    frame(0x0800, &[&ip, &[4, 210, 18, 181, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 7, 0], inner])
}

fn send(choice: u8, frames: &[Vec<u8>]) -> (usize, [u64; DropReason::ALL.len()]) {
    let lengths = frames.iter().flat_map(|frame| [&[frame.len() as u8][..], frame].concat());
    rich::forward(&std::iter::once(choice).chain(lengths).collect::<Vec<u8>>())
}

#[test]
fn good_frames_go_their_ways() {
    let plain = frame(0x0800, &[&IPV4, &TCP]);
    let tagged = frame(0x8100, &[&[0, 7, 8, 0], &IPV4, &TCP]);
    let (left, drops) = send(0, &[plain.clone(), tagged, vxlan(&plain)]);
    // The mirror's copy is one more.
    assert_eq!(left, 4);
    let malformed = drops[DropReason::Malformed as usize];
    assert_eq!(malformed, 0, "{drops:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_frames_leave(input in proptest::collection::vec(any::<u8>(), 0..3000)) {
        rich::forward(&input);
    }

    #[test]
    fn damaged_frames_leave(cut in 0usize..120, at in 0usize..120, bits in any::<u8>(), choice in any::<u8>()) {
        let mut damaged = vxlan(&frame(0x0800, &[&IPV4, &TCP]));
        damaged.truncate(cut);
        if let Some(byte) = damaged.get_mut(at) {
            *byte ^= bits;
        }
        send(choice, &[damaged]);
    }
}
