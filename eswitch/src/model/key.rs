//! A packet as words: everything a pattern can ask about it, at fixed places, to be masked and compared.

/// Words in a key.
pub const KEY_WORDS: usize = 24;

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
    /// The first: its transport header is here, but mlx5 does not match it ("fragments do not match L4").
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
    /// 802.1Q and 802.1ad tags, 0 to 2 (further ones end parsing).
    pub vlans: u8,
    /// The network layer.
    pub l3: L3,
    /// Where it begins.
    pub l3_at: u16,
    /// The transport.
    pub l4: L4,
    /// Where it begins.
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
