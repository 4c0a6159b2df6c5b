//! Edits, done.

use arrayvec::ArrayVec;
use dataplane::packet::PacketBuf;

use super::command::Command;
use super::reshape::{Decap, Encap, Tag, pop};
use super::rewrite::Block;
use crate::model::key::{Headers, Registers, parse};
use crate::model::switch::DropReason;

/// Tags that one program pushes at most.
pub(super) const PUSHES_MAX: usize = 2;

/// What happens to a packet's bytes and registers.
///
/// Checksums are brought up to date from what changed, without a look at the payload: IPv4's header, TCP's,
/// and UDP's unless it is 0. A checksum that was wrong stays wrong by as much. A fragment's addresses are
/// rewritten, and the transport's checksum where it is: in the first. TTLs wrap.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edits(pub(super) Kind);

/// See [`Edits`]. The block for IPv4 is in place: it is the most frequent, and saves a million allocations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Kind {
    #[default]
    None,
    Short(Block<4>),
    Long(Box<Block<16>>),
    General(Box<General>),
}

/// Everything else.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct General {
    pub(super) decap: Option<Decap>,
    /// Tags to pop.
    pub(super) pops: u8,
    /// What comes before all commands; never [`Kind::General`].
    pub(super) rewrite: Kind,
    /// In the list's order.
    pub(super) commands: Box<[Command]>,
    /// Whether rewrites come before `pushes`: so in software steering, in hardware steering behind them.
    pub(super) rewrite_first: bool,
    pub(super) pushes: ArrayVec<Tag, PUSHES_MAX>,
    pub(super) encap: Option<Encap>,
}

impl Edits {
    /// Asks for what [`Edits::apply`] will read, if it is not here.
    #[inline]
    pub fn prefetch(&self) {
        match &self.0 {
            Kind::None | Kind::Short(_) => {}
            Kind::Long(block) => block.prefetch(),
            Kind::General(general) => dataplane::prefetch::prefetch(&**general),
        }
    }

    /// Whether nothing happens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Kind::None)
    }

    /// Edits a packet whose headers are these, and keeps `headers` right. Whether its key must be extracted
    /// anew before it is matched again.
    ///
    /// # Errors
    /// The packet lacks a header that is to be edited, is too long for its new length fields, or has no room
    /// in front of it. It may have been edited in part, and is to be dropped.
    #[inline]
    pub fn apply<B: PacketBuf>(
        &self,
        packet: &mut B,
        headers: &mut Headers,
        registers: &mut Registers,
    ) -> Result<bool, DropReason> {
        let done = match &self.0 {
            Kind::None => return Ok(false),
            Kind::Short(block) => block.apply(packet.data_mut(), headers),
            Kind::Long(block) => block.apply(packet.data_mut(), headers),
            Kind::General(general) => {
                general.apply(packet, headers, registers)?;
                Some(())
            }
        };
        if done.is_some() { Ok(true) } else { Err(DropReason::Malformed) }
    }
}

impl General {
    fn apply<B: PacketBuf>(
        &self,
        packet: &mut B,
        headers: &mut Headers,
        registers: &mut Registers,
    ) -> Result<(), DropReason> {
        if let Some(decap) = &self.decap {
            decap.apply(packet, headers)?;
            *headers = parse(packet.data());
        }
        for _ in 0..self.pops {
            pop(packet, headers)?;
            *headers = parse(packet.data());
        }
        if self.rewrite_first {
            self.rewrite(packet, headers, registers)?;
        }
        for tag in &self.pushes {
            tag.push(packet)?;
            *headers = parse(packet.data());
        }
        if !self.rewrite_first {
            self.rewrite(packet, headers, registers)?;
        }
        if let Some(encap) = &self.encap {
            encap.apply(packet, headers)?;
            *headers = parse(packet.data());
        }
        Ok(())
    }

    /// The rewrites.
    fn rewrite<B: PacketBuf>(
        &self,
        packet: &mut B,
        headers: &Headers,
        registers: &mut Registers,
    ) -> Result<(), DropReason> {
        let frame = packet.data_mut();
        let rewritten = match &self.rewrite {
            Kind::Short(block) => block.apply(frame, headers),
            Kind::Long(block) => block.apply(frame, headers),
            Kind::None | Kind::General(_) => Some(()),
        };
        rewritten.ok_or(DropReason::Malformed)?;
        for command in &self.commands {
            command.apply(frame, headers, registers).ok_or(DropReason::Malformed)?;
        }
        Ok(())
    }
}
