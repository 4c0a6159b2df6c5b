//! Random frames: everything a rule can tell apart, from few values so that rules hit.

use crate::anatomy::{ICMP, ICMP6, TCP, UDP};
use crate::dice::Dice;
use crate::edit::add;

pub(crate) const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [0x33, 0x33, 0, 0, 0, 1]];
pub(crate) const ADDRESSES4: [[u8; 4]; 3] = [[10, 0, 0, 1], [10, 0, 0, 2], [192, 0, 2, 9]];
pub(crate) const ADDRESSES6: [[u8; 16]; 2] = [
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
];
pub(crate) const PORTS: [u16; 4] = [80, 443, 1234, 0];
pub(crate) const TTLS: [u8; 4] = [0, 1, 64, 255];
pub(crate) const TOSES: [u8; 3] = [0, 0x2e << 2, 3];
pub(crate) const TCIS: [u16; 3] = [7, 0x2007, 100];
pub(crate) const FLAGS: [u8; 4] = [0x10, 2, 0x11, 4];
pub(crate) const VNIS: [u32; 2] = [7, 0x01_0203];

/// A frame, mostly well-formed.
pub(crate) fn frame(dice: &mut Dice) -> Vec<u8> {
    let mut frame = ethernet(dice, true);
    if dice.percent(4) {
        frame.truncate(dice.below(frame.len() + 1));
    }
    if dice.percent(3) && !frame.is_empty() {
        let at = dice.below(frame.len());
        frame[at] ^= 1 << dice.below(8);
    }
    if dice.percent(3) {
        // Padding, as on short frames.
        frame.resize(frame.len() + 1 + dice.below(20), 0);
    }
    frame
}

fn ethernet(dice: &mut Dice, outer: bool) -> Vec<u8> {
    let mut frame = [dice.pick(&MACS), dice.pick(&MACS)].concat();
    let tags = dice.pick(&[0, 0, 0, 0, 0, 1, 1, 1, 2, 3]);
    for _ in 0..tags {
        frame.extend(dice.pick(&[0x8100_u16, 0x8100, 0x8100, 0x88a8]).to_be_bytes());
        frame.extend(dice.pick(&TCIS).to_be_bytes());
    }
    let (kind, payload) = network(dice, outer);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

fn network(dice: &mut Dice, outer: bool) -> (u16, Vec<u8>) {
    match dice.below(20) {
        0..11 => (0x0800, ipv4(dice, outer)),
        11..18 => (0x86dd, ipv6(dice, outer)),
        18 => (0x0806, vec![0; 28]),
        _ => (0x88cc, vec![1, 2, 3]),
    }
}

fn ipv4(dice: &mut Dice, outer: bool) -> Vec<u8> {
    let (source, destination) = (dice.pick(&ADDRESSES4), dice.pick(&ADDRESSES4));
    let options = if dice.percent(8) { 4 * (1 + dice.below(3)) } else { 0 };
    let piece = dice.pick(&[0, 0, 0, 0, 0, 0, 0, 0x4000, 0x2000, 0x2001, 0x0001_u16]);
    let pseudo = [source, destination].concat();
    let (protocol, payload) = transport(dice, 4, &pseudo, piece & 0x3fff != 0, outer);
    let len = (20 + options + payload.len()) as u16;
    let mut packet = vec![0x45 + (options / 4) as u8, dice.pick(&TOSES)];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(piece.to_be_bytes());
    packet.extend([dice.pick(&TTLS), protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(vec![1; options]);
    let sum = !add(&packet, 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn ipv6(dice: &mut Dice, outer: bool) -> Vec<u8> {
    let (source, destination) = (dice.pick(&ADDRESSES6), dice.pick(&ADDRESSES6));
    let pseudo = [source, destination].concat();
    let mut extensions = Vec::new();
    let mut chain = Vec::new();
    let mut fragment = false;
    if dice.percent(15) {
        for _ in 0..1 + dice.below(2) {
            let kind = dice.pick(&[0, 60, 44]);
            chain.push(kind);
            let offset = dice.pick(&[0_u16, 1, 8, 9]);
            fragment |= kind == 44;
            extensions.push(match kind {
                44 => [[0, 0].as_slice(), &offset.to_be_bytes(), &[0, 0, 0, 1]].concat(),
                _ => vec![0, 0, 1, 4, 0, 0, 0, 0],
            });
        }
    }
    let (protocol, payload) = transport(dice, 6, &pseudo, fragment, outer);
    chain.push(protocol);
    let mut packet = vec![0x60, 0, 0, dice.pick(&[0, 5])];
    let class = dice.pick(&TOSES);
    packet[0] |= class >> 4;
    packet[1] |= class << 4;
    packet.extend(((extensions.len() * 8 + payload.len()) as u16).to_be_bytes());
    packet.extend([chain[0], dice.pick(&TTLS)]);
    packet.extend(source);
    packet.extend(destination);
    for (mut extension, next) in extensions.into_iter().zip(&chain[1..]) {
        extension[0] = *next;
        packet.extend(extension);
    }
    packet.extend(payload);
    packet
}

fn transport(dice: &mut Dice, version: u8, pseudo: &[u8], fragment: bool, outer: bool) -> (u8, Vec<u8>) {
    let tunnels = outer && !fragment;
    match dice.below(if tunnels { 26 } else { 18 }) {
        0..9 => tcp(dice, pseudo),
        9..14 => {
            let to = dice.pick(&PORTS);
            udp(dice, pseudo, to, Vec::new())
        }
        14..17 if version == 4 => (ICMP, {
            let mut message = vec![dice.pick(&[8, 0]), 0, 0, 0, 0, dice.pick(&[1, 2]), 0, 1, 9];
            let sum = !add(&message, 0);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            message
        }),
        14..17 => (ICMP6, vec![dice.pick(&[128, 129]), 0, 1, 2, 0, 1, 0, 1]),
        17 => (132, vec![7; 12]),
        18..22 => {
            let vxlan = [&[8, 0, 0, 0][..], &(dice.pick(&VNIS) << 8).to_be_bytes(), &ethernet(dice, false)];
            udp(dice, pseudo, 4789, vxlan.concat())
        }
        22..24 => {
            let options = dice.below(2);
            let (kind, inside) = inside(dice);
            let head = [&[options as u8, 0][..], &kind.to_be_bytes(), &(dice.pick(&VNIS) << 8).to_be_bytes()];
            udp(dice, pseudo, 6081, [head.concat(), vec![0; options * 4], inside].concat())
        }
        _ => {
            let (kind, inside) = inside(dice);
            let flags = dice.pick(&[0_u16, 0x2000, 0xb000, 0x4000, 0x1000]);
            let words = (flags >> 15 & 1) + (flags >> 13 & 1) + (flags >> 12 & 1);
            let mut packet = [flags.to_be_bytes(), kind.to_be_bytes()].concat();
            for _ in 0..words {
                packet.extend(dice.pick(&VNIS).to_be_bytes());
            }
            (47, [packet, inside].concat())
        }
    }
}

fn inside(dice: &mut Dice) -> (u16, Vec<u8>) {
    if dice.percent(60) { (0x6558, ethernet(dice, false)) } else { network(dice, false) }
}

fn tcp(dice: &mut Dice, pseudo: &[u8]) -> (u8, Vec<u8>) {
    let mut segment = [dice.pick(&PORTS).to_be_bytes(), dice.pick(&PORTS).to_be_bytes()].concat();
    segment.extend(dice.word().to_be_bytes());
    segment.extend([0x50, dice.pick(&FLAGS), 0x10, 0, 0, 0, 0, 0]);
    segment.extend((0..dice.below(12)).map(|at| at as u8 + 1));
    let sum = !add(&segment, add(pseudo, u32::from(TCP) + segment.len() as u32).into());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    (TCP, segment)
}

fn udp(dice: &mut Dice, pseudo: &[u8], to: u16, mut payload: Vec<u8>) -> (u8, Vec<u8>) {
    if payload.is_empty() {
        payload.extend((0..dice.below(12)).map(|at| at as u8 + 1));
    }
    let mut datagram = [dice.pick(&PORTS).to_be_bytes(), to.to_be_bytes()].concat();
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    if dice.percent(70) {
        let sum = !add(&datagram, add(pseudo, u32::from(UDP) + datagram.len() as u32).into());
        let sum = if sum == 0 { 0xffff } else { sum };
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    (UDP, datagram)
}
