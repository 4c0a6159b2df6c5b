//! The UDP source port of an encapsulation.
//!
//! mlx5 does not keep the application's: it puts a hash of the encapsulated frame's headers there, so that
//! tunnelled flows spread (Linux, commit 0dcaafc0b8dc, "net/mlx5: Introduce tunnel entropy control in PCMR
//! register"; commit cd3776638003 refuses to offload a chosen source port). The hash is known since DPDK's
//! `rte_flow_calc_encap_hash`: `drivers/net/mlx5/hws/mlx5dr_crc32.c` has it as a CRC of destination address,
//! source address, protocol, destination port and source port, which is then confined to RoCE's source ports.
//! That range is a device capability; 0xc000 to 0xffff is assumed.

use crate::model::key::{Fragment, Headers, L3, L4};

/// The polynomial, without its leading term; the most significant bit goes first, and the CRC begins at 0.
const POLYNOMIAL: u16 = 0x100b;

/// The lowest port; the highest is 0xffff.
const PORT_MIN: u16 = 0xc000;

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ POLYNOMIAL };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The source port for a tunnel around this frame.
pub(super) fn port(frame: &[u8], headers: &Headers) -> u16 {
    let mut fields = [0; 37];
    let stack = &headers.outer;
    let network = frame.get(usize::from(stack.l3_at)..).unwrap_or_default();
    match stack.l3 {
        L3::Ipv4 if network.len() >= 20 => {
            fields[12..16].copy_from_slice(&network[16..20]);
            fields[28..32].copy_from_slice(&network[12..16]);
        }
        L3::Ipv6 if network.len() >= 40 => {
            fields[..16].copy_from_slice(&network[24..40]);
            fields[16..32].copy_from_slice(&network[8..24]);
        }
        _ => {}
    }
    fields[32] = stack.protocol;
    let transport = frame.get(usize::from(stack.l4_at)..).unwrap_or_default();
    let whole = stack.fragment == Fragment::Whole;
    if whole && matches!(stack.l4, L4::Tcp | L4::Udp) && transport.len() >= 4 {
        fields[33..35].copy_from_slice(&transport[2..4]);
        fields[35..37].copy_from_slice(&transport[..2]);
    }
    crc(&fields) | PORT_MIN
}

fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries of the driver's table, and a division by hand.
    #[test]
    fn the_crc_is_the_drivers() {
        assert_eq!(&TABLE[..4], &[0x0000, 0x100b, 0x2016, 0x301d]);
        assert_eq!(TABLE[16], 0x10bb);
        assert_eq!(TABLE[32], 0x2176);
        assert_eq!(crc(&[1, 0]), TABLE[0x10] ^ 0x0b00);
    }

    #[test]
    fn ports_are_in_range_and_of_the_flow() {
        let frame = |last| {
            use crate::model::key::frames::{eth, ipv4, tcp};
            let mut frame = eth(0x0800, &ipv4(6, 0, &[], &tcp()));
            frame[35] = last;
            port(&frame, &crate::model::key::parse(&frame))
        };
        assert!(frame(1) >= PORT_MIN);
        assert_eq!(frame(1), frame(1));
        assert_ne!(frame(1), frame(2));
    }
}
