//! The common rewrite: constants into the outermost MACs, addresses, ports and TTL, all in one block.
//!
//! What a NAT rule does, hence what nearly all rules of a million do: it is small, needs no memory of its own
//! for IPv4, and is done in one pass over the headers. Everything else is a [`Command`](super::command).

use dataplane::prefetch::prefetch;

use super::checksum::Delta;
use crate::model::key::{Fragment, Headers, L3, L4, Stack};

/// What a [`Block`] writes, and what it needs a packet to be.
pub(super) mod what {
    pub(in super::super) const MAC_DST: u16 = 1;
    pub(in super::super) const MAC_SRC: u16 = 1 << 1;
    pub(in super::super) const SRC: u16 = 1 << 2;
    pub(in super::super) const DST: u16 = 1 << 3;
    pub(in super::super) const PORT_SRC: u16 = 1 << 4;
    pub(in super::super) const PORT_DST: u16 = 1 << 5;
    pub(in super::super) const TTL: u16 = 1 << 6;
    /// Only IPv4 will do.
    pub(in super::super) const IPV4: u16 = 1 << 7;
    /// Only IPv6 will do.
    pub(in super::super) const IPV6: u16 = 1 << 8;
    /// Only TCP will do.
    pub(in super::super) const TCP: u16 = 1 << 9;
    /// Only UDP will do.
    pub(in super::super) const UDP: u16 = 1 << 10;

    pub(super) const MACS: u16 = MAC_DST | MAC_SRC;
    pub(super) const ADDRESSES: u16 = SRC | DST;
    pub(super) const PORTS: u16 = PORT_SRC | PORT_DST;
    pub(super) const BEYOND_L2: u16 = ADDRESSES | PORTS | TTL | IPV4 | IPV6 | TCP | UDP;
}

/// Constants to write. `A`: an address' bytes, 4 or 16; with 4 and no address it does IPv6 as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(super) struct Block<const A: usize> {
    /// Of [`what`].
    pub(super) what: u16,
    /// Destination and source, as on the wire.
    pub(super) macs: [u8; 12],
    pub(super) src: [u8; A],
    pub(super) dst: [u8; A],
    /// Source and destination.
    pub(super) ports: [u8; 4],
    /// `ttl & ttl_keep + ttl_add`, wrapping: a constant, a difference, or one after the other.
    pub(super) ttl_keep: u8,
    pub(super) ttl_add: u8,
}

impl<const A: usize> Block<A> {
    /// Asks for all of it: it may lie across two cache lines.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch(&self.what);
        prefetch(&self.ttl_add);
    }

    /// Rewrites the outermost headers; `None` if the packet lacks one that is needed.
    #[inline]
    pub(super) fn apply(&self, frame: &mut [u8], headers: &Headers) -> Option<()> {
        let stack = &headers.outer;
        if self.what & what::MACS != 0 {
            self.ethernet(frame, stack)?;
        }
        if self.what & what::BEYOND_L2 == 0 {
            return Some(());
        }
        let (network, transport) = frame.split_at_mut_checked(usize::from(stack.l4_at))?;
        let network = network.get_mut(usize::from(stack.l3_at)..)?;
        let pseudo_header = match stack.l3 {
            L3::Ipv4 => self.ipv4(network)?,
            L3::Ipv6 => self.ipv6(network)?,
            L3::None => return None,
        };
        self.transport(transport, stack, pseudo_header)
    }

    #[inline]
    fn ethernet(&self, frame: &mut [u8], stack: &Stack) -> Option<()> {
        if !stack.has_l2 {
            return None;
        }
        let macs: &mut [u8; 12] = frame.get_mut(usize::from(stack.l2)..)?.first_chunk_mut()?;
        if self.what & what::MAC_DST != 0 {
            macs[..6].copy_from_slice(&self.macs[..6]);
        }
        if self.what & what::MAC_SRC != 0 {
            macs[6..].copy_from_slice(&self.macs[6..]);
        }
        Some(())
    }

    /// What changed that the transport's checksum covers.
    #[inline]
    fn ipv4(&self, network: &mut [u8]) -> Option<Delta> {
        let header: &mut [u8; 20] = network.first_chunk_mut()?;
        let mut pseudo_header = Delta::default();
        if self.what & what::IPV6 != 0 {
            return None;
        }
        if self.what & what::SRC != 0 {
            write32(&mut header[12..16], self.src.first_chunk()?, &mut pseudo_header)?;
        }
        if self.what & what::DST != 0 {
            write32(&mut header[16..20], self.dst.first_chunk()?, &mut pseudo_header)?;
        }
        let mut changed = pseudo_header;
        if self.what & what::TTL != 0 {
            let ttl = header[8];
            header[8] = self.ttl(ttl);
            changed.change16(u16::from(ttl) << 8, u16::from(header[8]) << 8);
        }
        if self.what & (what::ADDRESSES | what::TTL) != 0 {
            let checksum = changed.onto(u16::from_be_bytes([header[10], header[11]]));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        Some(pseudo_header)
    }

    #[inline]
    fn ipv6(&self, network: &mut [u8]) -> Option<Delta> {
        let header: &mut [u8; 40] = network.first_chunk_mut()?;
        let mut pseudo_header = Delta::default();
        if self.what & what::IPV4 != 0 {
            return None;
        }
        if self.what & what::SRC != 0 {
            write128(&mut header[8..24], self.src.first_chunk()?, &mut pseudo_header)?;
        }
        if self.what & what::DST != 0 {
            write128(&mut header[24..40], self.dst.first_chunk()?, &mut pseudo_header)?;
        }
        if self.what & what::TTL != 0 {
            header[7] = self.ttl(header[7]);
        }
        Some(pseudo_header)
    }

    #[inline]
    fn ttl(&self, ttl: u8) -> u8 {
        (ttl & self.ttl_keep).wrapping_add(self.ttl_add)
    }

    /// Ports, and the checksum over them and over `pseudo_header`.
    #[inline]
    fn transport(&self, transport: &mut [u8], stack: &Stack, mut changed: Delta) -> Option<()> {
        if self.what & (what::ADDRESSES | what::PORTS | what::TCP | what::UDP) == 0 {
            return Some(());
        }
        match stack.l4 {
            _ if stack.fragment == Fragment::Later => {}
            L4::Tcp if self.what & what::UDP == 0 => {
                let header: &mut [u8; 20] = transport.first_chunk_mut()?;
                self.ports(header.first_chunk_mut()?, &mut changed);
                let checksum = changed.onto(u16::from_be_bytes([header[16], header[17]]));
                header[16..18].copy_from_slice(&checksum.to_be_bytes());
                return Some(());
            }
            L4::Udp if self.what & what::TCP == 0 => {
                let header: &mut [u8; 8] = transport.first_chunk_mut()?;
                self.ports(header.first_chunk_mut()?, &mut changed);
                let checksum = changed.onto_udp(u16::from_be_bytes([header[6], header[7]]));
                header[6..8].copy_from_slice(&checksum.to_be_bytes());
                return Some(());
            }
            _ => {}
        }
        (self.what & (what::PORTS | what::TCP | what::UDP) == 0).then_some(())
    }

    #[inline]
    fn ports(&self, ports: &mut [u8; 4], changed: &mut Delta) {
        if self.what & what::PORTS == 0 {
            return;
        }
        let mut new = *ports;
        if self.what & what::PORT_SRC != 0 {
            new[..2].copy_from_slice(&self.ports[..2]);
        }
        if self.what & what::PORT_DST != 0 {
            new[2..].copy_from_slice(&self.ports[2..]);
        }
        changed.change32(u32::from_be_bytes(*ports), u32::from_be_bytes(new));
        *ports = new;
    }
}

#[inline]
fn write32(to: &mut [u8], new: &[u8; 4], changed: &mut Delta) -> Option<()> {
    let to: &mut [u8; 4] = to.first_chunk_mut()?;
    changed.change32(u32::from_be_bytes(*to), u32::from_be_bytes(*new));
    *to = *new;
    Some(())
}

#[inline]
fn write128(to: &mut [u8], new: &[u8; 16], changed: &mut Delta) -> Option<()> {
    for (to, new) in to.chunks_exact_mut(4).zip(new.chunks_exact(4)) {
        write32(to, new.first_chunk()?, changed)?;
    }
    Some(())
}
