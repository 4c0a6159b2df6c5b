//! The receive side of a representor: which frames it takes, and which of its queues gets them.

use super::super::key::{Headers, L3, L4};
use super::super::types::Vport;

/// How a representor receives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RxConfig {
    /// Its address.
    pub mac: [u8; 6],
    /// Take frames to any address.
    pub promiscuous: bool,
    /// Take all multicast.
    pub all_multicast: bool,
    /// No default rules: take only what an ingress rule names.
    pub isolated: bool,
    /// Queues that the application polls: numbers 0 to this, exclusive.
    pub queues: u16,
    /// Hairpin queues and the port that sends what they get.
    pub hairpin: Vec<(u16, Vport)>,
}

/// A representor's receive state.
#[derive(Clone, Debug, Default)]
pub(super) struct Rx {
    pub(super) started: bool,
    /// A fault has taken its link away.
    pub(super) cut: bool,
    pub(super) config: RxConfig,
}

/// Where a receive queue leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum QueueKind {
    Application,
    Hairpin(Vport),
    None,
}

impl Rx {
    /// Whether the default rules of mlx5 take this frame: own address, broadcast, IPv6 multicast; more if
    /// promiscuous or all-multicast (`mlx5_traffic_enable`, mlx5_trigger.c).
    pub(super) fn accepts(&self, frame: &[u8]) -> bool {
        let config = &self.config;
        let Some(destination) = frame.get(..6) else { return false };
        !config.isolated
            && (config.promiscuous
                || destination == config.mac
                || destination == [0xff; 6]
                || destination[..2] == [0x33, 0x33]
                || (config.all_multicast && destination[0] & 1 == 1))
    }

    /// What this queue is.
    #[inline]
    pub(super) fn kind(&self, queue: u16) -> QueueKind {
        if queue < self.config.queues {
            return QueueKind::Application;
        }
        let hairpin = self.config.hairpin.iter().find(|(number, _)| *number == queue);
        hairpin.map_or(QueueKind::None, |(_, peer)| QueueKind::Hairpin(*peer))
    }
}

/// A hash of a packet's outer addresses and ports, the same for all packets of a connection's direction.
///
/// mlx5 hashes with Toeplitz and the application's key; which queue gets a connection is not part of the
/// model, only that it is always the same one and that connections spread.
#[inline]
pub(super) fn spread(frame: &[u8], headers: &Headers) -> u32 {
    let stack = &headers.outer;
    let (at, len) = match stack.l3 {
        L3::None => return 0,
        L3::Ipv4 => (usize::from(stack.l3_at) + 12, 8),
        L3::Ipv6 => (usize::from(stack.l3_at) + 8, 32),
    };
    let mut hash = fold(0, frame.get(at..at + len).unwrap_or_default());
    if matches!(stack.l4, L4::Tcp | L4::Udp) {
        let at = usize::from(stack.l4_at);
        hash = fold(hash, frame.get(at..at + 4).unwrap_or_default());
    }
    (hash >> 32) as u32
}

fn fold(seed: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(4).fold(seed, |hash, chunk| {
        let word = chunk.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        let product = u128::from(hash ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
        (product as u64) ^ (product >> 64) as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_rules_take_what_mlx5_takes() {
        let mut rx = Rx {
            started: true,
            cut: false,
            config: RxConfig { mac: [2, 0, 0, 0, 0, 1], ..RxConfig::default() },
        };
        let to = |mac: [u8; 6]| [mac.as_slice(), &[0; 8]].concat();
        let cases = [
            ([2, 0, 0, 0, 0, 1], true),
            ([0xff; 6], true),
            ([0x33, 0x33, 0, 0, 0, 1], true),
            ([1, 0, 0x5e, 0, 0, 1], false),
            ([2, 0, 0, 0, 0, 2], false),
        ];
        for (mac, taken) in cases {
            assert_eq!(rx.accepts(&to(mac)), taken, "{mac:02x?}");
        }
        assert!(!rx.accepts(&[2, 0, 0]), "a frame without a destination");
        rx.config.all_multicast = true;
        assert!(rx.accepts(&to([1, 0, 0x5e, 0, 0, 1])));
        rx.config.promiscuous = true;
        assert!(rx.accepts(&to([2, 0, 0, 0, 0, 2])));
        rx.config.isolated = true;
        assert!(!rx.accepts(&to([2, 0, 0, 0, 0, 1])));
    }

    #[test]
    fn queues_are_told_apart() {
        let config = RxConfig { queues: 2, hairpin: vec![(2, Vport(1))], ..RxConfig::default() };
        let rx = Rx { started: true, cut: false, config };
        let kinds = [0, 1, 2, 3].map(|queue| rx.kind(queue));
        assert_eq!(
            kinds,
            [QueueKind::Application, QueueKind::Application, QueueKind::Hairpin(Vport(1)), QueueKind::None]
        );
    }
}
