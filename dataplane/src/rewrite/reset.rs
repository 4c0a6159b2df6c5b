//! TCP resets.

use super::ORIGINATED_L3;
use super::originate::{Network, is_station, to_bare_packet};
use crate::drops::DropReason;
use crate::packet::PacketBuf;
use crate::wire::{FragmentRole, Kind, Parsed, TcpFlags, field_mut, tcp};

/// Turns a TCP segment into the reset that answers it, as if its connection did not exist (RFC 9293
/// §3.10.7.1). Never answers a reset, a fragment, or what was not sent to
/// one station: [`DropReason::NoConnection`].
///
/// Afterwards the IP header is at [`ORIGINATED_L3`].
pub fn into_tcp_reset<B: PacketBuf>(buf: &mut B, parsed: &Parsed) -> Result<(), DropReason> {
    let answerable = parsed.kind == Kind::Tcp && parsed.fragment == FragmentRole::Whole;
    if !answerable || parsed.tcp_flags.rst() || !is_station(parsed.key.dst) {
        return Err(DropReason::NoConnection);
    }
    let reset = answer(parsed.transport(buf.data())).ok_or(DropReason::TcpTruncated)?;
    let network = Network::new(parsed.key.dst, parsed.key.src, tcp::PROTOCOL);
    let l4 = network.l4();
    to_bare_packet(buf, parsed)?;
    if !(buf.grow_front(ORIGINATED_L3.into()) && buf.set_len(l4 + tcp::LEN)) {
        return Err(DropReason::NoHeadroom);
    }
    emit(buf.data_mut(), network, reset).ok_or(DropReason::NoHeadroom)
}

/// The reset for this segment.
fn answer(segment: &[u8]) -> Option<tcp::Repr> {
    let header = tcp::Header::new(segment)?;
    let flags = header.flags();
    let payload = segment.len().checked_sub(header.header_len())?;
    let len = payload as u32 + u32::from(flags.syn()) + u32::from(flags.fin());
    let (src_port, dst_port) = (header.dst_port(), header.src_port());
    Some(if flags.ack() {
        tcp::Repr { src_port, dst_port, seq: header.ack(), ack: 0, flags: TcpFlags::RST }
    } else {
        let ack = header.seq().wrapping_add(len);
        tcp::Repr { src_port, dst_port, seq: 0, ack, flags: TcpFlags::RST.with(TcpFlags::ACK) }
    })
}

fn emit(frame: &mut [u8], network: Network, reset: tcp::Repr) -> Option<()> {
    reset.emit(field_mut(frame, network.l4())?);
    network.emit(frame, tcp::CHECKSUM)
}
