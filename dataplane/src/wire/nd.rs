//! Neighbour discovery (RFC 4861): solicitations and advertisements.

use crate::addr::{Ip, MacAddr};
use crate::wire::{field, icmp, ipv6};

/// Type: router solicitation,
const ROUTER_SOLICITATION: u8 = 133;
/// router advertisement,
const ROUTER_ADVERTISEMENT: u8 = 134;
/// and redirect.
const REDIRECT: u8 = 137;
/// Type: neighbour solicitation.
pub const SOLICITATION: u8 = 135;
/// Type: neighbour advertisement.
pub const ADVERTISEMENT: u8 = 136;
/// The hop limit of every message: whatever arrives with less has crossed a router.
pub const HOP_LIMIT: u8 = 255;
/// Bytes of either message with one link-layer address option.
pub const LEN: usize = OPTIONS + 8;

/// Offset of the options.
const OPTIONS: usize = 24;
/// Option: link-layer address of the sender of a solicitation.
const SOURCE_ADDRESS: u8 = 1;
/// Option: link-layer address of the target of an advertisement.
const TARGET_ADDRESS: u8 = 2;

/// Who has this address?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Solicitation {
    /// The address asked for.
    pub target: Ip,
    /// The asker's MAC address; absent in duplicate address detection.
    pub source_mac: Option<MacAddr>,
}

/// Who has an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advertisement {
    /// The address.
    pub target: Ip,
    /// Its MAC address; may be absent in an answer to a unicast solicitation.
    pub target_mac: Option<MacAddr>,
    /// R: the sender forwards packets.
    pub router: bool,
    /// S: this answers a solicitation.
    pub solicited: bool,
    /// O: replaces what is known already.
    pub overrides: bool,
}

/// What the checks of RFC 4861 §7.1 need to know of the IPv6 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    /// Source address.
    pub src: Ip,
    /// Destination address.
    pub dst: Ip,
    /// Hop limit.
    pub hop_limit: u8,
}

impl Solicitation {
    /// Reads an ICMPv6 message whose checksum has been verified; `None` if it fails RFC 4861 §7.1.1.
    #[must_use]
    pub fn parse(message: &[u8], network: Network) -> Option<Solicitation> {
        let target = target(message, network)?;
        let source_mac = link_address(message, SOURCE_ADDRESS)?;
        let unspecified = network.src == ipv6::UNSPECIFIED;
        if unspecified && (source_mac.is_some() || network.dst != ipv6::solicited_node(target)) {
            return None;
        }
        Some(Solicitation { target, source_mac })
    }

    /// Writes the message with a source link-layer address option and checksum 0.
    pub fn emit(target: Ip, source_mac: MacAddr, message: &mut [u8; LEN]) {
        emit(message, SOLICITATION, 0, target, (SOURCE_ADDRESS, source_mac));
    }
}

impl Advertisement {
    /// Reads an ICMPv6 message whose checksum has been verified; `None` if it fails RFC 4861 §7.1.2.
    #[must_use]
    pub fn parse(message: &[u8], network: Network) -> Option<Advertisement> {
        let target = target(message, network)?;
        let flags = *message.get(4)?;
        let advertisement = Advertisement {
            target,
            target_mac: link_address(message, TARGET_ADDRESS)?,
            router: flags & 0x80 != 0,
            solicited: flags & 0x40 != 0,
            overrides: flags & 0x20 != 0,
        };
        let contradicts = advertisement.solicited && ipv6::is_multicast(network.dst);
        (!contradicts).then_some(advertisement)
    }

    /// Writes the message with `mac` as target link-layer address option and checksum 0.
    pub fn emit(&self, mac: MacAddr, message: &mut [u8; LEN]) {
        let flags =
            u32::from(self.router) << 31 | u32::from(self.solicited) << 30 | u32::from(self.overrides) << 29;
        emit(message, ADVERTISEMENT, flags, self.target, (TARGET_ADDRESS, mac));
    }
}

/// Whether an ICMPv6 message whose checksum has been verified is one of neighbour discovery that passes the
/// checks of RFC 4861: §6.1 for those of routers, §7.1 for those of neighbours, §8.1 for redirects.
#[must_use]
pub fn is_valid(message: &[u8], network: Network) -> bool {
    let Some(&[kind, code]) = message.first_chunk() else { return false };
    let link = network.hop_limit == HOP_LIMIT && code == 0;
    let from_router = is_link_local(network.src);
    link && match kind {
        ROUTER_SOLICITATION => {
            let named = options(message, 8, SOURCE_ADDRESS);
            named.is_some_and(|mac| mac.is_none() || network.src != ipv6::UNSPECIFIED)
        }
        ROUTER_ADVERTISEMENT => from_router && options(message, 16, SOURCE_ADDRESS).is_some(),
        SOLICITATION => Solicitation::parse(message, network).is_some(),
        ADVERTISEMENT => Advertisement::parse(message, network).is_some(),
        REDIRECT => {
            let about = field(message, 24).map(|octets| Ip::v6(*octets));
            let one = about.is_some_and(|about| !ipv6::is_multicast(about));
            from_router && one && options(message, 40, TARGET_ADDRESS).is_some()
        }
        _ => false,
    }
}

/// Whether an address is `fe80::/10`.
fn is_link_local(ip: Ip) -> bool {
    ip.words()[0] >> 54 == 0xfe80 >> 6
}

/// The target, after the checks both messages share.
fn target(message: &[u8], network: Network) -> Option<Ip> {
    let target = Ip::v6(*field(message, 8)?);
    let code = *message.get(1)?;
    let valid = network.hop_limit == HOP_LIMIT
        && code == 0
        && !ipv6::is_multicast(target)
        && target != ipv6::UNSPECIFIED
        && target != ipv6::LOOPBACK
        && !target.is_v4();
    valid.then_some(target)
}

/// The link-layer address in an option of this type, if there is one; `None` if the options are
/// malformed.
fn link_address(message: &[u8], kind: u8) -> Option<Option<MacAddr>> {
    options(message, OPTIONS, kind)
}

/// Likewise of a message whose options begin at `at`.
fn options(message: &[u8], at: usize, kind: u8) -> Option<Option<MacAddr>> {
    let mut options = message.get(at..)?;
    let mut found = None;
    while let [option, units, ..] = *options {
        let (this, rest) = options.split_at_checked(usize::from(units) * 8)?;
        if units == 0 {
            return None;
        }
        if option == kind && units == 1 {
            found = field(this, 2).map(|mac| MacAddr(*mac));
        }
        options = rest;
    }
    options.is_empty().then_some(found)
}

fn emit(message: &mut [u8; LEN], kind: u8, flags: u32, target: Ip, (option, mac): (u8, MacAddr)) {
    if let Some(header) = message.first_chunk_mut() {
        icmp::emit(header, kind, 0, flags);
    }
    message[8..OPTIONS].copy_from_slice(&target.octets());
    message[OPTIONS] = option;
    message[OPTIONS + 1] = 1;
    message[OPTIONS + 2..].copy_from_slice(&mac.0);
}
