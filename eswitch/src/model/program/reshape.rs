//! What changes a frame's length: tunnels on and off, tags on and off.

use dataplane::packet::PacketBuf;

use super::checksum::{fold, sum};
use super::entropy;
use crate::model::key::{Headers, L3};
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::switch::DropReason;

/// The most bytes of an encapsulation: `MLX5_ENCAP_MAX_LEN`, `drivers/net/mlx5/mlx5_flow.h` of DPDK 22.11.
pub const ENCAP_MAX: usize = 132;

/// Below this a raw encapsulation is of Ethernet alone, from it on of a tunnel: Ethernet and IPv4, as of IP
/// in IP. `MLX5_ENCAPSULATION_DECISION_SIZE`, same file. (That software steering takes none of just this
/// length is validation's business.)
pub(super) const TUNNEL_MIN: usize = 34;

/// What goes from the front. The bytes that the application gave do not count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Decap {
    /// Everything before the inner Ethernet header: anchors `PACKET_START` to `INNER_MAC` in
    /// `drivers/net/mlx5/hws/mlx5dr_action.c` of DPDK 22.11.
    Tunnel,
    /// Everything before the inner network header, to `INNER_IPV6_IPV4`; then this goes before it, an
    /// Ethernet header and perhaps tags.
    TunnelToL2(Box<[u8]>),
}

impl Decap {
    /// Does it; the packet's headers must be found anew.
    pub(super) fn apply<B: PacketBuf>(&self, packet: &mut B, headers: &Headers) -> Result<(), DropReason> {
        let inner = &headers.inner;
        let (at, l2): (_, &[u8]) = match self {
            Decap::Tunnel if inner.has_l2 => (inner.l2, &[]),
            Decap::TunnelToL2(l2) if inner.l3 != L3::None => (inner.l3_at, l2),
            _ => return Err(DropReason::Malformed),
        };
        if headers.tunnel.is_none() || !packet.trim_front(usize::from(at)) {
            return Err(DropReason::Malformed);
        }
        put_before(packet, l2)
    }
}

fn put_before<B: PacketBuf>(packet: &mut B, bytes: &[u8]) -> Result<(), DropReason> {
    if !packet.grow_front(bytes.len()) {
        return Err(DropReason::Headroom);
    }
    let Some((front, _)) = packet.data_mut().split_at_mut_checked(bytes.len()) else {
        return Err(DropReason::Malformed);
    };
    front.copy_from_slice(bytes);
    Ok(())
}

/// Takes off the outermost tag.
pub(super) fn pop<B: PacketBuf>(packet: &mut B, headers: &Headers) -> Result<(), DropReason> {
    let tagged = headers.outer.has_l2 && headers.outer.vlans > 0 && packet.data().len() >= 18;
    if !tagged {
        return Err(DropReason::Malformed);
    }
    packet.data_mut().copy_within(..12, 4);
    if packet.trim_front(4) { Ok(()) } else { Err(DropReason::Malformed) }
}

/// A tag to put on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag {
    pub(super) ethertype: u16,
    pub(super) tci: u16,
}

impl Tag {
    /// Puts it on, outermost.
    pub(super) fn push<B: PacketBuf>(self, packet: &mut B) -> Result<(), DropReason> {
        if packet.data().len() < 14 {
            return Err(DropReason::Malformed);
        }
        if !packet.grow_front(4) {
            return Err(DropReason::Headroom);
        }
        let frame = packet.data_mut();
        frame.copy_within(4..16, 0);
        frame[12..14].copy_from_slice(&self.ethertype.to_be_bytes());
        frame[14..16].copy_from_slice(&self.tci.to_be_bytes());
        Ok(())
    }
}

/// Where an encapsulation's network layer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Network {
    None,
    /// At, and the sum of its header without length and checksum.
    Ipv4(u8, u32),
    Ipv6(u8),
}

/// Headers to put before the frame.
///
/// The device fills in IPv4's total length and header checksum, IPv6's payload length and UDP's length. A
/// UDP checksum is 0, whatever the application wrote (`flow_dv_zero_encap_udp_csum` in
/// `drivers/net/mlx5/mlx5_flow_dv.c`; "Resulting packet will have outer UDP checksum equal to 0",
/// `doc/guides/nics/mlx5.rst`, DPDK 22.11 and 26.07). UDP's source port is the [entropy] of
/// the frame if the device knows the tunnel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Encap {
    pub(super) bytes: Box<[u8]>,
    network: Network,
    /// Where the UDP header is; 0: nowhere.
    udp: u8,
    entropy: bool,
    /// It takes the place of the frame's Ethernet header and tags (`IPV6_IPV4`, same file).
    pub(super) replaces_l2: bool,
}

/// Destination ports of the tunnels that get entropy: VXLAN, VXLAN-GPE, GENEVE.
const TUNNEL_PORTS: [u16; 3] = [4789, 4790, 6081];

impl Encap {
    /// These headers, from Ethernet on.
    ///
    /// # Errors
    /// EINVAL if they are none or too many.
    pub(super) fn new(bytes: &[u8], replaces_l2: bool, index: usize) -> Result<Encap, Refusal> {
        if !(14..=ENCAP_MAX).contains(&bytes.len()) {
            let message = "an encapsulation has an Ethernet header and at most 132 bytes";
            return Err(Refusal::new(Errno::Inval, Cause::ActionConf(index), message));
        }
        let mut bytes: Box<[u8]> = bytes.into();
        let network_at = network_at(&bytes);
        let (network, udp) = match network_at.map(|(at, ethertype)| (at, ethertype, bytes.get_mut(at..))) {
            Some((at, 0x0800, Some(header))) if header.len() >= 20 => ipv4(at, header),
            Some((at, 0x86dd, Some(header))) if header.len() >= 40 => {
                let udp = (header[6] == 17 && header.len() >= 48).then_some(at + 40);
                (Network::Ipv6(at as u8), udp)
            }
            _ => (Network::None, None),
        };
        let mut entropy = false;
        if let Some(udp) = udp.and_then(|at| bytes.get_mut(at..)) {
            udp[6..8].fill(0);
            entropy = TUNNEL_PORTS.contains(&u16::from_be_bytes([udp[2], udp[3]]));
        }
        Ok(Encap { bytes, network, udp: udp.map_or(0, |at| at as u8), entropy, replaces_l2 })
    }

    /// Puts them before the frame. `headers`: the frame's until now.
    pub(super) fn apply<B: PacketBuf>(&self, packet: &mut B, headers: &Headers) -> Result<(), DropReason> {
        let source = if self.entropy { Some(entropy::port(packet.data(), headers)) } else { None };
        if self.replaces_l2 {
            let network = usize::from(headers.outer.l3_at);
            if headers.outer.l3 == L3::None || !packet.trim_front(network) {
                return Err(DropReason::Malformed);
            }
        }
        put_before(packet, &self.bytes)?;
        let frame = packet.data_mut();
        self.fill(frame, source).ok_or(DropReason::Malformed)
    }

    /// Fills in what depends on the frame; `None` if it is too long for its length fields.
    fn fill(&self, frame: &mut [u8], source: Option<u16>) -> Option<()> {
        let len = |at: u8| u16::try_from(frame.len().checked_sub(usize::from(at))?).ok();
        let udp_len = len(self.udp);
        match self.network {
            Network::None => {}
            Network::Ipv4(at, partial) => {
                let total = len(at)?;
                let header = frame.get_mut(usize::from(at)..)?.first_chunk_mut::<20>()?;
                header[2..4].copy_from_slice(&total.to_be_bytes());
                let checksum = !fold(u64::from(partial) + u64::from(total));
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            Network::Ipv6(at) => {
                let payload = len(at + 40)?;
                let header = frame.get_mut(usize::from(at)..)?.first_chunk_mut::<40>()?;
                header[4..6].copy_from_slice(&payload.to_be_bytes());
            }
        }
        if self.udp != 0 {
            let header = frame.get_mut(usize::from(self.udp)..)?.first_chunk_mut::<8>()?;
            header[4..6].copy_from_slice(&udp_len?.to_be_bytes());
            if let Some(source) = source {
                header[..2].copy_from_slice(&source.to_be_bytes());
            }
        }
        Some(())
    }
}

/// Where the network layer begins, and its EtherType.
fn network_at(bytes: &[u8]) -> Option<(usize, u16)> {
    let mut at = 12;
    loop {
        let ethertype = u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?);
        if !matches!(ethertype, 0x8100 | 0x88a8) {
            return Some((at + 2, ethertype));
        }
        at += 4;
    }
}

/// Prepares an IPv4 header, and says where UDP is.
fn ipv4(at: usize, header: &mut [u8]) -> (Network, Option<usize>) {
    let len = usize::from(header[0] & 15) * 4;
    let Some(own) = header.get_mut(..len).filter(|own| own.len() >= 20) else {
        return (Network::None, None);
    };
    own[2..4].fill(0);
    own[10..12].fill(0);
    let partial = sum(own) as u32;
    let udp = (own[9] == 17 && header.len() >= len + 8).then_some(at + len);
    (Network::Ipv4(at as u8, partial), udp)
}
