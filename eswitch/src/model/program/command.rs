//! One edit of some bits of a header or a register, with every checksum that covers them.
//!
//! The general form of a rewrite, done one after the other in the application's order, so that a field
//! copied to a register and overwritten afterwards is copied first. [`Block`](super::rewrite::Block) is the
//! fast one.

use super::checksum::Delta;
use super::place::{Home, Place};
use crate::model::key::{Fragment, Headers, L3, L4, Registers, Stack, TunnelKind};
use crate::model::types::Colour;

/// What happens to the bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// The bits of `mask` become those of `value`.
    Set { value: u128, mask: u128 },
    /// Add this, modulo the field's width.
    Add(u128),
    /// They become those of another place, as many.
    Copy(Place),
    /// Add those of another place, as many, modulo the field's width.
    AddFrom(Place),
}

/// An edit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Command {
    pub(super) to: Place,
    pub(super) op: Op,
}

impl Command {
    /// A constant into all of a place.
    pub(super) const fn set(to: Place, value: u128) -> Command {
        Command { to, op: Op::Set { value: value << to.shift, mask: to.mask() } }
    }

    /// Edits a packet; `None` if it lacks the header.
    pub(super) fn apply(&self, frame: &mut [u8], headers: &Headers, registers: &mut Registers) -> Option<()> {
        let found = Found::of(&self.to, frame, headers)?;
        let old = found.read(frame, registers);
        let mask = self.to.mask();
        let new = match self.op {
            Op::Set { value, mask } => old & !mask | value & mask,
            Op::Add(value) => old & !mask | old.wrapping_add(value << self.to.shift) & mask,
            Op::Copy(from) => old & !mask | bits(&from, frame, headers, registers)? << self.to.shift & mask,
            Op::AddFrom(from) => {
                let value = bits(&from, frame, headers, registers)? << self.to.shift;
                old & !mask | old.wrapping_add(value) & mask
            }
        };
        found.write(new, frame, headers, registers)
    }
}

/// A place's bits, as a number.
fn bits(place: &Place, frame: &[u8], headers: &Headers, registers: &Registers) -> Option<u128> {
    let found = Found::of(place, frame, headers)?;
    Some((found.read(frame, registers) & place.mask()) >> place.shift)
}

/// A place in this packet.
enum Found<'a> {
    Register(Home),
    Header(&'a Place, usize),
}

impl Found<'_> {
    fn of<'a>(place: &'a Place, frame: &[u8], headers: &Headers) -> Option<Found<'a>> {
        match place.home {
            home if home.is_register() => Some(Found::Register(home)),
            _ => place.find(headers, frame.len()).map(|at| Found::Header(place, at)),
        }
    }

    fn read(&self, frame: &[u8], registers: &Registers) -> u128 {
        match *self {
            Found::Register(Home::Tag(index)) => {
                registers.tags.get(usize::from(index)).map_or(0, |&tag| u128::from(tag))
            }
            Found::Register(Home::Meta) => u128::from(registers.meta),
            Found::Register(Home::Mark) => u128::from(registers.mark.unwrap_or(0)),
            Found::Register(_) => registers.colour as u128,
            Found::Header(place, at) => {
                let bytes = frame.get(at..at + usize::from(place.bytes)).unwrap_or_default();
                bytes.iter().fold(0, |number, &byte| number << 8 | u128::from(byte))
            }
        }
    }

    fn write(&self, new: u128, frame: &mut [u8], headers: &Headers, registers: &mut Registers) -> Option<()> {
        match *self {
            Found::Register(Home::Tag(index)) => {
                *registers.tags.get_mut(usize::from(index))? = new as u32;
            }
            Found::Register(Home::Meta) => registers.meta = new as u32,
            Found::Register(Home::Mark) => registers.mark = Some(new as u32),
            Found::Register(_) => {
                registers.colour = match new & 3 {
                    0 => Colour::Green,
                    1 => Colour::Yellow,
                    _ => Colour::Red,
                }
            }
            Found::Header(place, at) => store(place, at, new, frame, headers)?,
        }
        Some(())
    }
}

/// Writes a header's field and mends what covers it.
fn store(place: &Place, at: usize, new: u128, frame: &mut [u8], headers: &Headers) -> Option<()> {
    let len = usize::from(place.bytes).min(16);
    let new = &new.to_be_bytes()[16 - len..];
    let mut old = [0; 16];
    let old = &mut old[..len];
    old.copy_from_slice(frame.get(at..at + len)?);
    if old == new {
        return Some(());
    }
    let inside = place.is_inside(headers);
    let stack = place.stack(headers);
    // A tunnel's UDP checksum covers all that is inside; mostly it is absent.
    let around = (inside || place.home == Home::Vxlan).then(|| tunnel_checksum(headers)).flatten();
    put(frame, at, new, around)?;
    let ipv4 = stack.l3 == L3::Ipv4 && matches!(place.home, Home::Ipv4 | Home::Ttl);
    let mut changed = Delta::default();
    changed.change(old, new, at.wrapping_sub(usize::from(stack.l3_at)) % 2 == 1);
    if ipv4 {
        mend(frame, usize::from(stack.l3_at) + 10, changed, false, around)?;
    }
    if covered_by_transport(place) {
        // Header lengths are multiples of four, so that parity is the same from either layer's start.
        mend_transport(frame, stack, changed, around)?;
    }
    Some(())
}

/// Whether the transport's checksum covers it: its own header, and the addresses. The rest of the pseudo
/// header is never edited.
fn covered_by_transport(place: &Place) -> bool {
    match place.home {
        Home::Tcp | Home::Udp | Home::Ports => true,
        Home::Ipv4 => place.at >= 12,
        Home::Ipv6 => place.at >= 8,
        _ => false,
    }
}

/// Not of ICMPv6, which mlx5 leaves as it is: `drivers/net/mlx5/mlx5_flow_dv.c` of DPDK 22.11 refuses to
/// rewrite addresses under an ICMPv6 item, and Linux' `mlx5/core/en/tc/act/csum.c` knows IPv4, TCP and UDP.
fn mend_transport(frame: &mut [u8], stack: &Stack, changed: Delta, around: Option<usize>) -> Option<()> {
    let at = usize::from(stack.l4_at);
    match stack.l4 {
        _ if stack.fragment == Fragment::Later => Some(()),
        L4::Tcp => mend(frame, at + 16, changed, false, around),
        L4::Udp => mend(frame, at + 6, changed, true, around),
        _ => Some(()),
    }
}

/// Where the outer UDP header is, if the tunnel has one.
fn tunnel_checksum(headers: &Headers) -> Option<usize> {
    let udp = matches!(headers.tunnel, Some((TunnelKind::Vxlan | TunnelKind::Geneve, _)));
    (udp && headers.outer.l4 == L4::Udp).then_some(usize::from(headers.outer.l4_at))
}

/// Brings the checksum at `at` up to date.
fn mend(frame: &mut [u8], at: usize, changed: Delta, udp: bool, around: Option<usize>) -> Option<()> {
    let old = u16::from_be_bytes(*frame.get(at..)?.first_chunk()?);
    let new = if udp { changed.onto_udp(old) } else { changed.onto(old) };
    put(frame, at, &new.to_be_bytes(), around)
}

/// Writes bytes, and accounts for them in the checksum of the UDP header at `around`.
fn put(frame: &mut [u8], at: usize, new: &[u8], around: Option<usize>) -> Option<()> {
    let place = frame.get_mut(at..at + new.len())?;
    let mut changed = Delta::default();
    if let Some(udp) = around {
        changed.change(place, new, at.wrapping_sub(udp) % 2 == 1);
    }
    place.copy_from_slice(new);
    match around {
        Some(udp) => mend(frame, udp + 6, changed, true, None),
        None => Some(()),
    }
}
