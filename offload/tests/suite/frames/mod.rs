//! Frames made from their parts, with nothing of the dataplane's own wire code.

use dataplane::addr::{Ip, MacAddr};
use dataplane::flow::Protocol;

/// What a packet is of a larger one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fragment {
    /// All of it.
    None,
    First,
    Later,
}

/// A frame's parts.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) dst_mac: MacAddr,
    pub(crate) src_mac: MacAddr,
    /// TPID and VID.
    pub(crate) tags: Vec<(u16, u16)>,
    pub(crate) src: (Ip, u16),
    pub(crate) dst: (Ip, u16),
    pub(crate) protocol: Protocol,
    pub(crate) ttl: u8,
    /// Traffic class, or type of service.
    pub(crate) class: u8,
    /// TCP's.
    pub(crate) flags: u8,
    /// Words of IPv4 options; with IPv6, whether there is a hop-by-hop header.
    pub(crate) options: u8,
    pub(crate) fragment: Fragment,
    /// The transport's checksum; `None`: the right one.
    pub(crate) checksum: Option<u16>,
    pub(crate) payload: Vec<u8>,
    /// Bytes behind the packet.
    pub(crate) padding: u8,
}

impl Frame {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let v4 = self.src.0.is_v4();
        let mut frame = [self.dst_mac.0, self.src_mac.0].concat();
        for (tpid, vid) in &self.tags {
            frame.extend([tpid.to_be_bytes(), vid.to_be_bytes()].concat());
        }
        frame.extend(if v4 { [0x08, 0x00] } else { [0x86, 0xdd] });
        let segment = self.segment();
        frame.extend(if v4 { self.ipv4(segment.len()) } else { self.ipv6(segment.len()) });
        frame.extend(segment);
        frame.extend(vec![0; usize::from(self.padding)]);
        frame
    }

    fn address(ip: Ip) -> Vec<u8> {
        let octets = ip.octets();
        if ip.is_v4() { octets[12..].to_vec() } else { octets.to_vec() }
    }

    fn ipv4(&self, payload: usize) -> Vec<u8> {
        let mut header = vec![0x45 + self.options, self.class];
        header.extend((20 + 4 * u16::from(self.options) + payload as u16).to_be_bytes());
        let fragment: u16 = match self.fragment {
            Fragment::None => 0x4000,
            Fragment::First => 0x2000,
            Fragment::Later => 0x0010,
        };
        header.extend([0, 7]);
        header.extend(fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol as u8, 0, 0]);
        header.extend(Frame::address(self.src.0));
        header.extend(Frame::address(self.dst.0));
        // No-operations.
        header.extend(vec![1; 4 * usize::from(self.options)]);
        let checksum = !sum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn ipv6(&self, payload: usize) -> Vec<u8> {
        let protocol = self.protocol as u8;
        let mut extensions = Vec::new();
        let mut first = protocol;
        if self.fragment != Fragment::None {
            let offset: u16 = if self.fragment == Fragment::First { 1 } else { 0x0080 };
            extensions = [&[protocol, 0][..], &offset.to_be_bytes(), &[0, 0, 0, 7]].concat();
            first = 44;
        } else if self.options > 0 {
            // A PadN of four.
            extensions = vec![protocol, 0, 1, 4, 0, 0, 0, 0];
            first = 0;
        }
        let mut header = vec![0x60 | self.class >> 4, self.class << 4, 0, 0];
        header.extend(((payload + extensions.len()) as u16).to_be_bytes());
        header.extend([first, self.ttl]);
        header.extend(Frame::address(self.src.0));
        header.extend(Frame::address(self.dst.0));
        header.extend(extensions);
        header
    }

    /// The transport header and what follows.
    fn segment(&self) -> Vec<u8> {
        let mut segment = [self.src.1.to_be_bytes(), self.dst.1.to_be_bytes()].concat();
        let at = match self.protocol {
            Protocol::Tcp => {
                segment.extend([0, 0, 3, 232, 0, 0, 7, 208, 0x50, self.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
                16
            }
            Protocol::Udp => {
                segment.extend((8 + self.payload.len() as u16).to_be_bytes());
                segment.extend([0, 0]);
                6
            }
        };
        segment.extend(&self.payload);
        let right = match !sum(&[self.pseudo_header(segment.len()), segment.clone()].concat()) {
            0 if self.protocol == Protocol::Udp => 0xffff,
            right => right,
        };
        segment[at..at + 2].copy_from_slice(&self.checksum.unwrap_or(right).to_be_bytes());
        segment
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let mut pseudo = [Frame::address(self.src.0), Frame::address(self.dst.0)].concat();
        pseudo.extend((length as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, self.protocol as u8]);
        pseudo
    }
}

/// The ones' complement sum of RFC 1071.
fn sum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into()));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
