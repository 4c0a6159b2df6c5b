//! Which backend a connection goes to.

use crate::addr::Ip;
use crate::flow::{FlowHasher, FlowKey};

/// The seed of the hashes that choose a backend: the fractional digits of pi, as good as any number
/// that is the same everywhere.
const HASHER: FlowHasher = FlowHasher::new([
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
]);

/// The hash a connection's backend is picked by: the same on every node and after every restart.
#[inline]
#[must_use]
pub fn flow_hash(key: &FlowKey) -> u64 {
    HASHER.key(key)
}

/// The hash a client's backend is picked by under [`crate::snapshot::Affinity::Client`].
#[inline]
#[must_use]
pub fn client_hash(client: Ip) -> u64 {
    HASHER.ip(client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Protocol;
    use crate::ids::TenantId;

    /// Nodes of different versions must agree, so these numbers may never change.
    #[test]
    fn hashes_are_the_same_for_ever() {
        let key = FlowKey {
            src: Ip::v4(0x0a00_0001),
            dst: Ip::v4(0xc000_0201),
            src_port: 5555,
            dst_port: 80,
            tenant: TenantId(0),
            protocol: Protocol::Tcp,
        };
        assert_eq!(flow_hash(&key), 739_968_352_745_520_485);
        assert_eq!(client_hash(key.src), 15_046_302_124_380_927_792);
    }
}
