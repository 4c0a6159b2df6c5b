//! Frames built without the code under test, and checksums verified without it.

use dataplane::addr::Ip;
use dataplane::snapshot::VlanTags;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

/// Ethernet addresses of every frame built here.
pub(crate) const LINK_DST: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const LINK_SRC: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub(crate) fn ip(text: &str) -> Ip {
    text.parse::<std::net::IpAddr>().expect("test address").into()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp { flags: u8, seq: u32, ack: u32, options: Vec<u8> },
    Udp { checksum: bool },
    Icmp { kind: u8, code: u8, rest: u32 },
}

/// A whole packet, described.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) tags: VlanTags,
    pub(crate) src: Ip,
    pub(crate) dst: Ip,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    /// 32-bit words of IPv4 options.
    pub(crate) option_words: usize,
    /// IPv6 extension headers by number, in order, 8 bytes each (AH: 24).
    pub(crate) extensions: Vec<u8>,
    pub(crate) transport: Transport,
    pub(crate) payload: Vec<u8>,
    pub(crate) padding: usize,
}

impl Spec {
    pub(crate) fn tcp(src: &str, dst: &str) -> Spec {
        Spec {
            tags: VlanTags::default(),
            src: ip(src),
            dst: ip(dst),
            src_port: 40_000,
            dst_port: 80,
            ttl: 64,
            id: 77,
            option_words: 0,
            extensions: vec![],
            transport: Transport::Tcp { flags: 0x10, seq: 1000, ack: 2000, options: vec![] },
            payload: b"hello".to_vec(),
            padding: 0,
        }
    }

    pub(crate) fn udp(src: &str, dst: &str) -> Spec {
        Spec { transport: Transport::Udp { checksum: true }, ..Spec::tcp(src, dst) }
    }

    pub(crate) fn icmp(src: &str, dst: &str, kind: u8, code: u8) -> Spec {
        Spec { transport: Transport::Icmp { kind, code, rest: 0 }, ..Spec::tcp(src, dst) }
    }

    pub(crate) fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Udp { .. } => 17,
            Transport::Icmp { .. } if self.dst.is_v4() => 1,
            Transport::Icmp { .. } => 58,
        }
    }

    /// The segment, datagram or message, its checksum right.
    pub(crate) fn segment(&self) -> Vec<u8> {
        let ports = [self.src_port.to_be_bytes(), self.dst_port.to_be_bytes()].concat();
        let (mut segment, at) = match &self.transport {
            Transport::Tcp { flags, seq, ack, options } => {
                let offset = 5 + options.len() as u8 / 4;
                let fixed = [offset << 4, *flags, 0x20, 0, 0, 0, 0, 0];
                let header = [&ports[..], &seq.to_be_bytes(), &ack.to_be_bytes(), &fixed, options].concat();
                (header, 16)
            }
            Transport::Udp { .. } => {
                let len = (8 + self.payload.len() as u16).to_be_bytes();
                ([&ports[..], &len, &[0, 0]].concat(), 6)
            }
            Transport::Icmp { kind, code, rest } => {
                ([&[*kind, *code, 0, 0][..], &rest.to_be_bytes()].concat(), 2)
            }
        };
        segment.extend(&self.payload);
        let mut checksum = transport_checksum(self.src, self.dst, self.protocol(), &segment);
        match self.transport {
            Transport::Udp { checksum: false } => checksum = 0,
            Transport::Udp { .. } if checksum == 0 => checksum = 0xffff,
            _ => {}
        }
        segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        segment
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        self.frame(&self.segment(), self.protocol(), (0, false), &self.extensions)
    }

    /// The packet in two fragments, the first with `units` times eight bytes of its segment.
    pub(crate) fn build_fragments(&self, units: usize) -> (Vec<u8>, Vec<u8>) {
        let segment = self.segment();
        let (first, later) = segment.split_at(units * 8);
        let extensions: Vec<u8> =
            if self.dst.is_v4() { vec![] } else { [&self.extensions[..], &[44]].concat() };
        (
            self.frame(first, self.protocol(), (0, true), &extensions),
            self.frame(later, self.protocol(), (units * 8, false), &extensions),
        )
    }

    /// A frame around these bytes of transport.
    pub(crate) fn frame(
        &self,
        segment: &[u8],
        protocol: u8,
        (offset, more): (usize, bool),
        extensions: &[u8],
    ) -> Vec<u8> {
        let ether_type: u16 = if self.dst.is_v4() { 0x0800 } else { 0x86dd };
        let mut frame = [LINK_DST, LINK_SRC].concat();
        for (tpid, tag) in [(0x88a8u16, self.tags.outer), (0x8100, self.tags.inner)] {
            if let Some(vid) = tag {
                frame.extend(tpid.to_be_bytes());
                frame.extend((vid | 0x6000).to_be_bytes());
            }
        }
        frame.extend(ether_type.to_be_bytes());
        if self.dst.is_v4() {
            self.ipv4(&mut frame, segment, protocol, (offset, more));
        } else {
            self.ipv6(&mut frame, segment, protocol, (offset, more), extensions);
        }
        frame.extend(vec![0xee; self.padding]);
        frame
    }

    fn ipv4(&self, frame: &mut Vec<u8>, segment: &[u8], protocol: u8, (offset, more): (usize, bool)) {
        let len = 20 + self.option_words * 4;
        let total = ((len + segment.len()) as u16).to_be_bytes();
        let id = self.id.to_be_bytes();
        let fragment = ((offset / 8) as u16 | u16::from(more) << 13).to_be_bytes();
        let mut header = vec![0x40 | (len / 4) as u8, 0, total[0], total[1], id[0], id[1]];
        header.extend([fragment[0], fragment[1], self.ttl, protocol, 0, 0]);
        header.extend(self.src.low32().to_be_bytes());
        header.extend(self.dst.low32().to_be_bytes());
        header.extend(vec![1; self.option_words * 4]);
        let checksum = checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&checksum);
        frame.extend(header);
        frame.extend(segment);
    }

    fn ipv6(
        &self,
        frame: &mut Vec<u8>,
        segment: &[u8],
        protocol: u8,
        (offset, more): (usize, bool),
        extensions: &[u8],
    ) {
        let mut chain = vec![];
        for (index, &this) in extensions.iter().enumerate() {
            let next = *extensions.get(index + 1).unwrap_or(&protocol);
            match this {
                44 => {
                    let word = (offset as u16 | u16::from(more)).to_be_bytes();
                    chain.extend([next, 0, word[0], word[1], 0, 0]);
                    chain.extend(self.id.to_be_bytes());
                }
                51 => chain.extend([&[next, 4][..], &[0; 22]].concat()),
                _ => chain.extend([next, 0, 1, 0, 0, 0, 0, 0]),
            }
        }
        let len = ((chain.len() + segment.len()) as u16).to_be_bytes();
        let next = *extensions.first().unwrap_or(&protocol);
        frame.extend([0x60, 0, 0, 0, len[0], len[1], next, self.ttl]);
        frame.extend(self.src.octets());
        frame.extend(self.dst.octets());
        frame.extend(chain);
        frame.extend(segment);
    }
}

/// The error that the destination of `spec` sends about it, quoting `quote`.
pub(crate) fn error_about(spec: &Spec, quote: &[u8]) -> Spec {
    let (kind, code) = if spec.dst.is_v4() { (3, 3) } else { (1, 4) };
    Spec {
        tags: spec.tags,
        src: spec.dst,
        dst: spec.src,
        transport: Transport::Icmp { kind, code, rest: 0 },
        option_words: 0,
        extensions: vec![],
        payload: quote.to_vec(),
        ..spec.clone()
    }
}

/// RFC 1071 by the book.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(crate) fn transport_checksum(src: Ip, dst: Ip, protocol: u8, segment: &[u8]) -> u16 {
    let len = segment.len() as u16;
    let mut bytes = match (protocol, src.is_v4()) {
        (1, _) => vec![],
        (_, true) => [src.low32().to_be_bytes(), dst.low32().to_be_bytes()].concat(),
        (_, false) => [src.octets(), dst.octets()].concat(),
    };
    if protocol != 1 {
        bytes.extend([0, protocol]);
        bytes.extend(len.to_be_bytes());
    }
    bytes.extend(segment);
    checksum(&bytes)
}

/// Sees to it that every checksum of a frame is right, with the frame taken apart by `etherparse`.
/// `transport` is false for fragments.
#[track_caller]
pub(crate) fn assert_checksums(frame: &[u8], transport: bool) {
    let sliced = SlicedPacket::from_ethernet(frame).expect("etherparse refuses the frame");
    let (src, dst, payload) = match sliced.net.expect("no network layer") {
        NetSlice::Ipv4(v4) => {
            assert_eq!(checksum(v4.header().slice()), 0, "IPv4 header checksum");
            let (src, dst) = (v4.header().source_addr(), v4.header().destination_addr());
            (Ip::from(src), Ip::from(dst), v4.payload().clone())
        }
        NetSlice::Ipv6(v6) => {
            let (src, dst) = (v6.header().source_addr(), v6.header().destination_addr());
            (Ip::from(src), Ip::from(dst), v6.payload().clone())
        }
        NetSlice::Arp(_) => return,
    };
    if !transport {
        return;
    }
    let protocol = payload.ip_number.0;
    if let Some(TransportSlice::Udp(udp)) = sliced.transport {
        if udp.checksum() == 0 && src.is_v4() {
            return;
        }
    }
    assert_eq!(transport_checksum(src, dst, protocol, payload.payload), 0, "transport checksum");
}

pub(crate) fn v4() -> impl Strategy<Value = Ip> {
    (1u32..=223, any::<u32>())
        .prop_filter("loopback", |(first, _)| *first != 127)
        .prop_map(|(first, rest)| Ip::v4(first << 24 | rest & 0x00ff_ffff))
}

pub(crate) fn v6() -> impl Strategy<Value = Ip> {
    any::<[u8; 14]>().prop_map(|rest| {
        let mut octets = [0x20; 16];
        octets[2..].copy_from_slice(&rest);
        Ip::v6(octets)
    })
}

fn tags() -> impl Strategy<Value = VlanTags> {
    let vid = 1u16..4095;
    prop_oneof![
        3 => Just(VlanTags::default()),
        1 => vid.clone().prop_map(|vid| VlanTags { outer: None, inner: Some(vid) }),
        1 => (vid.clone(), vid).prop_map(|(o, i)| VlanTags { outer: Some(o), inner: Some(i) }),
    ]
}

fn transport() -> impl Strategy<Value = Transport> {
    let tcp = (1u8..=255, any::<u32>(), any::<u32>(), 0usize..=10)
        .prop_filter("flags", |(flags, ..)| flags & 0x3f != 0 && !(flags & 2 != 0 && flags & 5 != 0))
        .prop_map(|(flags, seq, ack, words)| Transport::Tcp { flags, seq, ack, options: vec![1; words * 4] });
    prop_oneof![tcp, any::<bool>().prop_map(|checksum| Transport::Udp { checksum })]
}

/// A packet without tags, options, extension headers.
pub(crate) fn plain() -> impl Strategy<Value = Spec> {
    spec().prop_map(|spec| Spec { tags: VlanTags::default(), option_words: 0, extensions: vec![], ..spec })
}

/// Valid TCP and UDP packets of all shapes.
pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    let ends = prop_oneof![(v4(), v4()), (v6(), v6())];
    // In the order RFC 8200 §4.1 recommends, any subset.
    let extensions = proptest::sample::subsequence(vec![0u8, 60, 51, 60], 0..=4);
    (
        (tags(), ends, any::<u16>(), any::<u16>(), 1u8..=255, any::<u16>()),
        (0usize..=10, extensions, transport(), 0usize..=40),
        proptest::collection::vec(any::<u8>(), 0..600),
    )
        .prop_map(|((tags, (src, dst), src_port, dst_port, ttl, id), rest, payload)| {
            let (option_words, extensions, transport, padding) = rest;
            let is_v4 = dst.is_v4();
            let transport = match transport {
                Transport::Udp { .. } if !is_v4 => Transport::Udp { checksum: true },
                other => other,
            };
            let extensions = if is_v4 { vec![] } else { extensions };
            Spec {
                tags,
                src,
                dst,
                src_port,
                dst_port,
                ttl,
                id,
                option_words,
                extensions,
                transport,
                payload,
                padding,
            }
        })
}

/// Bytes that reach deep into the parser: valid packets, damaged.
pub(crate) fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let damage = proptest::collection::vec((0usize..120, any::<u8>()), 0..6);
    (spec(), damage, proptest::option::of(0usize..200), any::<bool>()).prop_map(
        |(spec, damage, cut, repair)| {
            let mut frame = spec.build();
            for (at, byte) in damage {
                if let Some(target) = frame.get_mut(at) {
                    *target = byte;
                }
            }
            if repair && spec.dst.is_v4() && spec.tags == VlanTags::default() {
                repair_ipv4(&mut frame);
            }
            frame.truncate(cut.unwrap_or(usize::MAX));
            frame
        },
    )
}

/// Makes the checksum of an untagged IPv4 header right again.
pub(crate) fn repair_ipv4(frame: &mut [u8]) {
    let len = usize::from(frame[14] & 0x0f) * 4;
    if (20..=frame.len() - 14).contains(&len) {
        frame[24..26].fill(0);
        let checksum = checksum(&frame[14..14 + len]).to_be_bytes();
        frame[24..26].copy_from_slice(&checksum);
    }
}
