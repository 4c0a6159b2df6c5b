//! A pattern: `rte_flow_item`s without pointers.

/// A protocol header that can be matched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Layer {
    /// Ethernet II: 14 bytes.
    Eth,
    /// One 802.1Q tag: TCI and the type that follows it, 4 bytes.
    Vlan,
    /// IPv4 without options: 20 bytes.
    Ipv4,
    /// IPv6's fixed header: 40 bytes.
    Ipv6,
    /// TCP without options: 20 bytes.
    Tcp,
    /// UDP: 8 bytes.
    Udp,
    /// ICMP: type, code, checksum, identifier, sequence: 8 bytes.
    Icmp,
    /// ICMPv6: type, code, checksum: 4 bytes.
    Icmp6,
    /// VXLAN (RFC 7348): 8 bytes.
    Vxlan,
    /// GENEVE (RFC 8926) without options: 8 bytes.
    Geneve,
    /// GRE (RFC 2784): flags and protocol, 4 bytes.
    Gre,
    /// The key that follows a GRE header with K set (RFC 2890): 4 bytes.
    GreKey,
}

impl Layer {
    /// Bytes of `spec`, `last` and `mask`.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Layer::Eth => 14,
            Layer::Vlan | Layer::Gre | Layer::GreKey | Layer::Icmp6 => 4,
            Layer::Ipv4 | Layer::Tcp => 20,
            Layer::Ipv6 => 40,
            Layer::Udp | Layer::Icmp | Layer::Vxlan | Layer::Geneve => 8,
        }
    }

    /// What DPDK takes for `mask` when only `spec` is given: `rte_flow_item_*_mask` of 22.11.
    #[must_use]
    pub const fn default_mask(self) -> &'static [u8] {
        const ETH: [u8; 14] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
        const IPV4: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255];
        const IPV6: [u8; 40] = {
            let mut mask = [0xff; 40];
            let mut at = 0;
            while at < 8 {
                mask[at] = 0;
                at += 1;
            }
            mask
        };
        const TCP: [u8; 20] = [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        match self {
            Layer::Eth => &ETH,
            // PCP and DEI are left out.
            Layer::Vlan => &[0x0f, 0xff, 0, 0],
            Layer::Ipv4 => &IPV4,
            Layer::Ipv6 => &IPV6,
            Layer::Tcp => &TCP,
            Layer::Udp => &[255, 255, 255, 255, 0, 0, 0, 0],
            Layer::Icmp => &[255, 255, 0, 0, 0, 0, 0, 0],
            Layer::Icmp6 => &[255, 255, 0, 0],
            Layer::Vxlan | Layer::Geneve => &[0, 0, 0, 0, 255, 255, 255, 0],
            Layer::Gre => &[0, 0, 255, 255],
            Layer::GreKey => &[255, 255, 255, 255],
        }
    }

    /// Its name in testpmd's flow commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Layer::Eth => "eth",
            Layer::Vlan => "vlan",
            Layer::Ipv4 => "ipv4",
            Layer::Ipv6 => "ipv6",
            Layer::Tcp => "tcp",
            Layer::Udp => "udp",
            Layer::Icmp => "icmp",
            Layer::Icmp6 => "icmp6",
            Layer::Vxlan => "vxlan",
            Layer::Geneve => "geneve",
            Layer::Gre => "gre",
            Layer::GreKey => "gre_key",
        }
    }
}

/// One header of a pattern. `spec`, `last` and `mask` are the header's bytes as on the wire, each
/// [`Layer::bytes`] long; none of them: any such header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// Which header.
    pub layer: Layer,
    /// The values (the lower ends of ranges, if there is `last`).
    pub spec: Option<&'a [u8]>,
    /// The upper ends of ranges.
    pub last: Option<&'a [u8]>,
    /// The bits that count; without it and with `spec`, [`Layer::default_mask`].
    pub mask: Option<&'a [u8]>,
    /// `has_vlan` of eth, `has_more_vlan` of vlan, `has_frag_ext` of ipv6: `Some` if the item's mask has the
    /// bit.
    pub followed: Option<bool>,
}

impl<'a> Header<'a> {
    /// Any header of this layer.
    #[must_use]
    pub const fn any(layer: Layer) -> Header<'a> {
        Header { layer, spec: None, last: None, mask: None, followed: None }
    }

    /// This value under this mask.
    #[must_use]
    pub const fn masked(layer: Layer, spec: &'a [u8], mask: &'a [u8]) -> Header<'a> {
        Header { layer, spec: Some(spec), last: None, mask: Some(mask), followed: None }
    }

    /// The mask in force: empty if nothing but the header's presence counts.
    #[must_use]
    pub fn effective_mask(&self) -> &'a [u8] {
        match (self.spec, self.mask) {
            (None, _) => &[],
            (Some(_), Some(mask)) => mask,
            (Some(_), None) => self.layer.default_mask(),
        }
    }
}

/// One element of a pattern. `void` and `end` have no counterpart: they are gone by now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// A protocol header.
    Header(Header<'a>),
    /// Traffic from the entity represented by this ethdev.
    RepresentedPort {
        /// The ethdev; `None`: no `spec`.
        port_id: Option<u16>,
        /// The bits that count.
        mask: u16,
    },
    /// Traffic sent by this ethdev: by the eSwitch manager.
    PortRepresentor {
        /// The ethdev; `None`: no `spec`.
        port_id: Option<u16>,
        /// The bits that count.
        mask: u16,
    },
    /// The deprecated `port_id` item: as `represented_port`.
    PortId {
        /// The ethdev; `None`: no `spec`.
        port_id: Option<u32>,
        /// The bits that count.
        mask: u32,
    },
    /// A register set by an earlier rule's `set_tag`.
    Tag {
        /// Which register.
        index: u8,
        /// The value.
        data: u32,
        /// The bits that count.
        mask: u32,
    },
    /// Metadata set by an earlier rule or by the application on transmit.
    Meta {
        /// The value.
        data: u32,
        /// The bits that count.
        mask: u32,
    },
    /// The mark set by an earlier rule.
    Mark {
        /// The value.
        id: u32,
        /// The bits that count.
        mask: u32,
    },
    /// The colour a meter gave.
    MeterColour {
        /// The colour (`rte_color`).
        colour: u8,
        /// The bits that count.
        mask: u8,
    },
    /// Any other item: its `rte_flow_item_type`.
    Other(i32),
}
