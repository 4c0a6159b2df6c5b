//! IP and MAC addresses in the form the packet path compares, hashes and stores.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address as two words; IPv4 is kept in its IPv4-mapped form (RFC 4291 §2.5.5.2), so
/// one comparison and one hash serve both families.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct Ip {
    hi: u64,
    lo: u64,
}

const V4_MAPPED: u64 = 0x0000_ffff_0000_0000;

impl Ip {
    /// An IPv4 address from its value in host order: `192.0.2.1` is `0xc000_0201`.
    #[inline]
    #[must_use]
    pub const fn v4(addr: u32) -> Ip {
        Ip { hi: 0, lo: V4_MAPPED | addr as u64 }
    }

    /// An IPv6 address from its 16 bytes on the wire.
    #[inline]
    #[must_use]
    pub const fn v6(octets: [u8; 16]) -> Ip {
        let value = u128::from_be_bytes(octets);
        Ip { hi: (value >> 64) as u64, lo: value as u64 }
    }

    /// Whether this is an IPv4 address. An IPv6 packet that carries an IPv4-mapped address is refused
    /// by the parser (such addresses must not appear on the wire, RFC 6890), so the two cannot meet.
    #[inline]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        self.hi == 0 && self.lo >> 32 == V4_MAPPED >> 32
    }

    /// The low 32 bits: the IPv4 address in host order, if [`Ip::is_v4`].
    #[inline]
    #[must_use]
    pub const fn low32(self) -> u32 {
        self.lo as u32
    }

    /// The address's 16 bytes (IPv4 in mapped form).
    #[inline]
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        (((self.hi as u128) << 64) | self.lo as u128).to_be_bytes()
    }

    /// Both words, for hashing and for compact storage.
    #[inline]
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        [self.hi, self.lo]
    }

    /// The inverse of [`Ip::words`].
    #[inline]
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Ip {
        Ip { hi: words[0], lo: words[1] }
    }
}

impl From<Ipv4Addr> for Ip {
    fn from(addr: Ipv4Addr) -> Ip {
        Ip::v4(addr.to_bits())
    }
}

impl From<Ipv6Addr> for Ip {
    fn from(addr: Ipv6Addr) -> Ip {
        Ip::v6(addr.octets())
    }
}

impl From<IpAddr> for Ip {
    fn from(addr: IpAddr) -> Ip {
        match addr {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> IpAddr {
        if ip.is_v4() { Ipv4Addr::from_bits(ip.low32()).into() } else { Ipv6Addr::from(ip.octets()).into() }
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A prefix such as `10.0.0.0/8` or `2001:db8::/32`. Host bits are kept: `contains` ignores them, so a
/// port's own address and its network can be one value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    /// The address as written.
    pub address: Ip,
    /// Prefix length, 0..=32 for IPv4 and 0..=128 for IPv6.
    pub length: u8,
}

impl Prefix {
    /// Whether `ip` is of the same family and within this prefix.
    #[inline]
    #[must_use]
    pub fn contains(&self, ip: Ip) -> bool {
        if ip.is_v4() != self.address.is_v4() {
            return false;
        }
        let bits = u32::from(self.length) + if ip.is_v4() { 96 } else { 0 };
        let (a, b) = (u128::from_be_bytes(self.address.octets()), u128::from_be_bytes(ip.octets()));
        bits == 0 || (a ^ b) >> (128 - bits) == 0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// The address in the low 48 bits, its first byte lowest: as a little-endian load of a frame has it.
    #[inline]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// Whether the group bit is set (broadcast included).
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ip {
        text.parse::<IpAddr>().expect("test address").into()
    }

    #[test]
    fn families_do_not_meet() {
        assert!(ip("192.0.2.1").is_v4());
        assert!(!ip("2001:db8::1").is_v4());
        assert!(!ip("::").is_v4());
        assert_eq!(ip("192.0.2.1").low32(), 0xc000_0201);
        assert_eq!(ip("192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(ip("2001:db8::1").to_string(), "2001:db8::1");
        assert_eq!(Ip::from_words(ip("2001:db8::1").words()), ip("2001:db8::1"));
    }

    #[test]
    fn prefixes_contain_their_hosts_only() {
        let v4 = Prefix { address: ip("10.1.2.3"), length: 24 };
        assert!(v4.contains(ip("10.1.2.255")) && !v4.contains(ip("10.1.3.0")));
        assert!(!v4.contains(ip("::ffff:0:0")) || ip("::ffff:0:0").is_v4());
        let all4 = Prefix { address: ip("0.0.0.0"), length: 0 };
        assert!(all4.contains(ip("255.255.255.255")) && !all4.contains(ip("2001:db8::1")));
        let all6 = Prefix { address: ip("::"), length: 0 };
        assert!(all6.contains(ip("2001:db8::1")) && !all6.contains(ip("10.0.0.1")));
        let host = Prefix { address: ip("2001:db8::1"), length: 128 };
        assert!(host.contains(ip("2001:db8::1")) && !host.contains(ip("2001:db8::2")));
    }
}
