//! Everything that changes in a plain packet on its way through, in one pass: the same as
//! [`super::translate`], [`super::decrement_ttl`] and [`super::set_link`] one after the other, which a test
//! holds it to, with one fold per checksum (RFC 1624 equation 3).

use super::End;
use crate::addr::{Ip, MacAddr};
use crate::flow::Protocol;
use crate::wire::plain::{Address, IPV4_MIN, IPV6_MIN, L3, L4_OF_IPV4, L4_OF_IPV6, Plain, V4, V6, fold};
use crate::wire::{ipv4, ipv6, tcp, udp};

/// What becomes of a plain packet of a family.
pub trait Forward: Address {
    /// Makes a frame leave from one MAC address (a [`MacAddr::to_word`]) for another, one hop older, with
    /// another address and port at one end if `end` says so, its checksums brought along. The address must be
    /// of the packet's family. A frame that is too short for what `plain` says stays as it is.
    fn forward(frame: &mut [u8], plain: &Plain<Self>, end: Option<(End, Ip, u16)>, to: MacAddr, from: u64);
}

impl Forward for V4 {
    #[inline(always)] // As nearly every packet comes here.
    fn forward(frame: &mut [u8], plain: &Plain<V4>, end: Option<(End, Ip, u16)>, to: MacAddr, from: u64) {
        let Some(head) = frame.first_chunk_mut::<IPV4_MIN>() else { return };
        write_link(head, to, from);
        let mut delta = 0;
        if let Some((end, ip, port)) = end {
            let (at, old, port_at, old_port) = match end {
                End::Source => (L3 + ipv4::SRC, plain.src.0, L4_OF_IPV4, plain.src_port),
                End::Destination => (L3 + ipv4::DST, plain.dst.0, L4_OF_IPV4 + 2, plain.dst_port),
            };
            delta = u64::from(!old) + u64::from(ip.low32());
            store(head, at, ip.low32().to_be_bytes());
            store(head, port_at, port.to_be_bytes());
            let of_ports = u64::from(!old_port) + u64::from(port);
            adjust_transport(head, L4_OF_IPV4, plain.protocol, delta + of_ports);
        }
        head[L3 + ipv4::TTL] = plain.ttl.wrapping_sub(1);
        adjust(head, L3 + ipv4::CHECKSUM, delta + TTL_DELTA);
    }
}

impl Forward for V6 {
    #[inline]
    fn forward(frame: &mut [u8], plain: &Plain<V6>, end: Option<(End, Ip, u16)>, to: MacAddr, from: u64) {
        let Some(head) = frame.first_chunk_mut::<IPV6_MIN>() else { return };
        write_link(head, to, from);
        if let Some((end, ip, port)) = end {
            let (at, old, port_at, old_port) = match end {
                End::Source => (L3 + ipv6::SRC, plain.src.0, L4_OF_IPV6, plain.src_port),
                End::Destination => (L3 + ipv6::DST, plain.dst.0, L4_OF_IPV6 + 2, plain.dst_port),
            };
            store(head, at, ip.octets());
            store(head, port_at, port.to_be_bytes());
            let halves = |word: u64| (word >> 32) + (word & 0xffff_ffff);
            let ([a, b], [c, d]) = (old.words(), ip.words());
            let addresses = halves(!a) + halves(!b) + halves(c) + halves(d);
            let of_ports = u64::from(!old_port) + u64::from(port);
            adjust_transport(head, L4_OF_IPV6, plain.protocol, addresses + of_ports);
        }
        head[L3 + ipv6::HOP_LIMIT] = plain.ttl.wrapping_sub(1);
    }
}

/// Both addresses, by two stores.
#[inline(always)]
fn write_link<const N: usize>(head: &mut [u8; N], to: MacAddr, from: u64) {
    store(head, 0, (to.to_word() | from << 48).to_le_bytes());
    store(head, 8, ((from >> 16) as u32).to_le_bytes());
}

/// What taking one from a TTL does to the checksum: `~m + m'` where `m' = m - 0x0100`.
const TTL_DELTA: u64 = 0xffff - 0x0100;

#[inline(always)]
fn adjust_transport<const N: usize>(head: &mut [u8; N], l4: usize, protocol: Protocol, delta: u64) {
    match protocol {
        Protocol::Tcp => _ = adjust(head, l4 + tcp::CHECKSUM, delta),
        Protocol::Udp => {
            let at = l4 + udp::CHECKSUM;
            // 0 means that there is none.
            if [head[at], head[at + 1]] != [0; 2] {
                let new = adjust(head, at, delta);
                store(head, at, udp::nonzero(new).to_be_bytes());
            }
        }
    }
}

/// Brings the checksum at `at` along, and says what it is now.
#[inline(always)]
fn adjust<const N: usize>(head: &mut [u8; N], at: usize, delta: u64) -> u16 {
    let old = u16::from_be_bytes([head[at], head[at + 1]]);
    let new = !fold(delta + u64::from(!old));
    store(head, at, new.to_be_bytes());
    new
}

#[inline(always)]
fn store<const N: usize, const M: usize>(head: &mut [u8; N], at: usize, bytes: [u8; M]) {
    if let Some(field) = head.get_mut(at..at + M) {
        field.copy_from_slice(&bytes);
    }
}
