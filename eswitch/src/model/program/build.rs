//! Action lists become programs.

use super::command::{Command, Op};
use super::edits::{Edits, General, Kind};
use super::place::{Home, Place};
use super::reshape::{Decap, Encap, TUNNEL_MIN, Tag};
use super::rewrite::{Block, what};
use super::{AgeUse, CounterUse, FLAG_MARK, Fate, MeterUse, Mirror, Program};
use crate::model::action::{Action, Field, FieldRef, FieldSource, ModifyOp, Shared};
use crate::model::key::TAGS;
use crate::model::refusal::{Cause, Errno, Refusal};
use crate::model::types::Topology;

/// See [`Program::compile`].
pub(super) fn compile(actions: &[Action<'_>], topology: &Topology) -> Result<Program, Refusal> {
    let mut builder = Builder { rewrite_first: true, ..Builder::new(topology) };
    for (index, action) in actions.iter().enumerate() {
        match *action {
            Action::Sample { ratio, actions: own } => {
                let copied = mirror(actions.get(..index).unwrap_or_default(), own, index, topology)?;
                builder.mirror(index, ratio, copied)?;
            }
            ref action => builder.take(index, action)?,
        }
    }
    Ok(builder.finish())
}

/// The program of a copy: what edits come `before` the sample, and its own list.
fn mirror(
    before: &[Action<'_>],
    own: &[Action<'_>],
    index: usize,
    topology: &Topology,
) -> Result<Program, Refusal> {
    let mut builder = Builder { rewrite_first: true, ..Builder::new(topology) };
    for (index, action) in before.iter().enumerate() {
        // The rest is of the packet itself, not of its copy.
        let _ = builder.edit(index, action)?;
    }
    for action in own {
        builder.take(index, action)?;
    }
    Ok(builder.finish())
}

/// Whether an action was an edit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    Yes,
    NoEdit,
}

/// A program under construction: actions are taken one at a time, in order.
pub(super) struct Builder<'t> {
    topology: &'t Topology,
    counter: CounterUse,
    age: AgeUse,
    meter: MeterUse,
    mirror: Option<Box<Mirror>>,
    fate: Fate,
    block: Block<16>,
    /// Made when it is needed: a million NAT rules are built without.
    general: Option<Box<General>>,
    commands: Vec<Command>,
    /// No more into the block, which is done first: a command reads or writes what the next action may touch.
    sealed: bool,
    /// Software steering: header edits are one action at the place of the first (`flow_dv_translate`,
    /// `modify_action_position`), which the library takes before pushed tags only.
    rewrite_first: bool,
    /// Bytes of the last raw decapsulation, until its encapsulation comes.
    raw_decap: Option<usize>,
}

fn inval<T>(cause: Cause, message: &'static str) -> Result<T, Refusal> {
    Err(Refusal::new(Errno::Inval, cause, message))
}

impl<'t> Builder<'t> {
    #[inline]
    pub(super) fn new(topology: &'t Topology) -> Builder<'t> {
        Builder {
            topology,
            counter: CounterUse::None,
            age: AgeUse::None,
            meter: MeterUse::None,
            mirror: None,
            fate: Fate::None,
            block: Block {
                what: 0,
                macs: [0; 12],
                src: [0; 16],
                dst: [0; 16],
                ports: [0; 4],
                ttl_keep: 0xff,
                ttl_add: 0,
            },
            general: None,
            commands: Vec::new(),
            sealed: false,
            rewrite_first: false,
            raw_decap: None,
        }
    }

    /// One more action, with its index in the list for refusals.
    #[inline]
    pub(super) fn take(&mut self, index: usize, action: &Action<'_>) -> Result<(), Refusal> {
        match *action {
            Action::ModifyField { op, dst, ref src, width } => {
                self.modify(index, op, dst, src.as_ref(), width)
            }
            Action::Count => self.counter(index, CounterUse::Own),
            Action::Age { timeout_s, context } => self.age(index, AgeUse::Own { timeout_s, context }),
            Action::RepresentedPort(port) => self.port(index, port.map(u32::from)),
            _ => self.take_rare(index, action),
        }
    }

    fn take_rare(&mut self, index: usize, action: &Action<'_>) -> Result<(), Refusal> {
        if self.edit(index, action)? == Taken::Yes {
            return Ok(());
        }
        match *action {
            Action::PortId(port) => self.port(index, port),
            Action::Jump(group) => {
                let group = configured(group, index)?;
                self.fate(index, Fate::Jump(group))
            }
            Action::Drop => self.fate(index, Fate::Drop),
            Action::Queue(queue) => {
                let queue = configured(queue, index)?;
                self.fate(index, Fate::Queues(Box::new([queue])))
            }
            Action::Rss { queues: [] } => inval(Cause::ActionConf(index), "no queues"),
            Action::Rss { queues } => self.fate(index, Fate::Queues(queues.into())),
            Action::Meter(id) => self.meter(index, MeterUse::Mtr(id)),
            Action::MeterMark { profile, colour_aware } => {
                self.meter(index, MeterUse::Mark { profile, colour_aware })
            }
            Action::Indirect(handle) => match configured(handle, index)? {
                Shared::Counter(id) => self.counter(index, CounterUse::Is(id)),
                Shared::Age(id) => self.age(index, AgeUse::Is(id)),
                Shared::Meter(id) => self.meter(index, MeterUse::Is(id)),
                Shared::Rss(object) => self.fate(index, Fate::SharedQueues(object)),
            },
            Action::Sample { .. } => inval(Cause::Action(index), "a sample within a sample"),
            _ => Err(Refusal::new(Errno::Notsup, Cause::Action(index), "action not supported")),
        }
    }

    /// A mirror, compiled.
    fn mirror(&mut self, index: usize, ratio: u32, program: Program) -> Result<(), Refusal> {
        if ratio == 0 || self.mirror.is_some() {
            return inval(Cause::Action(index), "one sample, of at least one packet in as many");
        }
        self.mirror = Some(Box::new(Mirror { ratio, program }));
        Ok(())
    }

    #[inline]
    fn counter(&mut self, index: usize, counter: CounterUse) -> Result<(), Refusal> {
        if self.counter != CounterUse::None {
            return inval(Cause::Action(index), "a second counter");
        }
        self.counter = counter;
        Ok(())
    }

    #[inline]
    fn age(&mut self, index: usize, age: AgeUse) -> Result<(), Refusal> {
        if self.age != AgeUse::None {
            return inval(Cause::Action(index), "a second age");
        }
        self.age = age;
        Ok(())
    }

    fn meter(&mut self, index: usize, meter: MeterUse) -> Result<(), Refusal> {
        if self.meter != MeterUse::None {
            return inval(Cause::Action(index), "a second meter");
        }
        self.meter = meter;
        Ok(())
    }

    #[inline]
    fn fate(&mut self, index: usize, fate: Fate) -> Result<(), Refusal> {
        if self.fate != Fate::None {
            return inval(Cause::Action(index), "a second fate");
        }
        self.fate = fate;
        Ok(())
    }

    #[inline]
    fn port(&mut self, index: usize, port: Option<u32>) -> Result<(), Refusal> {
        let port = configured(port, index)?;
        let vport = u16::try_from(port).ok().and_then(|port| self.topology.vport_of(port));
        match vport {
            Some(vport) => self.fate(index, Fate::Vport(vport)),
            None => inval(Cause::ActionConf(index), "no port of this switch"),
        }
    }

    /// Takes an action if it is an edit.
    fn edit(&mut self, index: usize, action: &Action<'_>) -> Result<Taken, Refusal> {
        match *action {
            Action::ModifyField { op, dst, ref src, width } => {
                self.modify(index, op, dst, src.as_ref(), width)?;
            }
            Action::SetTag { index: tag, .. } if usize::from(tag) >= TAGS => {
                return inval(Cause::ActionConf(index), "no such tag register");
            }
            Action::SetTag { index: tag, data, mask } => self.register(Home::Tag(tag), data, mask),
            Action::SetMeta { data, mask } => self.register(Home::Meta, data, mask),
            Action::Mark(id) => self.register(Home::Mark, configured(id, index)?, u32::MAX),
            Action::Flag => self.register(Home::Mark, FLAG_MARK, u32::MAX),
            Action::PopVlan if self.general().pops == 2 => {
                return inval(Cause::Action(index), "more tags to pop than a frame has");
            }
            Action::PopVlan => self.general().pops += 1,
            Action::PushVlan(ethertype) => self.push(index, ethertype)?,
            Action::SetVlanVid(vid) => self.vlan(vid & 0x0fff, 0x0fff),
            Action::SetVlanPcp(pcp) => self.vlan(u16::from(pcp & 7) << 13, 0xe000),
            Action::VxlanDecap => self.decap(index, None)?,
            Action::RawDecap(bytes) => self.decap(index, Some(bytes.len()))?,
            Action::VxlanEncap(bytes) => self.encap(index, bytes, false)?,
            Action::RawEncap(bytes) => self.raw_encap(index, bytes)?,
            ref other => return Ok(self.legacy(other)),
        }
        Ok(Taken::Yes)
    }

    /// The `set_*` family.
    fn legacy(&mut self, action: &Action<'_>) -> Taken {
        match *action {
            Action::SetMacSrc(mac) => self.constant(Field::MacSrc, &widen(mac)),
            Action::SetMacDst(mac) => self.constant(Field::MacDst, &widen(mac)),
            Action::SetIpv4Src(address) => self.constant(Field::Ipv4Src, &widen(address)),
            Action::SetIpv4Dst(address) => self.constant(Field::Ipv4Dst, &widen(address)),
            Action::SetIpv6Src(address) => self.constant(Field::Ipv6Src, &address),
            Action::SetIpv6Dst(address) => self.constant(Field::Ipv6Dst, &address),
            Action::SetTpSrc(port) => self.ports(what::PORT_SRC, port, 0),
            Action::SetTpDst(port) => self.ports(what::PORT_DST, port, 2),
            Action::SetTtl(ttl) => self.ttl(0, ttl),
            // What the driver does as well: `flow_dv_convert_action_modify_dec_ttl`.
            Action::DecTtl => self.ttl(0xff, 0xff),
            Action::SetIpv4Dscp(dscp) => self.constant(Field::Ipv4Dscp, &widen([dscp])),
            Action::SetIpv6Dscp(dscp) => self.constant(Field::Ipv6Dscp, &widen([dscp])),
            Action::AddTcpSeq(difference) => self.tcp_add(4, difference),
            Action::AddTcpAck(difference) => self.tcp_add(8, difference),
            _ => return Taken::NoEdit,
        }
        Taken::Yes
    }

    fn constant(&mut self, field: Field, value: &[u8; 16]) {
        if self.fold(field, ModifyOp::Set, value) {
            return;
        }
        if let Some(to) = Place::whole(field) {
            let op = Op::Set { value: to.wire_bits(field, value), mask: to.mask() };
            self.command(Command { to, op });
        }
    }

    fn command(&mut self, command: Command) {
        let copies = matches!(command.op, Op::Copy(_) | Op::AddFrom(_));
        self.sealed |= copies || !command.to.home.is_register();
        self.commands.push(command);
    }

    fn register(&mut self, home: Home, data: u32, mask: u32) {
        let op = Op::Set { value: u128::from(data & mask), mask: u128::from(mask) };
        self.command(Command { to: Place::of(home, 0, 4), op });
    }

    fn ports(&mut self, which: u16, port: u16, at: usize) {
        if !self.sealed {
            self.block.what |= which;
            self.block.ports[at..at + 2].copy_from_slice(&port.to_be_bytes());
        } else {
            self.command(Command::set(Place::of(Home::Ports, at as u8, 2), u128::from(port)));
        }
    }

    fn ttl(&mut self, keep: u8, add: u8) {
        if !self.sealed {
            self.block.what |= what::TTL;
            self.block.ttl_keep &= keep;
            self.block.ttl_add = (self.block.ttl_add & keep).wrapping_add(add);
        } else {
            let to = Place::of(Home::Ttl, 0, 1);
            let value = u128::from(add);
            self.command(if keep == 0 {
                Command::set(to, value)
            } else {
                Command { to, op: Op::Add(value) }
            });
        }
    }

    fn tcp_add(&mut self, at: u8, difference: i64) {
        let op = Op::Add(u128::from(difference as u32));
        self.command(Command { to: Place::of(Home::Tcp, at, 4), op });
    }

    /// Part of the TCI of the tag pushed last, or of the packet's own.
    fn vlan(&mut self, bits: u16, mask: u16) {
        let pushed = self.general.as_mut().and_then(|general| general.pushes.last_mut());
        if let Some(tag) = pushed {
            tag.tci = tag.tci & !mask | bits;
            return;
        }
        let op = Op::Set { value: u128::from(bits), mask: u128::from(mask) };
        let shift = mask.trailing_zeros() as u8;
        let to = Place { shift, width: mask.count_ones() as u8, ..Place::of(Home::Vlan, 0, 2) };
        self.command(Command { to, op });
    }

    /// A tag with TCI 0, for what follows in the list to fill in. mlx5's synchronous engine begins with
    /// the TCI of a VLAN item whose mask is full, if the pattern has one; patterns are not known here.
    fn push(&mut self, index: usize, ethertype: u16) -> Result<(), Refusal> {
        let pushed = self.general().pushes.try_push(Tag { ethertype, tci: 0 });
        pushed.or_else(|_| inval(Cause::Action(index), "more tags to push than a frame may have"))
    }

    fn decap(&mut self, index: usize, raw: Option<usize>) -> Result<(), Refusal> {
        let general = self.general();
        if general.decap.is_some() || general.encap.is_some() {
            return inval(Cause::Action(index), "a decapsulation comes first, and once");
        }
        general.decap = Some(Decap::Tunnel);
        self.raw_decap = raw;
        Ok(())
    }

    fn encap(&mut self, index: usize, bytes: &[u8], replaces_l2: bool) -> Result<(), Refusal> {
        let general = self.general();
        if general.encap.is_some() {
            return inval(Cause::Action(index), "a second encapsulation");
        }
        general.encap = Some(Encap::new(bytes, replaces_l2, index)?);
        Ok(())
    }

    /// What it means depends on the decapsulation before it: `flow_dv_validate_action_raw_encap_decap`,
    /// `drivers/net/mlx5/mlx5_flow_dv.c` of DPDK 22.11.
    fn raw_encap(&mut self, index: usize, bytes: &[u8]) -> Result<(), Refusal> {
        let small = bytes.len() < TUNNEL_MIN;
        match self.raw_decap.take() {
            Some(decap) if decap > TUNNEL_MIN && small && bytes.len() >= 14 => {
                self.general().decap = Some(Decap::TunnelToL2(bytes.into()));
                Ok(())
            }
            Some(decap) if decap <= TUNNEL_MIN && !small => {
                self.general().decap = None;
                self.encap(index, bytes, true)
            }
            _ if small => {
                let message = "too few bytes for a tunnel";
                Err(Refusal::new(Errno::Notsup, Cause::Action(index), message))
            }
            _ => self.encap(index, bytes, false),
        }
    }

    #[inline]
    pub(super) fn modify(
        &mut self,
        index: usize,
        op: ModifyOp,
        dst: FieldRef,
        src: Option<&FieldSource>,
        width: u32,
    ) -> Result<(), Refusal> {
        let src = configured(src, index)?;
        if let FieldSource::Value(value) = src {
            let whole = dst.offset == 0 && dst.level <= 1 && width == whole_width(dst.field);
            if whole && self.fold(dst.field, op, value) {
                return Ok(());
            }
        }
        self.modify_some(index, op, dst, *src, width)
    }

    fn modify_some(
        &mut self,
        index: usize,
        op: ModifyOp,
        dst: FieldRef,
        src: FieldSource,
        width: u32,
    ) -> Result<(), Refusal> {
        let to = Place::named(dst, width, index)?;
        let op = match (op, src) {
            (ModifyOp::Sub, _) => {
                let message = "sub operations are not supported";
                return Err(Refusal::new(Errno::Notsup, Cause::Action(index), message));
            }
            (ModifyOp::Set, FieldSource::Value(value)) => {
                Op::Set { value: to.wire_bits(dst.field, &value), mask: to.mask() }
            }
            (ModifyOp::Add, FieldSource::Value(value)) => {
                Op::Add(to.wire_bits(dst.field, &value) >> to.shift)
            }
            (ModifyOp::Set, FieldSource::Field(src)) => Op::Copy(Place::named(src, width, index)?),
            (ModifyOp::Add, FieldSource::Field(src)) => Op::AddFrom(Place::named(src, width, index)?),
        };
        self.command(Command { to, op });
        Ok(())
    }

    /// Takes a constant for a whole field of the outermost headers into the block, if it has room for it.
    #[inline]
    fn fold(&mut self, field: Field, op: ModifyOp, value: &[u8; 16]) -> bool {
        let block = &mut self.block;
        if self.sealed {
            return false;
        }
        let (bits, conflict, to): (_, _, &mut [u8]) = match (field, op) {
            (Field::MacDst, ModifyOp::Set) => (what::MAC_DST, 0, &mut block.macs[..6]),
            (Field::MacSrc, ModifyOp::Set) => (what::MAC_SRC, 0, &mut block.macs[6..]),
            (Field::Ipv4Src, ModifyOp::Set) => (what::SRC | what::IPV4, what::IPV6, &mut block.src[..4]),
            (Field::Ipv4Dst, ModifyOp::Set) => (what::DST | what::IPV4, what::IPV6, &mut block.dst[..4]),
            (Field::Ipv6Src, ModifyOp::Set) => (what::SRC | what::IPV6, what::IPV4, &mut block.src),
            (Field::Ipv6Dst, ModifyOp::Set) => (what::DST | what::IPV6, what::IPV4, &mut block.dst),
            (Field::TcpPortSrc, ModifyOp::Set) => {
                (what::PORT_SRC | what::TCP, what::UDP, &mut block.ports[..2])
            }
            (Field::TcpPortDst, ModifyOp::Set) => {
                (what::PORT_DST | what::TCP, what::UDP, &mut block.ports[2..])
            }
            (Field::UdpPortSrc, ModifyOp::Set) => {
                (what::PORT_SRC | what::UDP, what::TCP, &mut block.ports[..2])
            }
            (Field::UdpPortDst, ModifyOp::Set) => {
                (what::PORT_DST | what::UDP, what::TCP, &mut block.ports[2..])
            }
            (Field::Ipv4Ttl | Field::Ipv6HopLimit, ModifyOp::Set | ModifyOp::Add) => {
                return self.fold_ttl(field, op, value[0]);
            }
            _ => return false,
        };
        if block.what & conflict != 0 {
            return false;
        }
        block.what |= bits;
        let len = to.len();
        to.copy_from_slice(&value[..len]);
        true
    }

    fn fold_ttl(&mut self, field: Field, op: ModifyOp, value: u8) -> bool {
        let (needed, conflict) = match field {
            Field::Ipv4Ttl => (what::IPV4, what::IPV6),
            _ => (what::IPV6, what::IPV4),
        };
        if self.block.what & conflict != 0 {
            return false;
        }
        self.block.what |= needed;
        self.ttl(if op == ModifyOp::Set { 0 } else { 0xff }, value);
        true
    }

    /// What is rare, made now at the latest.
    fn general(&mut self) -> &mut General {
        self.general.get_or_insert_default()
    }

    /// The program.
    #[inline]
    pub(super) fn finish(self) -> Program {
        let Builder { counter, age, meter, mirror, fate, general, commands, rewrite_first, .. } = self;
        let rewrite = rewrite(&self.block);
        let edits = if general.is_none() && commands.is_empty() {
            rewrite
        } else {
            let mut general = general.unwrap_or_default();
            general.rewrite = rewrite;
            general.commands = commands.into();
            // Where nothing is pushed, it makes no difference.
            general.rewrite_first = rewrite_first && !general.pushes.is_empty();
            Kind::General(general)
        };
        Program { edits: Edits(edits), counter, age, meter, mirror, fate }
    }
}

#[inline]
fn rewrite(block: &Block<16>) -> Kind {
    let &Block { what, macs, src, dst, ports, ttl_keep, ttl_add } = block;
    if what == 0 {
        return Kind::None;
    }
    if what & what::IPV6 != 0 {
        return Kind::Long(Box::new(*block));
    }
    let short = |address: [u8; 16]| [address[0], address[1], address[2], address[3]];
    Kind::Short(Block { what, macs, src: short(src), dst: short(dst), ports, ttl_keep, ttl_add })
}

/// The width of a field that [`Builder::fold`] takes; of others, one that none has.
#[inline]
const fn whole_width(field: Field) -> u32 {
    match field {
        Field::MacDst | Field::MacSrc => 48,
        Field::Ipv4Src | Field::Ipv4Dst => 32,
        Field::Ipv6Src | Field::Ipv6Dst => 128,
        Field::TcpPortSrc | Field::TcpPortDst | Field::UdpPortSrc | Field::UdpPortDst => 16,
        Field::Ipv4Ttl | Field::Ipv6HopLimit => 8,
        _ => 0,
    }
}

#[inline]
fn configured<T>(configuration: Option<T>, index: usize) -> Result<T, Refusal> {
    configuration.ok_or(Refusal::new(Errno::Inval, Cause::ActionConf(index), "no configuration"))
}

/// A field's value, as an immediate one.
fn widen<const N: usize>(value: [u8; N]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide.iter_mut().zip(value).for_each(|(wide, byte)| *wide = byte);
    wide
}
