//! The reference's own actions: bytes moved about, and every checksum computed from scratch over the payload.

use eswitch::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp};
use eswitch::model::switch::DropReason;

use crate::anatomy::{Anatomy, Piece, Side, TCP, UDP, dissect, number};
use crate::pattern::Luggage;

/// An action that borrows nothing.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Plain(Action<'static>),
    VxlanEncap(Vec<u8>),
    RawEncap(Vec<u8>),
    RawDecap(Vec<u8>),
    Rss(Vec<u16>),
    /// Every packet, through these.
    Sample(Vec<Act>),
}

impl Act {
    fn borrow<'a>(&'a self, inner: &'a [Action<'a>]) -> Action<'a> {
        match self {
            Act::Plain(action) => *action,
            Act::VxlanEncap(bytes) => Action::VxlanEncap(bytes),
            Act::RawEncap(bytes) => Action::RawEncap(bytes),
            Act::RawDecap(bytes) => Action::RawDecap(bytes),
            Act::Rss(queues) => Action::Rss { queues },
            Act::Sample(_) => Action::Sample { ratio: 1, actions: inner },
        }
    }
}

/// Lends a list to the device.
pub(crate) fn lend<R>(acts: &[Act], use_them: impl FnOnce(&[Action<'_>]) -> R) -> R {
    let sample = acts.iter().find_map(|act| if let Act::Sample(acts) = act { Some(acts) } else { None });
    let inner: Vec<Action<'_>> = sample.into_iter().flatten().map(|act| act.borrow(&[])).collect();
    let outer: Vec<Action<'_>> = acts.iter().map(|act| act.borrow(&inner)).collect();
    use_them(&outer)
}

/// A packet under way: its bytes, what was parsed of them when they last changed shape, and the room before
/// them that encapsulations can use up.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) frame: Vec<u8>,
    pub(crate) anatomy: Anatomy,
    pub(crate) luggage: Luggage,
    pub(crate) room: usize,
}

/// Which checksums are computed wrongly, to see whether anyone notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) ignore_pseudo_header: bool,
    pub(crate) fill_absent_udp: bool,
}

/// Tunnels have headers longer than this, Ethernet alone does not.
const L2_MAX: usize = 34;

/// An action list, sorted by what the hardware does first.
#[derive(Default)]
struct Plan<'a> {
    decap: bool,
    /// Layer-3 tunnels: an Ethernet header for the inner packet, or headers in place of the outer one.
    new_l2: Option<&'a [u8]>,
    encap: Option<(&'a [u8], bool)>,
    pops: usize,
    /// EtherType and TCI.
    pushes: Vec<(u16, u16)>,
    edits: Vec<Action<'static>>,
}

fn plan<'a>(acts: &[&'a Act]) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut raw_decap = None;
    for act in acts {
        match act {
            Act::Plain(Action::VxlanDecap) => plan.decap = true,
            Act::RawDecap(bytes) => {
                plan.decap = bytes.len() > L2_MAX;
                raw_decap = Some(bytes.len());
            }
            Act::RawEncap(bytes) => match raw_decap {
                Some(len) if len > L2_MAX && bytes.len() < L2_MAX => plan.new_l2 = Some(bytes),
                Some(len) if len <= L2_MAX => plan.encap = Some((bytes, true)),
                _ => plan.encap = Some((bytes, false)),
            },
            Act::VxlanEncap(bytes) => plan.encap = Some((bytes, false)),
            Act::Plain(Action::PopVlan) => plan.pops += 1,
            Act::Plain(Action::PushVlan(kind)) => plan.pushes.push((*kind, 0)),
            Act::Plain(Action::SetVlanVid(vid)) if !plan.pushes.is_empty() => {
                let tag = plan.pushes.last_mut().expect("there is one");
                tag.1 = tag.1 & 0xf000 | vid;
            }
            Act::Plain(Action::SetVlanPcp(pcp)) if !plan.pushes.is_empty() => {
                let tag = plan.pushes.last_mut().expect("there is one");
                tag.1 = tag.1 & 0x1fff | u16::from(*pcp) << 13;
            }
            Act::Plain(action) if is_edit(action) => plan.edits.push(*action),
            _ => {}
        }
    }
    plan
}

fn is_edit(action: &Action<'_>) -> bool {
    !matches!(
        action,
        Action::RepresentedPort(_)
            | Action::PortId(_)
            | Action::Jump(_)
            | Action::Drop
            | Action::Queue(_)
            | Action::Count
            | Action::Age { .. }
            | Action::Indirect(_)
    )
}

/// Does to a packet what a list says. `edits_last`: header edits come after pushed tags (HWS), not before
/// (SWS).
pub(crate) fn apply(
    acts: &[&Act],
    parcel: &mut Parcel,
    edits_last: bool,
    sums: Sums,
) -> Result<(), DropReason> {
    let plan = plan(acts);
    if plan.decap {
        parcel.decap(plan.new_l2)?;
    }
    for _ in 0..plan.pops {
        parcel.pop()?;
    }
    if !edits_last {
        parcel.edit(&plan.edits, sums)?;
    }
    for (kind, tci) in plan.pushes {
        parcel.push(kind, tci)?;
    }
    if edits_last {
        parcel.edit(&plan.edits, sums)?;
    }
    if let Some((headers, replace)) = plan.encap {
        parcel.encap(headers, replace)?;
    }
    Ok(())
}

impl Parcel {
    pub(crate) fn new(frame: &[u8], luggage: Luggage, room: usize) -> Parcel {
        Parcel { frame: frame.to_vec(), anatomy: dissect(frame), luggage, room }
    }

    fn prepend(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        if bytes.len() > self.room {
            return Err(DropReason::Headroom);
        }
        self.room -= bytes.len();
        self.frame.splice(..0, bytes.iter().copied());
        self.anatomy = dissect(&self.frame);
        Ok(())
    }

    fn behead(&mut self, len: usize) {
        self.room += len;
        self.frame.drain(..len);
        self.anatomy = dissect(&self.frame);
    }

    fn decap(&mut self, new_l2: Option<&[u8]>) -> Result<(), DropReason> {
        let inner = self.anatomy.inner;
        let from = match new_l2 {
            None => inner.eth,
            Some(_) => inner.ip.map(|(_, at)| at),
        };
        self.behead(from.ok_or(DropReason::Malformed)?);
        new_l2.map_or(Ok(()), |bytes| self.prepend(bytes))
    }

    fn pop(&mut self) -> Result<(), DropReason> {
        if self.anatomy.outer.tags == 0 {
            return Err(DropReason::Malformed);
        }
        self.frame.drain(12..16);
        self.room += 4;
        self.anatomy = dissect(&self.frame);
        Ok(())
    }

    fn push(&mut self, kind: u16, tci: u16) -> Result<(), DropReason> {
        if self.frame.len() < 14 {
            return Err(DropReason::Malformed);
        }
        if self.room < 4 {
            return Err(DropReason::Headroom);
        }
        self.room -= 4;
        let tag = u32::from(kind) << 16 | u32::from(tci);
        self.frame.splice(12..12, tag.to_be_bytes());
        self.anatomy = dissect(&self.frame);
        Ok(())
    }

    fn encap(&mut self, headers: &[u8], replace: bool) -> Result<(), DropReason> {
        let entropy = entropy(&self.frame, &self.anatomy.outer);
        if replace {
            let (_, at) = self.anatomy.outer.ip.ok_or(DropReason::Malformed)?;
            self.behead(at);
        }
        self.prepend(headers)?;
        // The new headers are well-formed, but for what the device fills in.
        let side = self.anatomy.outer;
        let len = self.frame.len();
        if let Some((version, at)) = side.ip {
            if version == 4 {
                self.put(at + 2, 2, (len - at) as u128);
                self.put(at + 10, 2, 0);
                let sum = !add(&self.frame[at..side.payload], 0);
                self.put(at + 10, 2, sum.into());
            } else {
                self.put(at + 4, 2, (len - at - 40) as u128);
            }
        }
        if side.transport == Some(UDP) {
            if matches!(number(&self.frame, side.payload + 2, 2), Some(4789 | 4790 | 6081)) {
                self.put(side.payload, 2, entropy.into());
            }
            self.put(side.payload + 4, 2, (len - side.payload) as u128);
            self.put(side.payload + 6, 2, 0);
        }
        self.anatomy = dissect(&self.frame);
        Ok(())
    }

    fn put(&mut self, at: usize, len: usize, value: u128) {
        self.frame[at..at + len].copy_from_slice(&value.to_be_bytes()[16 - len..]);
    }

    fn edit(&mut self, edits: &[Action<'static>], sums: Sums) -> Result<(), DropReason> {
        let before = self.frame.clone();
        for edit in edits {
            self.edit_one(edit).ok_or(DropReason::Malformed)?;
        }
        self.mend(&before, sums);
        Ok(())
    }

    fn edit_one(&mut self, action: &Action<'static>) -> Option<()> {
        let set = |field, value: &[u8]| (field, ModifyOp::Set, wide(value));
        let ip = self.anatomy.outer.ip;
        let (field, op, value) = match *action {
            Action::SetTag { index, data, mask } => {
                let tag = &mut self.luggage.tags[usize::from(index)];
                *tag = *tag & !mask | data & mask;
                return Some(());
            }
            Action::SetMeta { data, mask } => {
                self.luggage.meta = self.luggage.meta & !mask | data & mask;
                return Some(());
            }
            Action::Mark(id) => {
                self.luggage.mark = id;
                return Some(());
            }
            Action::Flag => {
                self.luggage.mark = Some(0xff_ffff);
                return Some(());
            }
            Action::SetVlanVid(vid) => set(Field::VlanId, &vid.to_be_bytes()),
            Action::SetMacSrc(mac) => set(Field::MacSrc, &mac),
            Action::SetMacDst(mac) => set(Field::MacDst, &mac),
            Action::SetIpv4Src(address) => set(Field::Ipv4Src, &address),
            Action::SetIpv4Dst(address) => set(Field::Ipv4Dst, &address),
            Action::SetIpv6Src(address) => set(Field::Ipv6Src, &address),
            Action::SetIpv6Dst(address) => set(Field::Ipv6Dst, &address),
            Action::SetIpv4Dscp(dscp) => set(Field::Ipv4Dscp, &[dscp]),
            Action::SetIpv6Dscp(dscp) => set(Field::Ipv6Dscp, &[dscp]),
            Action::SetTpSrc(port) => return self.port(0, port),
            Action::SetTpDst(port) => return self.port(2, port),
            Action::SetTtl(_) | Action::DecTtl => {
                let field = if ip?.0 == 4 { Field::Ipv4Ttl } else { Field::Ipv6HopLimit };
                match *action {
                    Action::SetTtl(ttl) => set(field, &[ttl]),
                    _ => (field, ModifyOp::Add, wide(&[0xff])),
                }
            }
            Action::AddTcpSeq(by) => (Field::TcpSeqNum, ModifyOp::Add, wide(&(by as u32).to_be_bytes())),
            Action::AddTcpAck(by) => (Field::TcpAckNum, ModifyOp::Add, wide(&(by as u32).to_be_bytes())),
            Action::ModifyField { op, dst, src, width } => return self.modify(op, dst, src?, width),
            _ => panic!("an edit that the generator does not make: {action:?}"),
        };
        let dst = FieldRef { field, level: 0, offset: 0 };
        self.modify(op, dst, FieldSource::Value(value), width_of(field))
    }

    fn port(&mut self, at: usize, port: u16) -> Option<()> {
        let side = &self.anatomy.outer;
        side.transport.filter(|kind| matches!(*kind, TCP | UDP))?;
        let at = side.payload + at;
        self.put(at, 2, port.into());
        Some(())
    }

    /// `modify_field`. Bits are counted from a header field's most significant one, from a register's least.
    fn modify(&mut self, op: ModifyOp, dst: FieldRef, src: FieldSource, width: u32) -> Option<()> {
        let value = match src {
            FieldSource::Field(from) => {
                let (bits, total) = self.read(&from)?;
                bits >> skip(&from, total, width) & ones(width)
            }
            FieldSource::Value(value) => {
                let (_, total) = self.read(&dst)?;
                immediate(dst.field, &value) >> skip(&dst, total, width) & ones(width)
            }
        };
        let (old, total) = self.read(&dst)?;
        let shift = skip(&dst, total, width);
        let value = match op {
            ModifyOp::Set => value,
            ModifyOp::Add => (old >> shift).wrapping_add(value) & ones(width),
            ModifyOp::Sub => panic!("refused"),
        };
        self.write(&dst, old & !(ones(width) << shift) | value << shift)
    }

    /// A field's bits and how many.
    fn read(&self, field: &FieldRef) -> Option<(u128, u32)> {
        let register = match field.field {
            Field::Tag => self.luggage.tags[field.level as usize],
            Field::Meta => self.luggage.meta,
            Field::Mark => self.luggage.mark.unwrap_or(0),
            _ => {
                let (at, bits) = self.place(field.field)?;
                let number = number(&self.frame, at / 8, (at % 8 + bits as usize).div_ceil(8))?;
                let below = (8 - (at + bits as usize) % 8) % 8;
                return Some((number >> below & ones(bits), bits));
            }
        };
        Some((register.into(), 32))
    }

    fn write(&mut self, field: &FieldRef, value: u128) -> Option<()> {
        match field.field {
            Field::Tag => self.luggage.tags[field.level as usize] = value as u32,
            Field::Meta => self.luggage.meta = value as u32,
            Field::Mark => self.luggage.mark = Some(value as u32),
            _ => {
                let (at, bits) = self.place(field.field)?;
                for bit in 0..bits as usize {
                    let (byte, shift) = ((at + bit) / 8, 7 - (at + bit) % 8);
                    let one = (value >> (bits as usize - 1 - bit) & 1) as u8;
                    self.frame[byte] = self.frame[byte] & !(1 << shift) | one << shift;
                }
            }
        }
        Some(())
    }

    /// A header field's first bit in the frame, and its width.
    fn place(&self, field: Field) -> Option<(usize, u32)> {
        let side = &self.anatomy.outer;
        let eth = || side.eth;
        let ip = |version| side.ip.filter(|(is, _)| *is == version).map(|(_, at)| at);
        let transport = |kind| side.transport.filter(|is| *is == kind).map(|_| side.payload);
        let (byte, bit) = match field {
            Field::MacDst => (eth()?, 0),
            Field::MacSrc => (eth()? + 6, 0),
            Field::MacType => (eth()? + 12 + 4 * side.tags, 0),
            Field::VlanId if side.tags > 0 => (eth()? + 14, 4),
            Field::Ipv4Dscp => (ip(4)? + 1, 0),
            Field::Ipv4Ecn => (ip(4)? + 1, 6),
            Field::Ipv4Ttl => (ip(4)? + 8, 0),
            Field::Ipv4Src => (ip(4)? + 12, 0),
            Field::Ipv4Dst => (ip(4)? + 16, 0),
            Field::Ipv6Dscp => (ip(6)?, 4),
            Field::Ipv6Ecn => (ip(6)? + 1, 2),
            Field::Ipv6HopLimit => (ip(6)? + 7, 0),
            Field::Ipv6Src => (ip(6)? + 8, 0),
            Field::Ipv6Dst => (ip(6)? + 24, 0),
            Field::TcpPortSrc => (transport(TCP)?, 0),
            Field::TcpPortDst => (transport(TCP)? + 2, 0),
            Field::TcpSeqNum => (transport(TCP)? + 4, 0),
            Field::TcpAckNum => (transport(TCP)? + 8, 0),
            Field::TcpFlags => (transport(TCP)? + 12, 7),
            Field::UdpPortSrc => (transport(UDP)?, 0),
            Field::UdpPortDst => (transport(UDP)? + 2, 0),
            _ => return None,
        };
        Some((byte * 8 + bit, width_of(field)))
    }

    /// Makes the checksums over what has changed as right (or as wrong) as they were.
    fn mend(&mut self, before: &[u8], sums: Sums) {
        let side = self.anatomy.outer;
        if let Some((4, at)) = side.ip {
            let end = at + usize::from(before[at] & 15) * 4;
            renew(&mut self.frame, before, at..end, at + 10, 0, 0);
        }
        let Some((version, ip)) = side.ip else { return };
        let (Some(kind), true) = (side.transport, side.piece != Piece::Later) else { return };
        let field = match kind {
            TCP => side.payload + 16,
            UDP if number(before, side.payload + 6, 2) != Some(0) || sums.fill_absent_udp => side.payload + 6,
            _ => return,
        };
        let end = segment_end(before, version, ip, side.payload);
        let pseudo = |frame: &[u8]| {
            let addresses = if version == 4 { ip + 12..ip + 20 } else { ip + 8..ip + 40 };
            if sums.ignore_pseudo_header {
                return 0;
            }
            let rest = u32::from(kind) + (end - side.payload) as u32;
            add(&frame[addresses], rest)
        };
        let (old, new) = (pseudo(before), pseudo(&self.frame));
        renew(&mut self.frame, before, side.payload..end, field, old, new);
        if kind == UDP && number(&self.frame, field, 2) == Some(0) {
            self.put(field, 2, 0xffff);
        }
    }
}

/// Where the segment ends as far as IP knows, else where the frame does.
fn segment_end(frame: &[u8], version: u8, ip: usize, segment: usize) -> usize {
    let end = if version == 4 {
        ip + number(frame, ip + 2, 2).unwrap_or(0) as usize
    } else {
        ip + 40 + number(frame, ip + 4, 2).unwrap_or(0) as usize
    };
    if end < segment + 20 || end > frame.len() { frame.len() } else { end }
}

/// Computes the checksum in `field` over `range` anew, so that it is off by as much as it was before.
fn renew(
    frame: &mut [u8],
    before: &[u8],
    range: std::ops::Range<usize>,
    field: usize,
    pseudo_before: u16,
    pseudo_now: u16,
) {
    let total = |frame: &[u8], pseudo: u16| add(&frame[range.clone()], pseudo.into());
    let error = total(before, pseudo_before);
    if total(frame, pseudo_now) == error {
        return;
    }
    frame[field..field + 2].fill(0);
    let sum = !total(frame, pseudo_now);
    let checksum = if error == 0xffff { sum } else { fold(u32::from(sum) + u32::from(error)) };
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The ones' complement sum of RFC 1071.
pub(crate) fn add(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    fold(sum)
}

fn ones(width: u32) -> u128 {
    if width == 128 { u128::MAX } else { (1 << width) - 1 }
}

/// Bits below those that are meant.
fn skip(field: &FieldRef, total: u32, width: u32) -> u32 {
    match field.field {
        Field::Tag | Field::Meta | Field::Mark => field.offset,
        _ => total - field.offset - width,
    }
}

fn wide(bytes: &[u8]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    wide
}

/// A value as long as its field: as on the wire, registers big-endian; a number of one byte for DSCP and ECN.
fn immediate(field: Field, value: &[u8; 16]) -> u128 {
    match field {
        Field::Tag | Field::Meta | Field::Mark => {
            u32::from_be_bytes([value[0], value[1], value[2], value[3]]).into()
        }
        Field::Ipv4Dscp | Field::Ipv6Dscp | Field::Ipv6Ecn | Field::Ipv4Ecn => value[0].into(),
        _ => number(value, 0, (width_of(field) as usize).div_ceil(8)).unwrap_or(0),
    }
}

pub(crate) fn width_of(field: Field) -> u32 {
    match field {
        Field::MacDst | Field::MacSrc => 48,
        Field::VlanId => 12,
        Field::Ipv4Dscp | Field::Ipv6Dscp => 6,
        Field::Ipv4Ecn | Field::Ipv6Ecn => 2,
        Field::Ipv4Ttl | Field::Ipv6HopLimit => 8,
        Field::Ipv6Src | Field::Ipv6Dst => 128,
        Field::TcpFlags => 9,
        Field::MacType | Field::TcpPortSrc | Field::TcpPortDst | Field::UdpPortSrc | Field::UdpPortDst => 16,
        _ => 32,
    }
}

/// The UDP source port of a tunnel around a frame: a CRC (x^16 + x^12 + x^3 + x + 1, bit by bit) of its
/// addresses, protocol and ports, the destination's first, in the range from 0xc000.
fn entropy(frame: &[u8], side: &Side) -> u16 {
    let mut fields = vec![0; 32];
    if let Some((version, at)) = side.ip {
        let (source, destination, len) = if version == 4 { (12, 16, 4) } else { (8, 24, 16) };
        fields[16 - len..16].copy_from_slice(&frame[at + destination..at + destination + len]);
        fields[32 - len..].copy_from_slice(&frame[at + source..at + source + len]);
    }
    fields.push(side.protocol);
    match side.transport {
        Some(TCP | UDP) if side.piece == Piece::Whole => {
            fields.extend(&frame[side.payload + 2..side.payload + 4]);
            fields.extend(&frame[side.payload..side.payload + 2]);
        }
        _ => fields.extend([0; 4]),
    }
    let mut remainder = 0_u16;
    for byte in fields {
        for bit in (0..8).rev() {
            let out = remainder >> 15 ^ u16::from(byte >> bit & 1);
            remainder = remainder << 1 ^ if out == 1 { 0x100b } else { 0 };
        }
    }
    remainder | 0xc000
}
