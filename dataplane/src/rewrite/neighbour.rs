//! The messages of ARP and neighbour discovery that Millrace sends. These are whole frames, ready to be
//! sent: who asks also knows the stations' MAC addresses.

use super::originate::Network;
use super::{ORIGINATED_L3, set_link};
use crate::addr::{Ip, MacAddr};
use crate::drops::DropReason;
use crate::packet::PacketBuf;
use crate::snapshot::VlanTags;
use crate::wire::{Kind, Parsed, arp, ether, field_mut, icmp, icmpv6, ipv6, nd};

/// Who speaks: one of our addresses on a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Station {
    /// The port's MAC address.
    pub mac: MacAddr,
    /// The address.
    pub ip: Ip,
    /// The port's tags.
    pub vlan: VlanTags,
}

/// Turns an ARP request into the reply that its target is at `mac`.
pub fn into_arp_reply<B: PacketBuf>(
    buf: &mut B,
    parsed: &Parsed,
    mac: MacAddr,
    vlan: VlanTags,
) -> Result<(), DropReason> {
    let request = arp::Packet::parse(parsed.transport(buf.data())).ok_or(DropReason::ArpMalformed)?;
    if request.operation != arp::Operation::Request {
        return Err(DropReason::ArpMalformed);
    }
    let reply = arp::Packet {
        operation: arp::Operation::Reply,
        sender_mac: mac,
        sender: request.target,
        target_mac: request.sender_mac,
        target: request.sender,
    };
    write_arp(buf, &reply, request.sender_mac, vlan)
}

/// Writes an ARP request for `target`: to everybody, or to the station that had it last.
pub fn write_arp_request<B: PacketBuf>(
    buf: &mut B,
    from: &Station,
    target: Ip,
    to: Option<MacAddr>,
) -> Result<(), DropReason> {
    let request = arp::Packet {
        operation: arp::Operation::Request,
        sender_mac: from.mac,
        sender: from.ip,
        target_mac: MacAddr::default(),
        target,
    };
    write_arp(buf, &request, to.unwrap_or(MacAddr::BROADCAST), from.vlan)
}

/// Writes an ARP announcement (RFC 5227 §3): a request for the sender's own address, to everybody.
pub fn write_gratuitous_arp<B: PacketBuf>(buf: &mut B, from: &Station) -> Result<(), DropReason> {
    write_arp_request(buf, from, from.ip, None)
}

fn write_arp<B: PacketBuf>(
    buf: &mut B,
    packet: &arp::Packet,
    to: MacAddr,
    vlan: VlanTags,
) -> Result<(), DropReason> {
    if !buf.set_len(ether::LEN + arp::LEN) {
        return Err(DropReason::NoHeadroom);
    }
    packet.emit(field_mut(buf.data_mut(), ether::LEN).ok_or(DropReason::NoHeadroom)?);
    set_link(buf, ORIGINATED_L3, to, packet.sender_mac, vlan)
}

/// Turns a neighbour solicitation into the advertisement that its target is at `mac`.
///
/// The router flag is set: Millrace forwards packets, and backends may have it as their gateway.
pub fn into_neighbour_advertisement<B: PacketBuf>(
    buf: &mut B,
    parsed: &Parsed,
    solicitation: &nd::Solicitation,
    mac: MacAddr,
    vlan: VlanTags,
) -> Result<(), DropReason> {
    if parsed.kind != Kind::Icmpv6 {
        return Err(DropReason::NdInvalid);
    }
    let asker = ether::Header::new(buf.data()).ok_or(DropReason::EthernetTruncated)?.src();
    // Who has no address yet is told with everybody else (RFC 4861 §7.2.4).
    let solicited = parsed.key.src != ipv6::UNSPECIFIED;
    let (dst, to) = if solicited {
        (parsed.key.src, solicitation.source_mac.unwrap_or(asker))
    } else {
        (ipv6::ALL_NODES, group_mac(ipv6::ALL_NODES))
    };
    let target = solicitation.target;
    let advertisement =
        nd::Advertisement { target, target_mac: Some(mac), router: true, solicited, overrides: true };
    let from = Station { mac, ip: target, vlan };
    write_nd(buf, &from, (dst, to), |message| advertisement.emit(mac, message))
}

/// Writes a neighbour solicitation for `target`: to its solicited-node group, or to the station that
/// had it last.
pub fn write_neighbour_solicitation<B: PacketBuf>(
    buf: &mut B,
    from: &Station,
    target: Ip,
    to: Option<MacAddr>,
) -> Result<(), DropReason> {
    let group = ipv6::solicited_node(target);
    let to = to.map_or((group, group_mac(group)), |mac| (target, mac));
    write_nd(buf, from, to, |message| nd::Solicitation::emit(target, from.mac, message))
}

/// Writes an unsolicited advertisement of the sender's own address, to everybody (RFC 4861 §7.2.6).
pub fn write_unsolicited_advertisement<B: PacketBuf>(buf: &mut B, from: &Station) -> Result<(), DropReason> {
    let advertisement = nd::Advertisement {
        target: from.ip,
        target_mac: Some(from.mac),
        router: true,
        solicited: false,
        overrides: true,
    };
    let to = (ipv6::ALL_NODES, group_mac(ipv6::ALL_NODES));
    write_nd(buf, from, to, |message| advertisement.emit(from.mac, message))
}

fn write_nd<B: PacketBuf>(
    buf: &mut B,
    from: &Station,
    (dst, to): (Ip, MacAddr),
    emit: impl FnOnce(&mut [u8; nd::LEN]),
) -> Result<(), DropReason> {
    let network = Network { hops: nd::HOP_LIMIT, ..Network::new(from.ip, dst, icmpv6::PROTOCOL) };
    if !buf.set_len(network.l4() + nd::LEN) {
        return Err(DropReason::NoHeadroom);
    }
    let frame = buf.data_mut();
    emit(field_mut(frame, network.l4()).ok_or(DropReason::NoHeadroom)?);
    network.emit(frame, icmp::CHECKSUM).ok_or(DropReason::NoHeadroom)?;
    set_link(buf, ORIGINATED_L3, to, from.mac, from.vlan)
}

/// The Ethernet group of an IPv6 group (RFC 2464 §7).
fn group_mac(group: Ip) -> MacAddr {
    let [a, b, c, d] = group.low32().to_be_bytes();
    MacAddr([0x33, 0x33, a, b, c, d])
}
