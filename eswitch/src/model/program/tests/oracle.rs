//! A slow and obvious model of packets: built from their fields, with every checksum computed in full.

use proptest::prelude::*;

use crate::model::key::{Fragment, L3, L4, Stack, TunnelKind, parse};

/// RFC 1071, over everything.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = sum % 0x1_0000 + sum / 0x1_0000;
    }
    !(sum as u16)
}

/// A network address pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp {
        seq: u32,
        ack: u32,
        flags: u8,
    },
    /// `sum`: with a checksum.
    Udp {
        sum: bool,
    },
    Icmp,
    Other(u8),
}

/// A packet as fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) dst: [u8; 6],
    pub(super) src: [u8; 6],
    pub(super) vlans: Vec<u16>,
    pub(super) addresses: Addresses,
    /// DSCP and ECN.
    pub(super) tos: u8,
    pub(super) ttl: u8,
    /// IPv4: flags and offset.
    pub(super) fragment: u16,
    /// Multiples of four bytes.
    pub(super) options: Vec<u8>,
    pub(super) transport: Transport,
    pub(super) ports: (u16, u16),
    pub(super) payload: Vec<u8>,
}

impl Spec {
    /// A packet of TCP in IPv4.
    pub(super) fn tcp() -> Spec {
        Spec {
            dst: [2, 0, 0, 0, 0, 0xd],
            src: [2, 0, 0, 0, 0, 0x5],
            vlans: Vec::new(),
            addresses: Addresses::V4([10, 0, 0, 1], [192, 0, 2, 2]),
            tos: 0x2c,
            ttl: 64,
            fragment: 0,
            options: Vec::new(),
            transport: Transport::Tcp { seq: 1, ack: 2, flags: 0x18 },
            ports: (1024, 80),
            payload: b"GET / HTTP/1.1".to_vec(),
        }
    }

    /// A packet of UDP in IPv4.
    pub(super) fn udp() -> Spec {
        Spec { transport: Transport::Udp { sum: true }, ports: (53, 5353), ..Spec::tcp() }
    }

    /// The same in IPv6.
    pub(super) fn v6(self) -> Spec {
        let mut address = [0; 16];
        address[..2].copy_from_slice(&[0x20, 1]);
        let mut other = address;
        (address[15], other[15]) = (1, 2);
        Spec { addresses: Addresses::V6(address, other), ..self }
    }

    fn protocol(&self) -> u8 {
        match (self.transport, self.addresses) {
            (Transport::Tcp { .. }, _) => 6,
            (Transport::Udp { .. }, _) => 17,
            (Transport::Icmp, Addresses::V4(..)) => 1,
            (Transport::Icmp, Addresses::V6(..)) => 58,
            (Transport::Other(protocol), _) => protocol,
        }
    }

    /// The network layer's payload.
    fn body(&self) -> Vec<u8> {
        let (from, to) = (self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes());
        let mut body = match self.transport {
            Transport::Tcp { seq, ack, flags } => {
                let rest = [0x50, flags, 0x20, 0, 0, 0, 0, 0];
                [&from[..], &to, &seq.to_be_bytes(), &ack.to_be_bytes(), &rest, &self.payload].concat()
            }
            Transport::Udp { .. } => {
                let len = (8 + self.payload.len() as u16).to_be_bytes();
                [&from[..], &to, &len, &[0, 0], &self.payload].concat()
            }
            Transport::Icmp => [&[8, 0, 0, 0, 1, 2, 3, 4], &self.payload[..]].concat(),
            Transport::Other(_) => self.payload.clone(),
        };
        if self.fragment & 0x1fff != 0 {
            return self.payload.clone();
        }
        let sum = match (self.transport, self.addresses) {
            (Transport::Icmp, Addresses::V4(..)) => checksum(&[&body]),
            _ => checksum(&[&self.pseudo_header(body.len()), &body]),
        };
        match self.transport {
            Transport::Tcp { .. } => body[16..18].copy_from_slice(&sum.to_be_bytes()),
            Transport::Udp { sum: true } if sum == 0 => body[6..8].fill(0xff),
            Transport::Udp { sum: true } => body[6..8].copy_from_slice(&sum.to_be_bytes()),
            Transport::Icmp => body[2..4].copy_from_slice(&sum.to_be_bytes()),
            Transport::Udp { sum: false } | Transport::Other(_) => {}
        }
        body
    }

    fn pseudo_header(&self, len: usize) -> Vec<u8> {
        let len = (len as u32).to_be_bytes();
        let protocol = [0, self.protocol()];
        match self.addresses {
            Addresses::V4(src, dst) => [&src[..], &dst, &protocol, &len[2..]].concat(),
            Addresses::V6(src, dst) => [&src[..], &dst, &len, &[0, 0], &protocol].concat(),
        }
    }

    /// From the network layer on.
    pub(super) fn packet(&self) -> Vec<u8> {
        let body = self.body();
        let mut header = match self.addresses {
            Addresses::V4(src, dst) => {
                let words = 5 + self.options.len() / 4;
                let total = ((words * 4 + body.len()) as u16).to_be_bytes();
                let fragment = self.fragment.to_be_bytes();
                let start = [0x40 | words as u8, self.tos, total[0], total[1], 0x12, 0x34];
                let middle = [fragment[0], fragment[1], self.ttl, self.protocol(), 0, 0];
                let mut header = [&start[..], &middle, &src, &dst, &self.options].concat();
                let sum = checksum(&[&header]).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                header
            }
            Addresses::V6(src, dst) => {
                let len = (body.len() as u16).to_be_bytes();
                let start = [0x60 | self.tos >> 4, self.tos << 4 | 5, 0x43, 0x21, len[0], len[1]];
                [&start[..], &[self.protocol(), self.ttl], &src, &dst].concat()
            }
        };
        header.extend(body);
        header
    }

    /// From Ethernet on.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = [self.dst, self.src].concat();
        for (index, tci) in self.vlans.iter().enumerate() {
            let ethertype: u16 = if index + 1 < self.vlans.len() { 0x88a8 } else { 0x8100 };
            frame.extend(ethertype.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        let ethertype: u16 = if matches!(self.addresses, Addresses::V4(..)) { 0x0800 } else { 0x86dd };
        frame.extend(ethertype.to_be_bytes());
        frame.extend(self.packet());
        frame
    }
}

/// `frame` in VXLAN in this UDP packet.
pub(super) fn vxlan(outer: &Spec, vni: u32, frame: &[u8]) -> Spec {
    let payload = [&[8, 0, 0, 0][..], &(vni << 8).to_be_bytes(), frame].concat();
    Spec { ports: (outer.ports.0, 4789), payload, ..outer.clone() }
}

/// `frame` in GENEVE with eight bytes of options.
pub(super) fn geneve(outer: &Spec, frame: &[u8]) -> Spec {
    let header = [2, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 1, 4, 5, 6, 7];
    Spec { ports: (outer.ports.0, 6081), payload: [&header[..], frame].concat(), ..outer.clone() }
}

/// What follows in GRE with a key.
pub(super) fn gre(outer: &Spec, protocol: u16, rest: &[u8]) -> Spec {
    let payload = [&[0x20, 0][..], &protocol.to_be_bytes(), &[0, 0, 0, 9], rest].concat();
    Spec { transport: Transport::Other(47), payload, ..outer.clone() }
}

/// Of each checksum in the frame, whether it is right: network and transport, outer and inner. `None`: there
/// is none. A first fragment counts as if it were whole: what changes must keep even its sum.
pub(super) fn verdicts(frame: &[u8]) -> [Option<bool>; 4] {
    let headers = parse(frame);
    let udp_tunnel = matches!(headers.tunnel, Some((TunnelKind::Vxlan | TunnelKind::Geneve, _)));
    let outer = [network(frame, &headers.outer), transport(frame, &headers.outer)];
    let inner = [network(frame, &headers.inner), transport(frame, &headers.inner)];
    debug_assert!(!udp_tunnel || headers.outer.l4 == L4::Udp);
    [outer[0], outer[1], inner[0], inner[1]]
}

fn network(frame: &[u8], stack: &Stack) -> Option<bool> {
    let (from, to) = (usize::from(stack.l3_at), usize::from(stack.l4_at));
    (stack.l3 == L3::Ipv4).then(|| checksum(&[&frame[from..to]]) == 0)
}

fn transport(frame: &[u8], stack: &Stack) -> Option<bool> {
    let (network, body) = (&frame[usize::from(stack.l3_at)..], &frame[usize::from(stack.l4_at)..]);
    if stack.fragment == Fragment::Later {
        return None;
    }
    let number = match stack.l4 {
        L4::Tcp => 6,
        L4::Udp if body[6..8] == [0, 0] => return None,
        L4::Udp => 17,
        _ => return None,
    };
    let total = match stack.l3 {
        L3::Ipv4 => usize::from(u16::from_be_bytes([network[2], network[3]])),
        _ => usize::from(u16::from_be_bytes([network[4], network[5]])) + 40,
    };
    let len = total.checked_sub(usize::from(stack.l4_at - stack.l3_at))?;
    let addresses = if stack.l3 == L3::Ipv4 { &network[12..20] } else { &network[8..40] };
    let tail = [&(len as u32).to_be_bytes()[..], &[0, number]].concat();
    Some(checksum(&[addresses, &tail, body.get(..len)?]) == 0)
}

prop_compose! {
    fn addresses()(v6: bool, a: [u8; 16], b: [u8; 16]) -> Addresses {
        let short = |address: [u8; 16]| [address[0], address[1], address[2], address[3]];
        if v6 { Addresses::V6(a, b) } else { Addresses::V4(short(a), short(b)) }
    }
}

fn any_transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        4 => any::<(u32, u32, u8)>().prop_map(|(seq, ack, flags)| Transport::Tcp { seq, ack, flags }),
        4 => any::<bool>().prop_map(|sum| Transport::Udp { sum }),
        1 => Just(Transport::Icmp),
        1 => Just(Transport::Other(132)),
    ]
}

prop_compose! {
    /// Any packet without a tunnel: tags, options, fragments, both families.
    pub(super) fn plain()(
        macs: ([u8; 6], [u8; 6]),
        vlans in prop::collection::vec(any::<u16>(), 0..3),
        addresses in addresses(),
        tos: u8,
        ttl: u8,
        fragment in prop_oneof![6 => Just(0), 1 => Just(0x4000), 1 => Just(0x2000), 1 => Just(0x2010)],
        options in prop::sample::select(vec![0usize, 0, 4, 40]),
        transport in any_transport(),
        ports in (any::<u16>(), 10_000..60_000u16),
        payload in prop::collection::vec(any::<u8>(), 0..60),
    ) -> Spec {
        let (dst, src) = macs;
        let v4 = matches!(addresses, Addresses::V4(..));
        let fragment = if v4 { fragment } else { 0 };
        let options = vec![1; if v4 { options } else { 0 }];
        Spec { dst, src, vlans, addresses, tos, ttl, fragment, options, transport, ports, payload }
    }
}

/// Any frame, tunnelled ones too.
pub(super) fn frames() -> impl Strategy<Value = Vec<u8>> {
    (plain(), plain(), any::<bool>(), 0..8).prop_map(|(inner, outer, sum, tunnel)| {
        let outer = Spec { fragment: 0, transport: Transport::Udp { sum }, ..outer };
        match tunnel {
            0 => vxlan(&outer, 77, &inner.frame()).frame(),
            1 => geneve(&outer, &inner.frame()).frame(),
            2 => gre(&outer, 0x6558, &inner.frame()).frame(),
            3 if matches!(inner.addresses, Addresses::V4(..)) => gre(&outer, 0x0800, &inner.packet()).frame(),
            3 => gre(&outer, 0x86dd, &inner.packet()).frame(),
            _ => inner.frame(),
        }
    })
}
