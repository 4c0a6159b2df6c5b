//! A tunnel's headers, as testpmd is told them: `set raw_encap`.
//!
//! What testpmd fills in itself is left out: EtherTypes, IP's version, and the flags of VXLAN. It has no word
//! for GUE, whose four bytes are said as a GRE key, which is four bytes as well.

use core::fmt::{self, Display, Formatter};
use core::net::{Ipv4Addr, Ipv6Addr};
use dataplane::addr::MacAddr;
use dataplane::wire::{ether, ipv4, udp, vlan};

/// The commands that set up what `raw_encap index 0`, and `raw_decap index 0` before it, stand for: a line
/// each.
pub(super) struct Headers<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) decap: bool,
    /// What is taken off is a tunnel.
    pub(super) geneve: bool,
}

impl Display for Headers<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.geneve {
            f.write_str("set raw_decap 0 eth / ipv4 / udp / geneve / end_set\n")?;
        }
        if self.bytes.is_empty() {
            return Ok(());
        }
        if self.decap {
            f.write_str("set raw_decap 0 eth / end_set\n")?;
        }
        f.write_str("set raw_encap 0")?;
        let mut layers = Layers { f, rest: self.bytes };
        // Headers that are not whole are no tunnel's; what there is of them is printed.
        let _ = layers.link()?;
        f.write_str(" end_set\n")
    }
}

struct Layers<'a, 'f, 'b> {
    f: &'f mut Formatter<'b>,
    rest: &'a [u8],
}

/// Written, if there was such a header.
type Written = Result<Option<()>, fmt::Error>;

impl Layers<'_, '_, '_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*head)
    }

    fn link(&mut self) -> Written {
        let Some(head) = self.take::<{ ether::LEN }>() else { return Ok(None) };
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, high, low] = head;
        let (dst, src) = (MacAddr([d0, d1, d2, d3, d4, d5]), MacAddr([s0, s1, s2, s3, s4, s5]));
        write!(self.f, " eth dst is {dst} src is {src} /")?;
        let mut ether_type = u16::from_be_bytes([high, low]);
        if vlan::is_tpid(ether_type) {
            let Some([a, b, c, d]) = self.take() else { return Ok(None) };
            let vid = u16::from_be_bytes([a, b]) & 0x0fff;
            ether_type = u16::from_be_bytes([c, d]);
            write!(self.f, " vlan vid is {vid} inner_type is {ether_type:#x} /")?;
        }
        if ether_type == ether::IPV4 { self.v4() } else { self.v6() }
    }

    fn v4(&mut self) -> Written {
        let Some(head) = self.take::<{ ipv4::LEN }>() else { return Ok(None) };
        let [_, tos, _, _, _, _, high, low, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = head;
        let (src, dst) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
        let fragment = u16::from_be_bytes([high, low]);
        write!(self.f, " ipv4 tos is {tos} fragment_offset is {fragment} ttl is {ttl} proto is {protocol}")?;
        write!(self.f, " src is {src} dst is {dst} /")?;
        self.datagram(protocol)
    }

    fn v6(&mut self) -> Written {
        let Some([a, b, c, d, _, _, protocol, hops]) = self.take() else { return Ok(None) };
        let word = u32::from_be_bytes([a, b, c, d]);
        let (class, flow) = (word >> 20 & 0xff, word & 0xf_ffff);
        let (Some(src), Some(dst)) = (self.take::<16>(), self.take::<16>()) else { return Ok(None) };
        let (src, dst) = (Ipv6Addr::from(src), Ipv6Addr::from(dst));
        write!(self.f, " ipv6 tc is {class} flow is {flow} proto is {protocol} hop is {hops}")?;
        write!(self.f, " src is {src} dst is {dst} /")?;
        self.datagram(protocol)
    }

    fn datagram(&mut self, protocol: u8) -> Written {
        if protocol != udp::PROTOCOL {
            return Ok(Some(()));
        }
        let Some([s0, s1, d0, d1, ..]) = self.take::<{ udp::LEN }>() else { return Ok(None) };
        let (src, dst) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
        write!(self.f, " udp src is {src} dst is {dst} /")?;
        match *self.rest {
            // VXLAN's first byte says that there is a number; GENEVE's says its version, 0.
            [0, _, high, low, v0, v1, v2, _] => {
                let (vni, inner) = (u32::from_be_bytes([0, v0, v1, v2]), u16::from_be_bytes([high, low]));
                write!(self.f, " geneve vni is {vni} protocol is {inner:#x} /")?;
            }
            [_, _, _, _, v0, v1, v2, _] => {
                write!(self.f, " vxlan vni is {} /", u32::from_be_bytes([0, v0, v1, v2]))?;
            }
            [a, b, c, d] => write!(self.f, " gre_key value is {} /", u32::from_be_bytes([a, b, c, d]))?,
            _ => {}
        }
        Ok(Some(()))
    }
}
