//! What the far end says to a packet that the device under test sends it: an answer made of the packet
//! itself, so that whatever the device has translated is translated back.

use std::net::IpAddr;

use crate::check::{Headers, fold, sum, word};
use crate::frame::{ACK, FIN, RST, SERVER_SEQUENCE, SYN};

/// The shortest frame, without its checksum.
const FRAME_MIN: usize = 60;

/// Turns a frame into its answer; how many bytes that has. `None`: no answer, and the frame is as it was.
///
/// A SYN is answered by a SYN with an acknowledgement, a FIN by a FIN; with `all`, data by an
/// acknowledgement, and a datagram by itself. What comes from the VIP (address and port) is for a client,
/// and not answered. Checksums change by what changes in the packet: a wrong one stays wrong.
#[inline]
pub fn answer(frame: &mut [u8], vip: (IpAddr, u16), all: bool) -> Option<usize> {
    let headers = Headers::find(frame)?;
    if is_from(frame, &headers, vip) {
        return None;
    }
    if headers.udp {
        return all.then(|| {
            turn(frame, &headers);
            frame.len()
        });
    }
    let data = headers.l4 + usize::from(frame[headers.l4 + 12] >> 4) * 4;
    if data > headers.end || data < headers.l4 + 20 {
        return None;
    }
    let flags = frame[headers.l4 + 13] & (SYN | FIN | RST | ACK);
    let reply = match flags {
        SYN => SYN | ACK,
        flags if flags & (SYN | RST) != 0 => return None,
        flags if flags & FIN != 0 => FIN | ACK,
        _ if all && data < headers.end => ACK,
        _ => return None,
    };
    Some(reply_with(frame, &headers, data, reply))
}

/// The packet as a reply with these flags and without data, which starts at `data`.
fn reply_with(frame: &mut [u8], headers: &Headers, data: usize, flags: u8) -> usize {
    let l4 = headers.l4;
    let asked = frame[l4 + 13];
    let sequence = double(frame, l4 + 4);
    let counted = (headers.end - data) as u32 + u32::from(asked & SYN != 0) + u32::from(asked & FIN != 0);
    let own = if asked & SYN != 0 { SERVER_SEQUENCE } else { double(frame, l4 + 8) };
    // What is left out of the sum is added as its complement.
    let before = sum(&frame[l4 + 4..l4 + 14]) + sum(&frame[data..headers.end]) + (headers.end - l4) as u32;
    frame[l4 + 4..l4 + 8].copy_from_slice(&own.to_be_bytes());
    frame[l4 + 8..l4 + 12].copy_from_slice(&sequence.wrapping_add(counted).to_be_bytes());
    frame[l4 + 13] = flags;
    let after = sum(&frame[l4 + 4..l4 + 14]) + (data - l4) as u32;
    amend(frame, headers.checksum(), before, after);
    let (length_at, length) = if headers.ipv6 { (4, data - l4) } else { (2, data - headers.l3) };
    let length_at = headers.l3 + length_at;
    let old = word(frame, length_at).unwrap_or_default();
    frame[length_at..length_at + 2].copy_from_slice(&(length as u16).to_be_bytes());
    if !headers.ipv6 {
        amend(frame, headers.l3 + 10, u32::from(old), length as u32);
    }
    turn(frame, headers);
    let size = frame.len().min(data.max(FRAME_MIN));
    frame[data..size].fill(0);
    size
}

/// Changes a checksum by words that go and words that come.
fn amend(frame: &mut [u8], at: usize, before: u32, after: u32) {
    let checksum = word(frame, at).unwrap_or_default();
    let sum = u32::from(!checksum) + u32::from(!fold(before)) + u32::from(fold(after));
    frame[at..at + 2].copy_from_slice(&(!fold(sum)).to_be_bytes());
}

/// Sends a packet back: addresses and ports change places, which no checksum sees.
fn turn(frame: &mut [u8], headers: &Headers) {
    let (addresses, size) = headers.addresses();
    swap(&mut frame[..12], 6);
    swap(&mut frame[addresses..addresses + 2 * size], size);
    swap(&mut frame[headers.l4..headers.l4 + 4], 2);
}

fn swap(bytes: &mut [u8], size: usize) {
    let (first, second) = bytes.split_at_mut(size);
    first.swap_with_slice(second);
}

fn is_from(frame: &[u8], headers: &Headers, (address, port): (IpAddr, u16)) -> bool {
    let (at, size) = headers.addresses();
    let source = &frame[at..at + size];
    let same = match address {
        IpAddr::V4(address) => source == address.octets(),
        IpAddr::V6(address) => source == address.octets(),
    };
    same && word(frame, headers.l4) == Some(port)
}

fn double(frame: &[u8], at: usize) -> u32 {
    u32::from(word(frame, at).unwrap_or_default()) << 16 | u32::from(word(frame, at + 2).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TcpHeader, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::args::Args;
    use crate::check::checksums_are_right;
    use crate::frame::{Kind, Template};

    const VIP: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)), 80);

    fn frame(args: &str, kind: Kind, flow: u32) -> Vec<u8> {
        let args = Args::parse(args).unwrap();
        let template = Template::new(&args, kind, args.size, [2, 0, 0, 0, 0, 7]);
        let mut frame = vec![0; template.room()];
        template.write(flow, &mut frame);
        frame.truncate(usize::from(template.size()));
        frame
    }

    /// Addresses and ports, from and to; the TCP header.
    fn parts(frame: &[u8]) -> ([Vec<u8>; 4], TcpHeader) {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let (source, destination) = match sliced.net.unwrap() {
            NetSlice::Ipv4(ip) => (ip.header().source().to_vec(), ip.header().destination().to_vec()),
            NetSlice::Ipv6(ip) => (ip.header().source().to_vec(), ip.header().destination().to_vec()),
            NetSlice::Arp(_) => unreachable!(),
        };
        match sliced.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                assert!(tcp.payload().is_empty() || tcp.psh());
                let ports =
                    [tcp.source_port(), tcp.destination_port()].map(|port| port.to_be_bytes().to_vec());
                let [from, to] = ports;
                ([source, destination, from, to], tcp.to_header())
            }
            _ => unreachable!(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn segments_are_answered_by_the_book(
            ipv6: bool, size in 74..1515_u16, kind in 0..3_usize, flow: u32, damage in 0..2_u8,
        ) {
            let kind = [Kind::Syn, Kind::Data, Kind::Fin][kind];
            let mut asked = frame(&format!("ipv6={},size={size}", u8::from(ipv6)), kind, flow);
            let ([source, destination, from, to], question) = parts(&asked);
            // In the checksum itself: a device that gets it wrong.
            asked[if ipv6 { 71 } else { 51 }] ^= damage;
            let macs = asked[..12].to_vec();
            let length = answer(&mut asked, VIP, true).unwrap();
            let reply = &asked[..length];
            prop_assert_eq!(checksums_are_right(reply), Some(damage == 0));
            let (ends, header) = parts(reply);
            prop_assert_eq!(ends, [destination, source, to, from]);
            prop_assert_eq!(&reply[..12], [&macs[6..], &macs[..6]].concat());
            prop_assert_eq!((header.syn, header.fin, header.ack), (question.syn, question.fin, true));
            let data = if kind == Kind::Data { u32::from(size) - if ipv6 { 74 } else { 54 } } else { 1 };
            prop_assert_eq!(header.acknowledgment_number, question.sequence_number.wrapping_add(data));
            let own = if question.syn { SERVER_SEQUENCE } else { question.acknowledgment_number };
            prop_assert_eq!(header.sequence_number, own);
            prop_assert_eq!(length, if ipv6 { 74 } else { 60 });
        }
    }

    #[test]
    fn datagrams_come_back_as_they_went() {
        for (args, ports) in [("protocol=udp,size=100", 34), ("protocol=udp,ipv6=1,size=100", 54)] {
            let asked = frame(args, Kind::Datagram, 40_000);
            let mut reply = asked.clone();
            assert_eq!(answer(&mut reply, VIP, false), None);
            assert_eq!(answer(&mut reply, VIP, true), Some(100));
            assert_eq!(checksums_are_right(&reply), Some(true));
            assert_eq!(reply[ports..ports + 2], asked[ports + 2..ports + 4]);
            assert_eq!(answer(&mut reply, VIP, true), Some(100));
            assert_eq!(reply, asked);
        }
    }

    #[test]
    fn some_things_have_no_answer() {
        let silent = |frame: Vec<u8>, vip, all| {
            let mut reply = frame.clone();
            assert_eq!(answer(&mut reply, vip, all), None);
            assert_eq!(reply, frame);
        };
        silent(frame("", Kind::Ack, 1), VIP, true);
        silent(frame("", Kind::LastAck, 1), VIP, true);
        silent(frame("", Kind::Data, 1), VIP, false);
        let mut answered = frame("", Kind::Syn, 1);
        assert!(answer(&mut answered, VIP, false).is_some());
        silent(answered, VIP, true);
        let mut reset = frame("", Kind::Data, 1);
        reset[47] |= RST;
        silent(reset, VIP, true);
        // From the VIP, to a client.
        silent(frame("", Kind::Syn, 0), ([100, 64, 0, 0].into(), 1024), true);
        let mut other = frame("", Kind::Syn, 0);
        other[12..14].copy_from_slice(&[8, 6]);
        silent(other, VIP, true);
    }
}
