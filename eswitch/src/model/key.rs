//! A packet as words: everything a pattern can ask about it, at fixed places, to be masked and compared.
//!
//! [`parse`] finds the headers, [`Key::extract`] gathers their fields; `layout` says which bit is what.
//! Fields that exclude each other (IPv4 and IPv6 addresses, TCP ports and ICMP types) share a place: a
//! pattern always says which of them it means through the first word. Where a packet lacks a header, its
//! fields are 0.

use super::types::{Colour, Vport};

mod extract;
#[cfg(test)]
pub(super) mod frames;
pub(super) mod layout;
mod parse;
#[cfg(test)]
mod tests;

pub use parse::parse;

/// Words in a key: three cache lines.
pub const KEY_WORDS: usize = 24;

/// Registers that `set_tag` writes.
pub const TAGS: usize = 8;

/// What is known of a packet, or a value or mask over it. Registers and the source are part of it, so that
/// they are matched like any header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(64))]
pub struct Key {
    /// The words; their meaning is this module's business.
    pub words: [u64; KEY_WORDS],
}

/// A pattern, lowered: a key matches if `key & mask == value`. `value & !mask == 0`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Match {
    /// The bits that count.
    pub mask: Key,
    /// What they must be.
    pub value: Key,
}

impl Match {
    /// Whether a packet fits. This is the definition; [`classifier`](super::classifier) is faster.
    #[must_use]
    pub fn matches(&self, key: &Key) -> bool {
        let words = key.words.iter().zip(&self.mask.words).zip(&self.value.words);
        words.fold(0, |differing, ((key, mask), value)| differing | ((key & mask) ^ value)) == 0
    }
}

/// What a packet carries besides its bytes: where it came from, and what rules have noted on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registers {
    /// The vport that it came from; of a packet from the eSwitch manager, the one whose representor sent it.
    pub source: Vport,
    /// Sent by the application through a representor. Such a packet is of no vport: patterns that name one do
    /// not match it.
    pub from_manager: bool,
    /// `set_tag`'s.
    pub tags: [u32; TAGS],
    /// `set_meta`'s.
    pub meta: u32,
    /// `mark`'s and `flag`'s. A pattern sees none as 0.
    pub mark: Option<u32>,
    /// The last meter's verdict.
    pub colour: Colour,
}

impl Registers {
    /// Those of a packet that enters the switch.
    #[must_use]
    pub const fn from(source: Vport, from_manager: bool) -> Registers {
        Registers { source, from_manager, tags: [0; TAGS], meta: 0, mark: None, colour: Colour::Green }
    }
}

/// What the network layer is, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum L3 {
    /// Neither.
    #[default]
    None,
    /// IPv4; options make the header longer than 20 bytes.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// What the transport is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum L4 {
    /// None that is matched, or not to be read: a later fragment, a truncated header.
    #[default]
    None,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP.
    Icmp,
    /// ICMPv6.
    Icmp6,
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fragment {
    /// It is whole.
    #[default]
    Whole,
    /// The first: its transport header is here, but mlx5 does not match it ("fragments do not match L4"). So
    /// counts an IPv6 packet whose fragment header says that it is whole.
    First,
    /// A later one.
    Later,
}

/// One stack of headers: where each begins, in bytes from the frame's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stack {
    /// The Ethernet header; meaningless without `has_l2` (GRE carrying IP).
    pub l2: u16,
    /// Whether there is an Ethernet header.
    pub has_l2: bool,
    /// 802.1Q and 802.1ad tags (0x8100, 0x88a8, 0x9100), 0 to 2 (further ones end parsing).
    pub vlans: u8,
    /// The network layer.
    pub l3: L3,
    /// Where it begins.
    pub l3_at: u16,
    /// The protocol behind the network layer: of IPv6, behind its extension headers. 0 without one.
    pub protocol: u8,
    /// The transport.
    pub l4: L4,
    /// Where it begins; whatever it is, where the network layer's headers end.
    pub l4_at: u16,
    /// Fragmentation.
    pub fragment: Fragment,
}

/// A tunnel's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TunnelKind {
    /// VXLAN, UDP port 4789.
    Vxlan,
    /// GENEVE, UDP port 6081.
    Geneve,
    /// GRE, IP protocol 47; NVGRE-like with an inner Ethernet header (0x6558), or IP.
    Gre,
}

/// Where a packet's headers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Headers {
    /// The outermost.
    pub outer: Stack,
    /// The tunnel and where its header begins.
    pub tunnel: Option<(TunnelKind, u16)>,
    /// Behind the tunnel's header; default without a tunnel.
    pub inner: Stack,
}
