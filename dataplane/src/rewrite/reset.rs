//! TCP resets.

use super::ORIGINATED_L3;
use super::originate::{Network, is_station, to_bare_packet};
use crate::addr::Ip;
use crate::drops::DropReason;
use crate::packet::PacketBuf;
use crate::wire::{FragmentRole, Kind, Parsed, TcpFlags, field_mut, tcp};

/// Whether a packet can be answered by a reset: not if it is one, nor a fragment.
#[must_use]
pub fn may_be_reset(parsed: &Parsed) -> bool {
    parsed.kind == Kind::Tcp && parsed.fragment == FragmentRole::Whole && !parsed.tcp_flags.rst()
}

/// Turns a TCP segment into the reset that answers it, as if its connection did not exist (RFC 9293
/// §3.10.7.1). Never answers a reset, a fragment, or what was not sent to
/// one station: [`DropReason::NoConnection`].
///
/// Afterwards the IP header is at [`ORIGINATED_L3`].
pub fn into_tcp_reset<B: PacketBuf>(buf: &mut B, parsed: &Parsed) -> Result<(), DropReason> {
    if !may_be_reset(parsed) || !is_station(parsed.key.dst) {
        return Err(DropReason::NoConnection);
    }
    let reset = answer(parsed.transport(buf.data())).ok_or(DropReason::TcpTruncated)?;
    become_reset(buf, parsed, Network::new(parsed.key.dst, parsed.key.src, tcp::PROTOCOL), reset)
}

/// Turns a TCP segment into a reset for its receiver, in the segment's place: the receiver expects its
/// sequence number next and so believes it (RFC 5961 §3.2). `from` is the sender as the receiver knows
/// it. What [`into_tcp_reset`] says of exceptions and of the IP header holds here too.
pub fn into_reset_of_receiver<B: PacketBuf>(
    buf: &mut B,
    parsed: &Parsed,
    from: (Ip, u16),
) -> Result<(), DropReason> {
    if !may_be_reset(parsed) || !is_station(from.0) {
        return Err(DropReason::NoConnection);
    }
    let header = tcp::Header::new(parsed.transport(buf.data())).ok_or(DropReason::TcpTruncated)?;
    let flags = if header.flags().ack() { TcpFlags::RST.with(TcpFlags::ACK) } else { TcpFlags::RST };
    let (seq, ack) = (header.seq(), if flags.ack() { header.ack() } else { 0 });
    let reset = tcp::Repr { src_port: from.1, dst_port: header.dst_port(), seq, ack, flags };
    become_reset(buf, parsed, Network::new(from.0, parsed.key.dst, tcp::PROTOCOL), reset)
}

/// Replaces everything in the buffer by `reset`.
fn become_reset<B: PacketBuf>(
    buf: &mut B,
    parsed: &Parsed,
    network: Network,
    reset: tcp::Repr,
) -> Result<(), DropReason> {
    to_bare_packet(buf, parsed)?;
    if !(buf.grow_front(ORIGINATED_L3.into()) && buf.set_len(network.l4() + tcp::LEN)) {
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
