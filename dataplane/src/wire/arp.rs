//! ARP (RFC 826) for IPv4 on Ethernet.

use crate::addr::{Ip, MacAddr};
use crate::wire::ether;

/// Bytes of a packet.
pub const LEN: usize = 28;

/// Hardware type Ethernet, protocol IPv4, and the lengths of their addresses.
const PREFIX: [u8; 6] = [0, 1, (ether::IPV4 >> 8) as u8, ether::IPV4 as u8, 6, 4];

/// What an ARP packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's MAC address.
    pub sender_mac: MacAddr,
    /// The sender's IPv4 address; unspecified in a probe (RFC 5227).
    pub sender: Ip,
    /// The MAC address of the target: meaningless in a request.
    pub target_mac: MacAddr,
    /// The IPv4 address asked for, or that of the asker.
    pub target: Ip,
}

impl Packet {
    /// The packet at the start of `bytes`; `None` if truncated, not IPv4 on Ethernet, or of another
    /// operation than request and reply.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Packet> {
        let bytes: &[u8; LEN] = bytes.first_chunk()?;
        if !bytes.starts_with(&PREFIX) {
            return None;
        }
        let mac = |at: usize| bytes.get(at..)?.first_chunk().map(|mac| MacAddr(*mac));
        let ip = |at: usize| bytes.get(at..)?.first_chunk().map(|ip| Ip::v4(u32::from_be_bytes(*ip)));
        Some(Packet {
            operation: match u16::from_be_bytes([bytes[6], bytes[7]]) {
                1 => Operation::Request,
                2 => Operation::Reply,
                _ => return None,
            },
            sender_mac: mac(8)?,
            sender: ip(14)?,
            target_mac: mac(18)?,
            target: ip(24)?,
        })
    }

    /// Writes the packet.
    pub fn emit(&self, bytes: &mut [u8; LEN]) {
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        bytes[..6].copy_from_slice(&PREFIX);
        bytes[6..8].copy_from_slice(&operation.to_be_bytes());
        bytes[8..14].copy_from_slice(&self.sender_mac.0);
        bytes[14..18].copy_from_slice(&self.sender.low32().to_be_bytes());
        bytes[18..24].copy_from_slice(&self.target_mac.0);
        bytes[24..].copy_from_slice(&self.target.low32().to_be_bytes());
    }
}
