//! The file format: PCAP Next Generation (draft-ietf-opsawg-pcapng), as much of it as is written here. Little
//! endian, times in nanoseconds.

use dataplane::ids::PortId;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
/// Of an Interface Statistics Block, with which a capture ends.
pub(super) const STATISTICS: u32 = 5;
/// Of an Enhanced Packet Block.
pub(super) const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;
/// Option codes: of any block,
const COMMENT: u16 = 1;
/// of a section,
const APPLICATION: u16 = 4;
/// of an interface,
const NAME: u16 = 2;
const DESCRIPTION: u16 = 3;
const RESOLUTION: u16 = 9;
/// of a packet,
const FLAGS: u16 = 2;
/// and of statistics.
const LOST: u16 = 5;
const DELIVERED: u16 = 8;
/// Times are negative powers of ten of a second.
const NANOSECONDS: u8 = 9;

/// A frame at an interface.
pub(super) struct Packet<'a> {
    pub(super) interface: PortId,
    /// Since 1970.
    pub(super) at_ns: u64,
    /// Received, or else sent.
    pub(super) inbound: bool,
    /// Bytes of the frame, of which there may be fewer.
    pub(super) length: u32,
    pub(super) bytes: &'a [u8],
    pub(super) comment: Option<&'a str>,
}

/// The beginning of a file.
pub(super) fn section(out: &mut Vec<u8>, application: &str) {
    block(out, SECTION, |out| {
        out.extend(BYTE_ORDER.to_le_bytes());
        // Version 1.0, and a length that is not known.
        out.extend([1, 0, 0, 0]);
        out.extend((-1i64).to_le_bytes());
        option(out, APPLICATION, application.as_bytes());
        end_options(out);
    });
}

/// The next interface.
pub(super) fn interface(out: &mut Vec<u8>, name: &str, description: &str, snaplen: u32) {
    block(out, INTERFACE, |out| {
        out.extend(ETHERNET.to_le_bytes());
        out.extend([0, 0]);
        out.extend(snaplen.to_le_bytes());
        option(out, NAME, name.as_bytes());
        option(out, DESCRIPTION, description.as_bytes());
        option(out, RESOLUTION, &[NANOSECONDS]);
        end_options(out);
    });
}

/// A packet.
pub(super) fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    block(out, PACKET, |out| {
        at(out, packet.interface, packet.at_ns);
        out.extend((packet.bytes.len() as u32).to_le_bytes());
        out.extend(packet.length.to_le_bytes());
        padded(out, packet.bytes);
        if let Some(comment) = packet.comment {
            option(out, COMMENT, comment.as_bytes());
        }
        let flags = if packet.inbound { 1u32 } else { 2 };
        option(out, FLAGS, &flags.to_le_bytes());
        end_options(out);
    });
}

/// The end of an interface's packets: how many were written, and how many lost.
pub(super) fn statistics(out: &mut Vec<u8>, interface: PortId, at_ns: u64, written: u64, lost: u64) {
    block(out, STATISTICS, |out| {
        at(out, interface, at_ns);
        option(out, LOST, &lost.to_le_bytes());
        option(out, DELIVERED, &written.to_le_bytes());
        end_options(out);
    });
}

fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let length = ((out.len() - start + 4) as u32).to_le_bytes();
    out.extend(length);
    if let Some(place) = out.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&length);
    }
}

fn at(out: &mut Vec<u8>, interface: PortId, at_ns: u64) {
    out.extend(u32::from(interface.0).to_le_bytes());
    out.extend(((at_ns >> 32) as u32).to_le_bytes());
    out.extend((at_ns as u32).to_le_bytes());
}

fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.extend([0; 3].into_iter().take(bytes.len().wrapping_neg() % 4));
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Longer than any name or comment here.
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    padded(out, value);
}

fn end_options(out: &mut Vec<u8>) {
    out.extend([0; 4]);
}

/// The blocks that `bytes` begin with: their kinds and lengths, and the bytes that are left.
pub(super) fn blocks(bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (head, _) = rest.split_first_chunk::<8>()?;
        let word = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
        let (kind, length) = (word(0)?, word(4)? as usize);
        let (block, after) = rest.split_at_checked(length.max(12))?;
        rest = after;
        Some((kind, block))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_the_format_has_them() {
        let mut out = Vec::new();
        section(&mut out, "x");
        interface(&mut out, "front", "net_null0", 96);
        let (interface, at_ns) = (PortId(1), 0x1_0000_0002);
        let bytes = b"abcde";
        packet(&mut out, &Packet { interface, at_ns, inbound: true, length: 9, bytes, comment: Some("why") });
        statistics(&mut out, interface, at_ns, 7, 3);
        let found: Vec<(u32, usize)> = blocks(&out).map(|(kind, block)| (kind, block.len())).collect();
        assert_eq!(found.iter().map(|(_, length)| length).sum::<usize>(), out.len());
        assert_eq!(found.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [SECTION, 1, 6, 5]);
        let packet: Vec<&[u8]> = blocks(&out).map(|(_, block)| block).collect();
        let expected: Vec<u8> = [
            [6, 0, 0, 0, 60, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0].as_slice(),
            b"abcde\0\0\0",
            &[1, 0, 3, 0],
            b"why\0",
            &[2, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0],
        ]
        .concat();
        assert_eq!(packet[2], expected);
        assert!(found.iter().all(|(_, length)| length % 4 == 0));
        // A block that is cut is none.
        assert_eq!(blocks(&out[..out.len() - 1]).count(), 3);
    }
}
