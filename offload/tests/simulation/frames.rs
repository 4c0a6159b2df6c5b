//! Frames, made and read by code of the simulation's own: Millrace's is not its own witness.

use dataplane::addr::{Ip, MacAddr};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// An address and a port.
pub(crate) type End = (Ip, u16);

/// What TCP and UDP have that is not the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    Tcp { seq: u32, ack: u32, flags: u8 },
    Udp,
}

/// A packet that an end sends or gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) transport: Transport,
    pub(crate) payload_len: u16,
    pub(crate) ttl: u8,
}

impl Segment {
    pub(crate) fn protocol(&self) -> u8 {
        if self.transport == Transport::Udp { UDP } else { TCP }
    }

    pub(crate) fn flags(&self) -> u8 {
        if let Transport::Tcp { flags, .. } = self.transport { flags } else { 0 }
    }
}

/// The link header of a frame to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) dst: MacAddr,
    pub(crate) src: MacAddr,
    pub(crate) vlan: Option<u16>,
}

fn ether(link: &Link, ether_type: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(256);
    frame.extend(link.dst.0);
    frame.extend(link.src.0);
    if let Some(vid) = link.vlan {
        frame.extend(0x8100_u16.to_be_bytes());
        frame.extend(vid.to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame
}

/// The ones' complement sum of bytes, folded to 16 bits.
fn sum(bytes: &[u8], start: u64) -> u64 {
    let mut total = start;
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        total += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        total += u64::from(*last) << 8;
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total
}

/// An address as its packets carry it.
fn wire_bytes(ip: Ip) -> Vec<u8> {
    if ip.is_v4() { ip.low32().to_be_bytes().to_vec() } else { ip.octets().to_vec() }
}

fn pseudo(src: Ip, dst: Ip, protocol: u8, len: usize) -> u64 {
    let sums = sum(&wire_bytes(src), 0) + sum(&wire_bytes(dst), 0);
    sums + u64::from(protocol) + len as u64
}

fn ip_header(frame: &mut Vec<u8>, (src, dst): (Ip, Ip), protocol: u8, len: usize, ttl: u8, fragment: u16) {
    let at = frame.len();
    if src.is_v4() {
        frame.extend([0x45, 0]);
        frame.extend((20 + len as u16).to_be_bytes());
        frame.extend([0x12, 0x34]);
        frame.extend(fragment.to_be_bytes());
        frame.extend([ttl, protocol, 0, 0]);
        frame.extend(wire_bytes(src));
        frame.extend(wire_bytes(dst));
        let check = !(sum(&frame[at..], 0) as u16);
        frame[at + 10..at + 12].copy_from_slice(&check.to_be_bytes());
    } else {
        frame.extend([0x60, 0, 0, 0]);
        frame.extend((len as u16).to_be_bytes());
        frame.extend([protocol, ttl]);
        frame.extend(wire_bytes(src));
        frame.extend(wire_bytes(dst));
    }
}

fn transport_bytes(segment: &Segment, tag: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20 + usize::from(segment.payload_len));
    bytes.extend(segment.from.1.to_be_bytes());
    bytes.extend(segment.to.1.to_be_bytes());
    let check_at = match segment.transport {
        Transport::Tcp { seq, ack, flags } => {
            bytes.extend(seq.to_be_bytes());
            bytes.extend(ack.to_be_bytes());
            bytes.extend([0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
            16
        }
        Transport::Udp => {
            bytes.extend((8 + segment.payload_len).to_be_bytes());
            bytes.extend([0, 0]);
            6
        }
    };
    let payload = (0..u32::from(segment.payload_len)).map(|at| (tag.wrapping_mul(31) ^ at) as u8);
    bytes.extend(payload);
    let start = pseudo(segment.from.0, segment.to.0, segment.protocol(), bytes.len());
    let check = match !(sum(&bytes, start) as u16) {
        0 => 0xffff,
        check => check,
    };
    bytes[check_at..check_at + 2].copy_from_slice(&check.to_be_bytes());
    bytes
}

/// A TCP or UDP packet in a frame. `tag` is what its payload is filled with.
pub(crate) fn segment(link: &Link, segment: &Segment, tag: u32) -> Vec<u8> {
    let mut frame = ether(link, if segment.from.0.is_v4() { 0x0800 } else { 0x86dd });
    let bytes = transport_bytes(segment, tag);
    let ends = (segment.from.0, segment.to.0);
    ip_header(&mut frame, ends, segment.protocol(), bytes.len(), segment.ttl, 0x4000);
    frame.extend(bytes);
    frame
}

/// An IPv4 packet in two fragments: the first has `first` bytes, a multiple of 8.
pub(crate) fn fragments(link: &Link, segment: &Segment, tag: u32, first: usize) -> [Vec<u8>; 2] {
    let bytes = transport_bytes(segment, tag);
    let ends = (segment.from.0, segment.to.0);
    [(&bytes[..first], 0x2000), (&bytes[first..], (first / 8) as u16)].map(|(piece, fragment)| {
        let mut frame = ether(link, 0x0800);
        ip_header(&mut frame, ends, segment.protocol(), piece.len(), segment.ttl, fragment);
        frame.extend(piece);
        let at = frame.len() - piece.len() - 20;
        // Fragments of different packets must not be taken for one another's.
        frame[at + 4..at + 6].copy_from_slice(&(tag as u16).to_be_bytes());
        frame[at + 10..at + 12].copy_from_slice(&[0, 0]);
        let check = !(sum(&frame[at..at + 20], 0) as u16);
        frame[at + 10..at + 12].copy_from_slice(&check.to_be_bytes());
        frame
    })
}

/// `operation` 1 asks, 2 answers; a gratuitous one is a request of an address for itself.
pub(crate) fn arp(link: &Link, operation: u16, sender: Ip, target_mac: MacAddr, target: Ip) -> Vec<u8> {
    let mut frame = ether(link, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(link.src.0);
    frame.extend(wire_bytes(sender));
    frame.extend(target_mac.0);
    frame.extend(wire_bytes(target));
    frame
}

/// A neighbour advertisement with the target's link-layer address, overriding.
pub(crate) fn advertisement(link: &Link, from: Ip, to: Ip, solicited: bool) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, if solicited { 0x60 } else { 0x20 }, 0, 0, 0];
    message.extend(from.octets());
    message.extend([2, 1]);
    message.extend(link.src.0);
    let check = !(sum(&message, pseudo(from, to, ICMP6, message.len())) as u16);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    let mut frame = ether(link, 0x86dd);
    ip_header(&mut frame, (from, to), ICMP6, message.len(), 255, 0);
    frame.extend(message);
    frame
}

/// What a frame turns out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// A question who has `target`.
    ArpRequest { sender: Ip, target: Ip },
    /// The same of IPv6.
    Solicitation { sender: Ip, target: Ip },
    /// TCP or UDP, whole or the first fragment.
    Segment(Segment),
    /// A later fragment.
    Fragment { from: Ip, to: Ip },
    /// Anything else that is well-formed as far as it goes.
    Other,
}

/// A frame, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Read {
    pub(crate) link: Link,
    pub(crate) what: What,
    /// Where the IP header begins.
    pub(crate) l3: usize,
    /// Bytes of IP packet; 0 of others.
    pub(crate) ip_len: usize,
    /// Where the transport header begins.
    pub(crate) l4: usize,
    /// All checksums that are in this frame are right.
    pub(crate) sound: bool,
    /// A fragment, first or later.
    pub(crate) fragment: bool,
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn v6_at(bytes: &[u8], at: usize) -> Option<Ip> {
    Some(Ip::v6(bytes.get(at..at + 16)?.try_into().ok()?))
}

fn mac_at(bytes: &[u8], at: usize) -> Option<MacAddr> {
    Some(MacAddr(bytes.get(at..at + 6)?.try_into().ok()?))
}

/// Reads a frame; `None` if it is cut short.
pub(crate) fn read(frame: &[u8]) -> Option<Read> {
    let mut link = Link { dst: mac_at(frame, 0)?, src: mac_at(frame, 6)?, vlan: None };
    let mut l3 = 14;
    let mut ether_type = be16(frame, 12)?;
    if ether_type == 0x8100 {
        link.vlan = Some(be16(frame, 14)? & 0xfff);
        ether_type = be16(frame, 16)?;
        l3 = 18;
    }
    let other = Read { link, what: What::Other, l3, ip_len: 0, l4: l3, sound: true, fragment: false };
    match ether_type {
        0x0806 if be16(frame, l3 + 6)? == 1 => {
            let (sender, target) = (Ip::v4(be32(frame, l3 + 14)?), Ip::v4(be32(frame, l3 + 24)?));
            Some(Read { what: What::ArpRequest { sender, target }, ..other })
        }
        0x0800 => read_v4(frame, other),
        0x86dd => read_v6(frame, other),
        _ => Some(other),
    }
}

fn read_v4(frame: &[u8], read: Read) -> Option<Read> {
    let l3 = read.l3;
    let header = usize::from(frame.get(l3)? & 0xf) * 4;
    let ip_len = usize::from(be16(frame, l3 + 2)?);
    let packet = frame.get(l3..l3 + ip_len)?;
    let sound = frame[l3] >> 4 == 4 && header >= 20 && sum(packet.get(..header)?, 0) == 0xffff;
    let (from, to) = (Ip::v4(be32(frame, l3 + 12)?), Ip::v4(be32(frame, l3 + 16)?));
    let fragment = be16(frame, l3 + 6)?;
    let read = Read { ip_len, l4: l3 + header, sound, fragment: fragment & 0x3fff != 0, ..read };
    if fragment & 0x1fff != 0 {
        return Some(Read { what: What::Fragment { from, to }, ..read });
    }
    let (ttl, protocol) = (frame[l3 + 8], frame[l3 + 9]);
    read_transport(packet.get(header..)?, (from, to), protocol, ttl, read)
}

fn read_v6(frame: &[u8], read: Read) -> Option<Read> {
    let l3 = read.l3;
    let len = usize::from(be16(frame, l3 + 4)?);
    let packet = frame.get(l3..l3 + 40 + len)?;
    let (from, to) = (v6_at(frame, l3 + 8)?, v6_at(frame, l3 + 24)?);
    let sound = frame[l3] >> 4 == 6;
    let read = Read { ip_len: 40 + len, l4: l3 + 40, sound, ..read };
    let (protocol, ttl) = (packet[6], packet[7]);
    if protocol == ICMP6 && packet.get(40) == Some(&135) {
        let target = v6_at(packet, 48)?;
        return Some(Read { what: What::Solicitation { sender: from, target }, ..read });
    }
    read_transport(&packet[40..], (from, to), protocol, ttl, read)
}

fn read_transport(bytes: &[u8], (from, to): (Ip, Ip), protocol: u8, ttl: u8, read: Read) -> Option<Read> {
    let transport = match protocol {
        TCP => Transport::Tcp { seq: be32(bytes, 4)?, ack: be32(bytes, 8)?, flags: *bytes.get(13)? },
        UDP => Transport::Udp,
        _ => return Some(read),
    };
    let header = if protocol == TCP { usize::from(*bytes.get(12)? >> 4) * 4 } else { 8 };
    let payload_len = bytes.len().checked_sub(header)? as u16;
    let checked = read.fragment || sum(bytes, pseudo(from, to, protocol, bytes.len())) == 0xffff;
    let ports = (be16(bytes, 0)?, be16(bytes, 2)?);
    let segment = Segment { from: (from, ports.0), to: (to, ports.1), transport, payload_len, ttl };
    Some(Read { what: What::Segment(segment), sound: read.sound && checked, ..read })
}

/// A translation, written down independently of Millrace's: what must come out for what came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shadow {
    pub(crate) link: Link,
    /// New source, if any.
    pub(crate) from: Option<End>,
    /// New destination, if any.
    pub(crate) to: Option<End>,
}

/// The frame that must come out, checksums recomputed from the whole packet. `None` if it is not a frame
/// that can be translated.
pub(crate) fn translate(frame: &[u8], shadow: &Shadow) -> Option<Vec<u8>> {
    let read = read(frame)?;
    let (from, to) = match read.what {
        What::Segment(segment) => (segment.from, segment.to),
        What::Fragment { from, to } => ((from, 0), (to, 0)),
        _ => return None,
    };
    let later = matches!(read.what, What::Fragment { .. });
    let (from, to) = (shadow.from.unwrap_or(from), shadow.to.unwrap_or(to));
    let v4 = from.0.is_v4();
    let mut packet = frame.get(read.l3..read.l3 + read.ip_len)?.to_vec();
    let (ttl_at, addresses_at) = if v4 { (8, 12) } else { (7, 8) };
    packet[ttl_at] = packet[ttl_at].checked_sub(1)?;
    let addresses = [wire_bytes(from.0), wire_bytes(to.0)].concat();
    packet[addresses_at..addresses_at + addresses.len()].copy_from_slice(&addresses);
    let l4 = read.l4 - read.l3;
    if !later {
        packet[l4..l4 + 2].copy_from_slice(&from.1.to_be_bytes());
        packet[l4 + 2..l4 + 4].copy_from_slice(&to.1.to_be_bytes());
    }
    if v4 {
        packet[10..12].copy_from_slice(&[0, 0]);
        let check = !(sum(&packet[..l4], 0) as u16);
        packet[10..12].copy_from_slice(&check.to_be_bytes());
    }
    if !read.fragment {
        let (protocol, check_at) = if packet[if v4 { 9 } else { 6 }] == TCP { (TCP, 16) } else { (UDP, 6) };
        packet[l4 + check_at..l4 + check_at + 2].copy_from_slice(&[0, 0]);
        let start = pseudo(from.0, to.0, protocol, packet.len() - l4);
        let check = match !(sum(&packet[l4..], start) as u16) {
            0 => 0xffff,
            check => check,
        };
        packet[l4 + check_at..l4 + check_at + 2].copy_from_slice(&check.to_be_bytes());
    }
    let mut out = ether(&shadow.link, if v4 { 0x0800 } else { 0x86dd });
    out.extend(packet);
    Some(out)
}

/// Whether two frames say the same: all bytes alike, but for padding behind the packet and for a TCP
/// checksum of 0, which is the same as 0xffff; first fragments carry the checksum of the whole packet,
/// which cannot be recomputed from one piece.
pub(crate) fn same(got: &[u8], want: &[u8]) -> bool {
    let Some((a, b)) = read(got).zip(read(want)) else { return false };
    let len = b.l3 + b.ip_len;
    if got.len() < len || (a.l3, a.ip_len, a.l4) != (b.l3, b.ip_len, b.l4) {
        return false;
    }
    let check_at = match a.what {
        What::Segment(segment) => a.l4 + if segment.protocol() == TCP { 16 } else { 6 },
        _ => return got[..len] == want[..len],
    };
    let rest = got[..check_at] == want[..check_at] && got[check_at + 2..len] == want[check_at + 2..len];
    let zero = |frame: &[u8]| be16(frame, check_at).is_some_and(|check| check == 0 || check == 0xffff);
    let checks = got[check_at..check_at + 2] == want[check_at..check_at + 2] || (zero(got) && zero(want));
    rest && (a.fragment || checks)
}
