//! `vxlan_encap`'s list of items becomes the bytes of the headers.
//!
//! Each item's `spec` is copied as it is; a few fields that the application left zero get the value that
//! makes the headers valid. Which ones is mlx5's choice (`flow_dv_convert_encap_data` of DPDK 22.11).

use arrayvec::ArrayVec;

use super::items::ELEMENTS_MAX;
use crate::pmd::ffi;

/// Bytes of headers at most: mlx5's `MLX5_ENCAP_MAX_LEN`.
pub(super) const ENCAP_BYTES_MAX: usize = 132;

/// Headers, as long as they are.
pub(super) type Headers = ArrayVec<u8, ENCAP_BYTES_MAX>;

/// What a decapsulation without a description is described by.
pub(super) static ZEROES: [u8; ENCAP_BYTES_MAX] = [0; ENCAP_BYTES_MAX];

const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_GRE: u8 = 47;
const PORT_VXLAN: u16 = 4789;
const PORT_VXLAN_GPE: u16 = 4790;
/// TTL and hop limit that mlx5 fills in, 64 and 255.
const TTL: u8 = 64;
const HOP_LIMIT: u8 = 255;

/// Where the headers so far begin.
#[derive(Default)]
struct Seen {
    eth: Option<usize>,
    vlan: Option<usize>,
    ipv4: Option<usize>,
    ipv6: Option<usize>,
    udp: Option<usize>,
}

/// Builds the headers.
///
/// # Errors
/// What is wrong with the list; always EINVAL.
///
/// # Safety
/// `raw` is null or points to a list of items up to `END`, whose `spec` is null or points to the structure
/// of the item's type.
pub(super) unsafe fn build(raw: *const ffi::rte_flow_item) -> Result<Headers, &'static str> {
    if raw.is_null() {
        return Err("invalid empty data");
    }
    let (mut headers, mut seen) = (Headers::new(), Seen::default());
    for at in 0..ELEMENTS_MAX {
        // SAFETY: no element so far was the last, so this one exists.
        let item = unsafe { &*raw.add(at) };
        match item.type_ {
            ffi::RTE_FLOW_ITEM_TYPE_END if headers.is_empty() => return Err("invalid empty data"),
            ffi::RTE_FLOW_ITEM_TYPE_END => return Ok(headers),
            ffi::RTE_FLOW_ITEM_TYPE_VOID => continue,
            _ => {}
        }
        let begin = headers.len();
        let bytes = header_bytes(item.type_).ok_or("unsupported item type")?;
        if item.spec.is_null() {
            return Err("encap header without a spec");
        }
        // SAFETY: not null, so it points to this type's structure, which begins with the header.
        let spec = unsafe { std::slice::from_raw_parts(item.spec.cast::<u8>(), bytes) };
        headers.try_extend_from_slice(spec).map_err(|_| "items total size is too big for encap action")?;
        complete(item.type_, begin, &mut headers, &mut seen)?;
    }
    Err("invalid empty data")
}

/// Bytes of a header; `None` for what cannot be part of it.
const fn header_bytes(kind: ffi::rte_flow_item_type) -> Option<usize> {
    Some(match kind {
        ffi::RTE_FLOW_ITEM_TYPE_ETH => 14,
        ffi::RTE_FLOW_ITEM_TYPE_VLAN | ffi::RTE_FLOW_ITEM_TYPE_GRE | ffi::RTE_FLOW_ITEM_TYPE_NVGRE => 4,
        ffi::RTE_FLOW_ITEM_TYPE_IPV4 => 20,
        ffi::RTE_FLOW_ITEM_TYPE_IPV6 => 40,
        ffi::RTE_FLOW_ITEM_TYPE_UDP | ffi::RTE_FLOW_ITEM_TYPE_VXLAN | ffi::RTE_FLOW_ITEM_TYPE_VXLAN_GPE => 8,
        _ => return None,
    })
}

/// Fills in what was left zero in the header at `begin` and in the one before it.
fn complete(
    kind: ffi::rte_flow_item_type,
    begin: usize,
    headers: &mut [u8],
    seen: &mut Seen,
) -> Result<(), &'static str> {
    match kind {
        ffi::RTE_FLOW_ITEM_TYPE_ETH => seen.eth = Some(begin),
        ffi::RTE_FLOW_ITEM_TYPE_VLAN => {
            let eth = seen.eth.ok_or("eth header not found")?;
            fill(headers, eth + 12, ETHERTYPE_VLAN);
            seen.vlan = Some(begin);
        }
        ffi::RTE_FLOW_ITEM_TYPE_IPV4 => {
            ethertype(headers, seen, ETHERTYPE_IPV4)?;
            fill(headers, begin, [0x45]);
            fill(headers, begin + 8, [TTL]);
            seen.ipv4 = Some(begin);
        }
        ffi::RTE_FLOW_ITEM_TYPE_IPV6 => {
            ethertype(headers, seen, ETHERTYPE_IPV6)?;
            fill(headers, begin, [0x60, 0, 0, 0]);
            fill(headers, begin + 7, [HOP_LIMIT]);
            seen.ipv6 = Some(begin);
        }
        ffi::RTE_FLOW_ITEM_TYPE_UDP => {
            protocol(headers, seen, PROTOCOL_UDP)?;
            seen.udp = Some(begin);
        }
        ffi::RTE_FLOW_ITEM_TYPE_VXLAN => {
            let udp = seen.udp.ok_or("udp header not found")?;
            fill(headers, udp + 2, PORT_VXLAN.to_be_bytes());
            fill(headers, begin, [0x08, 0, 0, 0]);
        }
        ffi::RTE_FLOW_ITEM_TYPE_VXLAN_GPE => {
            let udp = seen.udp.ok_or("udp header not found")?;
            if headers[begin + 3] == 0 {
                return Err("next protocol not found");
            }
            fill(headers, udp + 2, PORT_VXLAN_GPE.to_be_bytes());
            fill(headers, begin, [0x04]);
        }
        // The only others that have a length.
        _ => {
            if headers[begin + 2..begin + 4] == [0, 0] {
                return Err("next protocol not found");
            }
            protocol(headers, seen, PROTOCOL_GRE)?;
        }
    }
    Ok(())
}

/// The type of the last tag, or without one, or if its is set already, of the Ethernet header.
fn ethertype(headers: &mut [u8], seen: &Seen, value: [u8; 2]) -> Result<(), &'static str> {
    match (seen.vlan, seen.eth) {
        (Some(vlan), _) if headers[vlan + 2..vlan + 4] == [0, 0] => fill(headers, vlan + 2, value),
        (_, Some(eth)) => fill(headers, eth + 12, value),
        _ => return Err("neither eth nor vlan header found"),
    }
    Ok(())
}

/// The protocol of the IP header.
fn protocol(headers: &mut [u8], seen: &Seen, value: u8) -> Result<(), &'static str> {
    match (seen.ipv4, seen.ipv6) {
        (Some(ipv4), _) if headers[ipv4 + 9] == 0 => headers[ipv4 + 9] = value,
        (_, Some(ipv6)) => fill(headers, ipv6 + 6, [value]),
        (None, None) => return Err("ip header not found"),
        _ => {}
    }
    Ok(())
}

/// Writes a value where there are only zeroes.
fn fill<const N: usize>(headers: &mut [u8], at: usize, value: [u8; N]) {
    let field = &mut headers[at..at + N];
    if field.iter().all(|byte| *byte == 0) {
        field.copy_from_slice(&value);
    }
}
