//! The reference's own parser: where a frame's headers are, read from the RFCs byte by byte.
//!
//! What the model documents about itself holds here, too: two tags at most, eight IPv6 extension headers at
//! most, only whole headers count, tunnels are VXLAN on 4789, GENEVE on 6081 and GRE version 0.

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Piece {
    #[default]
    Whole,
    First,
    Later,
}

/// The headers on one side of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Side {
    /// Where the Ethernet header is.
    pub(crate) eth: Option<usize>,
    pub(crate) tags: usize,
    /// Version (4, 6) and place of the IP header.
    pub(crate) ip: Option<(u8, usize)>,
    /// Behind IP and its extension headers.
    pub(crate) protocol: u8,
    /// Where the protocol begins.
    pub(crate) payload: usize,
    /// The protocol, if it is TCP, UDP, ICMP or ICMPv6 and its header is whole.
    pub(crate) transport: Option<u8>,
    pub(crate) piece: Piece,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tunnel {
    Vxlan = 1,
    Geneve = 2,
    Gre = 3,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Anatomy {
    pub(crate) outer: Side,
    pub(crate) tunnel: Option<(Tunnel, usize)>,
    pub(crate) inner: Side,
}

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMP6: u8 = 58;

/// `len` bytes at `at` as a number, if the frame has them.
pub(crate) fn number(frame: &[u8], at: usize, len: usize) -> Option<u128> {
    let bytes = frame.get(at..at + len)?;
    Some(bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
}

pub(crate) fn dissect(frame: &[u8]) -> Anatomy {
    let outer = link(frame, 0);
    let mut anatomy = Anatomy { outer, ..Anatomy::default() };
    if outer.piece != Piece::Whole {
        return anatomy;
    }
    let found = if outer.transport == Some(UDP) {
        match number(frame, outer.payload + 2, 2) {
            Some(4789) => vxlan(frame, outer.payload + 8),
            Some(6081) => geneve(frame, outer.payload + 8),
            _ => None,
        }
    } else if outer.ip.is_some() && outer.protocol == 47 {
        gre(frame, outer.payload)
    } else {
        None
    };
    if let Some((kind, at, inner)) = found {
        anatomy.tunnel = Some((kind, at));
        anatomy.inner = inner;
    }
    anatomy
}

type Found = Option<(Tunnel, usize, Side)>;

fn vxlan(frame: &[u8], at: usize) -> Found {
    number(frame, at, 8)?;
    Some((Tunnel::Vxlan, at, link(frame, at + 8)))
}

fn geneve(frame: &[u8], at: usize) -> Found {
    let head = number(frame, at, 8)?;
    let (version, options, protocol) = (head >> 62, (head >> 56 & 0x3f) as usize * 4, head >> 32 & 0xffff);
    if version != 0 || at + 8 + options > frame.len() {
        return None;
    }
    Some((Tunnel::Geneve, at, behind(frame, at + 8 + options, protocol as u16)))
}

fn gre(frame: &[u8], at: usize) -> Found {
    let head = number(frame, at, 4)?;
    let (flags, protocol) = (head >> 16, head as u16);
    // Source routes are not followed, and there is no version but 0.
    if flags & 0x4007 != 0 {
        return None;
    }
    let optional = (flags >> 15 & 1) + (flags >> 13 & 1) + (flags >> 12 & 1);
    let end = at + 4 + optional as usize * 4;
    if end > frame.len() {
        return None;
    }
    Some((Tunnel::Gre, at, behind(frame, end, protocol)))
}

fn behind(frame: &[u8], at: usize, protocol: u16) -> Side {
    if protocol == 0x6558 {
        return link(frame, at);
    }
    let mut side = Side::default();
    internet(frame, at, protocol, &mut side);
    side
}

fn link(frame: &[u8], at: usize) -> Side {
    let mut side = Side::default();
    let Some(mut kind) = number(frame, at + 12, 2) else { return side };
    side.eth = Some(at);
    let mut next = at + 14;
    while matches!(kind, 0x8100 | 0x88a8 | 0x9100) && side.tags < 2 {
        let Some(inside) = number(frame, next + 2, 2) else { return side };
        kind = inside;
        side.tags += 1;
        next += 4;
    }
    internet(frame, next, kind as u16, &mut side);
    side
}

fn internet(frame: &[u8], at: usize, kind: u16, side: &mut Side) {
    let version = frame.get(at).map(|first| first >> 4);
    match (kind, version) {
        (0x0800, Some(4)) => ipv4(frame, at, side),
        (0x86dd, Some(6)) => ipv6(frame, at, side),
        _ => {}
    }
}

fn ipv4(frame: &[u8], at: usize, side: &mut Side) {
    let len = usize::from(frame[at] & 15) * 4;
    if len < 20 || frame.len() < at + len {
        return;
    }
    side.ip = Some((4, at));
    let offset = number(frame, at + 6, 2).unwrap_or(0);
    side.piece = match (offset & 0x1fff, offset & 0x2000) {
        (0, 0) => Piece::Whole,
        (0, _) => Piece::First,
        _ => Piece::Later,
    };
    transport(frame, at + len, frame[at + 9], side);
}

fn ipv6(frame: &[u8], at: usize, side: &mut Side) {
    if frame.len() < at + 40 {
        return;
    }
    side.ip = Some((6, at));
    let (mut next, mut protocol) = (at + 40, frame[at + 6]);
    let mut walked = 0;
    while matches!(protocol, 0 | 43 | 44 | 60) && walked < 8 && side.piece != Piece::Later {
        if frame.len() < next + 8 {
            break;
        }
        let len = if protocol == 44 { 8 } else { usize::from(frame[next + 1]) * 8 + 8 };
        if frame.len() < next + len {
            break;
        }
        if protocol == 44 {
            let offset = number(frame, next + 2, 2).unwrap_or(0) >> 3;
            side.piece = if offset == 0 { Piece::First } else { Piece::Later };
        }
        protocol = frame[next];
        next += len;
        walked += 1;
    }
    transport(frame, next, protocol, side);
}

fn transport(frame: &[u8], at: usize, protocol: u8, side: &mut Side) {
    side.protocol = protocol;
    side.payload = at;
    let version = side.ip.map(|(version, _)| version);
    let len = match (protocol, version) {
        (TCP, _) => 20,
        (UDP, _) | (ICMP, Some(4)) => 8,
        (ICMP6, Some(6)) => 4,
        _ => return,
    };
    if side.piece != Piece::Later && frame.len() >= at + len {
        side.transport = Some(protocol);
    }
}
