//! Where a frame's headers are. Total: whatever the bytes, it ends, and says no more than it saw.
//!
//! Only headers that are there to their end count. Lengths within headers (IPv4's total length, UDP's) are
//! not believed or doubted: steering hardware does not look at them.

use super::{Fragment, Headers, L3, L4, Stack, TunnelKind};

const TAGS_MAX: u8 = 2;
/// IPv6 extension headers walked over; then parsing ends.
const EXTENSIONS_MAX: usize = 8;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Transparent Ethernet bridging: an Ethernet frame in GRE or GENEVE.
const ETHERNET: u16 = 0x6558;

const VXLAN_PORT: u16 = 4789;
const GENEVE_PORT: u16 = 6081;
const GRE: u8 = 47;

const GRE_CHECKSUM: u16 = 0x8000;
const GRE_ROUTING: u16 = 0x4000;
const GRE_KEY: u16 = 0x2000;
const GRE_SEQUENCE: u16 = 0x1000;
const GRE_VERSION: u16 = 7;

/// Finds a frame's headers. Only its first 65,535 bytes are looked at.
#[inline]
#[must_use]
pub fn parse(frame: &[u8]) -> Headers {
    let frame = &frame[..frame.len().min(usize::from(u16::MAX))];
    let mut outer = Stack::default();
    ethernet(frame, 0, &mut outer);
    let mut headers = Headers { outer, ..Headers::default() };
    if outer.fragment == Fragment::Whole && (outer.l4 == L4::Udp || outer.protocol == GRE) {
        tunnel(frame, &mut headers);
    }
    headers
}

#[inline]
fn be16(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Whether this EtherType announces a tag.
#[inline]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}

#[inline]
fn ethernet(frame: &[u8], at: usize, stack: &mut Stack) {
    let mut type_at = at + 12;
    let Some(mut ethertype) = be16(frame, type_at) else { return };
    stack.l2 = at as u16;
    stack.has_l2 = true;
    while stack.vlans < TAGS_MAX && is_tag(ethertype) {
        let Some(next) = be16(frame, type_at + 4) else { return };
        stack.vlans += 1;
        type_at += 4;
        ethertype = next;
    }
    network(frame, type_at + 2, ethertype, stack);
}

#[inline]
fn network(frame: &[u8], at: usize, ethertype: u16, stack: &mut Stack) {
    match ethertype {
        IPV4 => ipv4(frame, at, stack),
        IPV6 => ipv6(frame, at, stack),
        _ => {}
    }
}

#[inline]
fn ipv4(frame: &[u8], at: usize, stack: &mut Stack) {
    let Some(header) = frame.get(at..at + 20) else { return };
    let len = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || len < 20 || at + len > frame.len() {
        return;
    }
    stack.l3 = L3::Ipv4;
    stack.l3_at = at as u16;
    stack.fragment = match u16::from_be_bytes([header[6], header[7]]) {
        field if field & 0x3fff == 0 => Fragment::Whole,
        field if field & 0x1fff == 0 => Fragment::First,
        _ => Fragment::Later,
    };
    transport(frame, at + len, header[9], stack);
}

fn ipv6(frame: &[u8], at: usize, stack: &mut Stack) {
    let Some(header) = frame.get(at..at + 40) else { return };
    if header[0] >> 4 != 6 {
        return;
    }
    stack.l3 = L3::Ipv6;
    stack.l3_at = at as u16;
    let mut protocol = header[6];
    let mut at = at + 40;
    for _ in 0..EXTENSIONS_MAX {
        let (0 | 43 | 44 | 60, Some(extension)) = (protocol, frame.get(at..at + 8)) else { break };
        let len = if protocol == 44 { 8 } else { (usize::from(extension[1]) + 1) * 8 };
        if at + len > frame.len() {
            break;
        }
        if protocol == 44 {
            let later = extension[2] != 0 || extension[3] & 0xf8 != 0;
            stack.fragment = if later { Fragment::Later } else { Fragment::First };
        }
        protocol = extension[0];
        at += len;
        if stack.fragment == Fragment::Later {
            break;
        }
    }
    transport(frame, at, protocol, stack);
}

#[inline]
fn transport(frame: &[u8], at: usize, protocol: u8, stack: &mut Stack) {
    stack.protocol = protocol;
    stack.l4_at = at as u16;
    let (l4, len) = match (protocol, stack.l3) {
        (6, _) => (L4::Tcp, 20),
        (17, _) => (L4::Udp, 8),
        (1, L3::Ipv4) => (L4::Icmp, 8),
        (58, L3::Ipv6) => (L4::Icmp6, 4),
        _ => return,
    };
    if stack.fragment != Fragment::Later && at + len <= frame.len() {
        stack.l4 = l4;
    }
}

fn tunnel(frame: &[u8], headers: &mut Headers) {
    let at = usize::from(headers.outer.l4_at);
    if headers.outer.l4 != L4::Udp {
        gre(frame, at, headers);
        return;
    }
    match be16(frame, at + 2) {
        Some(VXLAN_PORT) => vxlan(frame, at + 8, headers),
        Some(GENEVE_PORT) => geneve(frame, at + 8, headers),
        _ => {}
    }
}

fn vxlan(frame: &[u8], at: usize, headers: &mut Headers) {
    if at + 8 <= frame.len() {
        headers.tunnel = Some((TunnelKind::Vxlan, at as u16));
        ethernet(frame, at + 8, &mut headers.inner);
    }
}

fn geneve(frame: &[u8], at: usize, headers: &mut Headers) {
    let Some(header) = frame.get(at..at + 8) else { return };
    let behind = at + 8 + usize::from(header[0] & 0x3f) * 4;
    if header[0] >> 6 != 0 || behind > frame.len() {
        return;
    }
    headers.tunnel = Some((TunnelKind::Geneve, at as u16));
    inside(frame, behind, u16::from_be_bytes([header[2], header[3]]), headers);
}

fn gre(frame: &[u8], at: usize, headers: &mut Headers) {
    let (Some(flags), Some(protocol)) = (be16(frame, at), be16(frame, at + 2)) else { return };
    let words = [GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE].iter().filter(|&&flag| flags & flag != 0).count();
    let behind = at + 4 + words * 4;
    if flags & (GRE_ROUTING | GRE_VERSION) != 0 || behind > frame.len() {
        return;
    }
    headers.tunnel = Some((TunnelKind::Gre, at as u16));
    inside(frame, behind, protocol, headers);
}

fn inside(frame: &[u8], at: usize, ethertype: u16, headers: &mut Headers) {
    match ethertype {
        ETHERNET => ethernet(frame, at, &mut headers.inner),
        _ => network(frame, at, ethertype, &mut headers.inner),
    }
}
