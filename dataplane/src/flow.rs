//! The key of a flow, its direction and its hash.

use crate::addr::Ip;
use crate::ids::TenantId;
use core::fmt;

/// Transport protocols that Millrace load-balances, by their IANA number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Protocol {
    /// TCP, RFC 9293.
    Tcp = 6,
    /// UDP, RFC 768.
    Udp = 17,
}

impl Protocol {
    /// The lower-case name used in configuration, labels and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// Which way a packet of a connection travels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// From the client towards the VIP, as the connection was opened.
    Original = 0,
    /// From the backend towards the client.
    Reply = 1,
}

impl Direction {
    /// The other direction.
    #[inline]
    #[must_use]
    pub const fn reversed(self) -> Direction {
        match self {
            Direction::Original => Direction::Reply,
            Direction::Reply => Direction::Original,
        }
    }
}

/// The tuple that names one direction of a flow as it is seen on the wire. 40 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Source address.
    pub src: Ip,
    /// Destination address.
    pub dst: Ip,
    /// Source port, host order.
    pub src_port: u16,
    /// Destination port, host order.
    pub dst_port: u16,
    /// Whose address space the addresses are of.
    pub tenant: TenantId,
    /// TCP or UDP.
    pub protocol: Protocol,
}

const _: () = assert!(core::mem::size_of::<FlowKey>() == 40);

impl FlowKey {
    /// The key of the packets that answer this one.
    #[inline]
    #[must_use]
    pub fn reversed(&self) -> FlowKey {
        FlowKey { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..*self }
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |f: &mut fmt::Formatter<'_>, ip: Ip, port: u16| {
            if ip.is_v4() { write!(f, "{ip}:{port}") } else { write!(f, "[{ip}]:{port}") }
        };
        end(f, self.src, self.src_port)?;
        f.write_str(" -> ")?;
        end(f, self.dst, self.dst_port)?;
        write!(f, "/{}", self.protocol.name())
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A keyed 64-bit hash of flow keys and addresses.
///
/// Folded 64x64→128-bit multiplication (the construction of wyhash and of `ahash`'s fallback): a few
/// cycles per key, and unpredictable to a client who does not know the seed. Used for the connection
/// table with a random seed; **not** used where nodes must agree (Maglev has its own, fixed seed).
#[derive(Clone, Copy, Debug)]
pub struct FlowHasher {
    seed: [u64; 4],
}

impl FlowHasher {
    /// A hasher from 32 bytes that look random, such as [`FlowHasher::seeded`] makes of any.
    #[must_use]
    pub const fn new(seed: [u64; 4]) -> FlowHasher {
        FlowHasher { seed }
    }

    /// A hasher from any seed. The words multiply each other, so small or related ones would leave most
    /// bits of a hash alike: they are whitened first (the finalizer of SplitMix64).
    #[must_use]
    pub fn seeded(seed: [u64; 4]) -> FlowHasher {
        let mut position = 0u64;
        FlowHasher::new(seed.map(|word| {
            position = position.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = word.wrapping_add(position);
            let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }))
    }

    /// Hash of one direction's key, for tables that do not outlive the process: not the same as
    /// [`FlowHasher::key`], which stays as it is for ever, and a multiplication less for IPv4.
    #[inline]
    #[must_use]
    pub fn local_key(&self, key: &FlowKey) -> u64 {
        if !key.src.is_v4() || !key.dst.is_v4() {
            return self.key(key);
        }
        let ends = u64::from(key.src.low32()) << 32 | u64::from(key.dst.low32());
        let inner = folded_multiply(ends ^ self.seed[0], rest(key) ^ self.seed[1]);
        folded_multiply(inner ^ self.seed[2], self.seed[3] | 1)
    }

    /// Hash of one direction's key.
    #[inline]
    #[must_use]
    pub fn key(&self, key: &FlowKey) -> u64 {
        let ([s_hi, s_lo], [d_hi, d_lo]) = (key.src.words(), key.dst.words());
        let ends = folded_multiply(s_lo ^ self.seed[0], d_lo ^ self.seed[1]);
        let high = folded_multiply(s_hi ^ self.seed[2], d_hi ^ self.seed[3]);
        folded_multiply(ends ^ rest(key) ^ self.seed[2], high ^ self.seed[1])
    }

    /// Hash of one address.
    #[inline]
    #[must_use]
    pub fn ip(&self, ip: Ip) -> u64 {
        let [hi, lo] = ip.words();
        folded_multiply(
            folded_multiply(lo ^ self.seed[0], hi ^ self.seed[1]) ^ self.seed[2],
            self.seed[3] | 1,
        )
    }
}

/// What of a key is not its addresses.
#[inline]
fn rest(key: &FlowKey) -> u64 {
    u64::from(key.src_port)
        | u64::from(key.dst_port) << 16
        | u64::from(key.tenant.0) << 32
        | u64::from(key.protocol as u8) << 48
}

#[inline]
fn folded_multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHER: FlowHasher = FlowHasher::new([
        0x243f_6a88_85a3_08d3,
        0x1319_8a2e_0370_7344,
        0xa409_3822_299f_31d0,
        0x082e_fa98_ec4e_6c89,
    ]);

    fn key(client: u32, port: u16) -> FlowKey {
        FlowKey {
            src: Ip::v4(client),
            dst: Ip::v4(0xc000_0201),
            src_port: port,
            dst_port: 80,
            tenant: TenantId(0),
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn display_reads_like_a_flow() {
        assert_eq!(key(0x0a00_0001, 5555).to_string(), "10.0.0.1:5555 -> 192.0.2.1:80/tcp");
        assert_eq!(key(0x0a00_0001, 5555).reversed().to_string(), "192.0.2.1:80 -> 10.0.0.1:5555/tcp");
    }

    /// Sequential clients and ports, the worst natural input, must spread about like random ones: over
    /// 2^16 bins, 2^20 keys give a chi-squared that is at most a quarter above a random function's.
    #[test]
    fn sequential_keys_spread_evenly_in_high_and_low_bits() {
        let poor_seeds = [FlowHasher::seeded([0; 4]), FlowHasher::seeded([1, 2, 3, 4])];
        for hasher in [&[HASHER], &poor_seeds[..]].concat() {
            for (shift, local) in [(0, false), (48, false), (0, true), (48, true)] {
                let mut bins = vec![0u32; 1 << 16];
                for client in 0..1024u32 {
                    for port in 0..1024u16 {
                        let key = key(0x0a00_0000 + client, 1024 + port);
                        let hash = if local { hasher.local_key(&key) } else { hasher.key(&key) };
                        bins[(hash >> shift) as usize & 0xffff] += 1;
                    }
                }
                let expected = 16.0;
                let chi2: f64 = bins.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
                assert!(chi2 < 1.25 * 65535.0, "shift {shift}: chi-squared {chi2}");
            }
        }
    }

    #[test]
    fn every_field_reaches_the_hash() {
        let base = key(0x0a00_0001, 5555);
        let hash = HASHER.key(&base);
        let others = [
            FlowKey { src: Ip::v4(1), ..base },
            FlowKey { dst: Ip::v4(1), ..base },
            FlowKey { src_port: 1, ..base },
            FlowKey { dst_port: 1, ..base },
            FlowKey { tenant: TenantId(1), ..base },
            FlowKey { protocol: Protocol::Udp, ..base },
            base.reversed(),
        ];
        assert!(others.iter().all(|other| HASHER.key(other) != hash));
        assert!(others.iter().all(|other| HASHER.local_key(other) != HASHER.local_key(&base)));
    }
}
