//! Programs in testpmd's syntax, for dumps.
//!
//! What is shown has the program's effect, not the application's words: a `modify_field` of a whole address
//! is shown as the `set_ipv4_dst` that does the same. Bytes of an encapsulation are shown in hexadecimal
//! behind `data`; testpmd itself takes them from an earlier `set raw_encap`.

use std::fmt::{Display, Formatter, Result};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::command::{Command, Op};
use super::edits::{Edits, General, Kind};
use super::place::{Home, Place};
use super::reshape::Decap;
use super::rewrite::{Block, what};
use super::{AgeUse, CounterUse, FLAG_MARK, Fate, MeterUse, Mirror, Program};
use crate::model::types::{Topology, Vport};

impl Program {
    /// The program as testpmd's actions: `count / age timeout 60 / represented_port ethdev_port_id 1`.
    pub fn describe<'a>(&'a self, topology: &'a Topology) -> impl Display + 'a {
        Described { program: self, topology }
    }
}

impl Edits {
    /// The edits as testpmd's actions; nothing if there are none.
    pub fn describe(&self) -> impl Display + '_ {
        DescribedEdits(self)
    }
}

struct DescribedEdits<'a>(&'a Edits);

impl Display for DescribedEdits<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        edits(self.0, &mut List { f, begun: false })
    }
}

struct Described<'a> {
    program: &'a Program,
    topology: &'a Topology,
}

/// Writes ` / ` between actions.
struct List<'a, 'f> {
    f: &'a mut Formatter<'f>,
    begun: bool,
}

impl List<'_, '_> {
    fn action(&mut self, action: std::fmt::Arguments<'_>) -> Result {
        if std::mem::replace(&mut self.begun, true) {
            self.f.write_str(" / ")?;
        }
        self.f.write_fmt(action)
    }
}

impl Display for Described<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Described { program, topology } = self;
        let mut list = List { f, begun: false };
        match program.counter {
            CounterUse::None => {}
            CounterUse::Own => list.action(format_args!("count"))?,
            CounterUse::Is(id) => list.action(format_args!("shared_indirect count {}", id.0))?,
        }
        match program.age {
            AgeUse::None => {}
            AgeUse::Own { timeout_s, .. } => list.action(format_args!("age timeout {timeout_s}"))?,
            AgeUse::Is(id) => list.action(format_args!("shared_indirect age {}", id.0))?,
        }
        match program.meter {
            MeterUse::None => {}
            MeterUse::Mtr(id) => list.action(format_args!("meter mtr_id {id}"))?,
            MeterUse::Mark { profile, colour_aware } => {
                let mode = u8::from(colour_aware);
                list.action(format_args!("meter_mark mtr_profile {profile} mtr_color_mode {mode}"))?;
            }
            MeterUse::Is(id) => list.action(format_args!("shared_indirect meter {}", id.0))?,
        }
        if let Some(mirror) = &program.mirror {
            let Mirror { ratio, program } = &**mirror;
            list.action(format_args!("sample ratio {ratio} actions {{ {} }}", program.describe(topology)))?;
        }
        edits(&program.edits, &mut list)?;
        fate(&program.fate, topology, &mut list)?;
        if list.begun { Ok(()) } else { list.action(format_args!("void")) }
    }
}

fn fate(fate: &Fate, topology: &Topology, list: &mut List<'_, '_>) -> Result {
    match fate {
        Fate::None => Ok(()),
        Fate::Vport(vport) => port(*vport, topology, list),
        Fate::Jump(group) => list.action(format_args!("jump group {group}")),
        Fate::Drop => list.action(format_args!("drop")),
        Fate::Queues(queues) => match &**queues {
            [queue] => list.action(format_args!("queue index {queue}")),
            queues => {
                list.action(format_args!("rss queues"))?;
                queues.iter().try_for_each(|queue| write!(list.f, " {queue}"))?;
                list.f.write_str(" end")
            }
        },
        Fate::SharedQueues(object) => list.action(format_args!("shared_indirect rss {object}")),
    }
}

fn port(vport: Vport, topology: &Topology, list: &mut List<'_, '_>) -> Result {
    match topology.get(vport) {
        Some(info) => list.action(format_args!("represented_port ethdev_port_id {}", info.port_id)),
        None => list.action(format_args!("represented_port ethdev_port_id ?")),
    }
}

fn edits(edits: &Edits, list: &mut List<'_, '_>) -> Result {
    match &edits.0 {
        Kind::None => Ok(()),
        Kind::Short(edits) => block(edits, list),
        Kind::Long(edits) => block(edits, list),
        Kind::General(edits) => general(edits, list),
    }
}

fn rewrites(edits: &General, list: &mut List<'_, '_>) -> Result {
    match &edits.rewrite {
        Kind::Short(edits) => block(edits, list)?,
        Kind::Long(edits) => block(edits, list)?,
        Kind::None | Kind::General(_) => {}
    }
    edits.commands.iter().try_for_each(|edit| command(edit, list))
}

fn general(edits: &General, list: &mut List<'_, '_>) -> Result {
    match &edits.decap {
        None => {}
        Some(Decap::Tunnel) => list.action(format_args!("vxlan_decap"))?,
        Some(Decap::TunnelToL2(bytes)) => {
            list.action(format_args!("raw_decap"))?;
            list.action(format_args!("raw_encap data {}", Hex(bytes)))?;
        }
    }
    (0..edits.pops).try_for_each(|_| list.action(format_args!("of_pop_vlan")))?;
    if edits.rewrite_first {
        rewrites(edits, list)?;
    }
    for tag in &edits.pushes {
        list.action(format_args!("of_push_vlan ethertype {:#06x}", tag.ethertype))?;
        list.action(format_args!("of_set_vlan_vid vlan_vid {}", tag.tci & 0x0fff))?;
        list.action(format_args!("of_set_vlan_pcp vlan_pcp {}", tag.tci >> 13))?;
    }
    if !edits.rewrite_first {
        rewrites(edits, list)?;
    }
    if let Some(encap) = &edits.encap {
        if encap.replaces_l2 {
            list.action(format_args!("raw_decap"))?;
        }
        list.action(format_args!("raw_encap data {}", Hex(&encap.bytes)))?;
    }
    Ok(())
}

fn block<const A: usize>(block: &Block<A>, list: &mut List<'_, '_>) -> Result {
    let has = |bit| block.what & bit != 0;
    if has(what::MAC_SRC) {
        list.action(format_args!("set_mac_src mac_addr {}", Mac(&block.macs[6..])))?;
    }
    if has(what::MAC_DST) {
        list.action(format_args!("set_mac_dst mac_addr {}", Mac(&block.macs[..6])))?;
    }
    if has(what::SRC) {
        list.action(format_args!("{}", Address { what: "src", bytes: &block.src }))?;
    }
    if has(what::DST) {
        list.action(format_args!("{}", Address { what: "dst", bytes: &block.dst }))?;
    }
    let port = |at: usize| u16::from_be_bytes([block.ports[at], block.ports[at + 1]]);
    if has(what::PORT_SRC) {
        list.action(format_args!("set_tp_src port {}", port(0)))?;
    }
    if has(what::PORT_DST) {
        list.action(format_args!("set_tp_dst port {}", port(2)))?;
    }
    match (has(what::TTL), block.ttl_keep, block.ttl_add) {
        (false, ..) => Ok(()),
        (_, 0, ttl) => list.action(format_args!("set_ttl ttl_value {ttl}")),
        (_, _, 0xff) => list.action(format_args!("dec_ttl")),
        (_, _, value) => {
            let field = if has(what::IPV6) { "ipv6_hoplimit" } else { "ipv4_ttl" };
            list.action(format_args!(
                "modify_field op add dst_type {field} src_type value src_value {value:02x} width 8"
            ))
        }
    }
}

fn command(command: &Command, list: &mut List<'_, '_>) -> Result {
    let to = &command.to;
    let value = match command.op {
        Op::Set { value, mask } => match to.home {
            Home::Mark if value == u128::from(FLAG_MARK) && mask == u128::from(u32::MAX) => {
                return list.action(format_args!("flag"));
            }
            Home::Mark if mask == u128::from(u32::MAX) => {
                return list.action(format_args!("mark id {value}"));
            }
            Home::Tag(index) => {
                let (data, mask) = (value, mask);
                return list.action(format_args!("set_tag data {data:#x} mask {mask:#x} index {index}"));
            }
            Home::Meta => {
                return list.action(format_args!("set_meta data {value:#x} mask {mask:#x}"));
            }
            Home::Ports => {
                let side = if to.at == 0 { "src" } else { "dst" };
                return list.action(format_args!("set_tp_{side} port {value}"));
            }
            Home::Ttl => return list.action(format_args!("set_ttl ttl_value {value}")),
            Home::Vlan if to.shift == 13 => {
                return list.action(format_args!("of_set_vlan_pcp vlan_pcp {}", value >> 13));
            }
            _ => value >> to.shift,
        },
        Op::Add(0xff) if to.home == Home::Ttl => return list.action(format_args!("dec_ttl")),
        Op::Add(value) if to.home == Home::Tcp && to.at == 4 && to.width == 32 => {
            return list.action(format_args!("inc_tcp_seq value {value}"));
        }
        Op::Add(value) if to.home == Home::Tcp && to.at == 8 && to.width == 32 => {
            return list.action(format_args!("inc_tcp_ack value {value}"));
        }
        Op::Add(value) => value,
        Op::Copy(from) | Op::AddFrom(from) => {
            let op = if matches!(command.op, Op::Copy(_)) { "set" } else { "add" };
            let (to, from) = (Target("dst", to), Target("src", &from));
            return list.action(format_args!("modify_field op {op} {to} {from} width {}", to.1.width));
        }
    };
    let op = if matches!(command.op, Op::Set { .. }) { "set" } else { "add" };
    let target = Target("dst", to);
    let width = to.width;
    list.action(format_args!(
        "modify_field op {op} {target} src_type value src_value {value:x} width {width}"
    ))
}

/// One side of a `modify_field`.
struct Target<'a>(&'static str, &'a Place);

impl Display for Target<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Target(side, place) = self;
        let (name, lowest, bits) = name(place);
        let level = match place.home {
            Home::Tag(index) => index,
            _ => 2 * u8::from(place.innermost),
        };
        let offset = if place.home.is_register() {
            place.shift
        } else {
            (lowest + bits).saturating_sub(place.shift + place.width)
        };
        write!(f, "{side}_type {name} {side}_level {level} {side}_offset {offset}")
    }
}

/// The field's name, its lowest bit in the place's bytes, and its width.
fn name(place: &Place) -> (&'static str, u8, u8) {
    let bits = place.bytes.saturating_mul(8);
    match (place.home, place.at, place.shift) {
        (Home::Ethernet, 0, _) => ("mac_dst", 0, bits),
        (Home::Ethernet, ..) => ("mac_src", 0, bits),
        (Home::EtherType, ..) => ("mac_type", 0, bits),
        (Home::Vlan, ..) => ("vlan_id", 0, 12),
        (Home::Ipv4, 1, 0..2) => ("ipv4_ecn", 0, 2),
        (Home::Ipv4, 1, _) => ("ipv4_dscp", 2, 6),
        (Home::Ipv4, 12, _) => ("ipv4_src", 0, bits),
        (Home::Ipv4, 16, _) => ("ipv4_dst", 0, bits),
        (Home::Ipv4 | Home::Ttl, ..) => ("ipv4_ttl", 0, bits),
        (Home::Ipv6, 0, 0..6) => ("ipv6_ecn", 4, 2),
        (Home::Ipv6, 0, _) => ("ipv6_dscp", 6, 6),
        (Home::Ipv6, 7, _) => ("ipv6_hoplimit", 0, bits),
        (Home::Ipv6, 8, _) => ("ipv6_src", 0, bits),
        (Home::Ipv6, ..) => ("ipv6_dst", 0, bits),
        (Home::Tcp, 0, _) => ("tcp_port_src", 0, bits),
        (Home::Tcp, 2, _) => ("tcp_port_dst", 0, bits),
        (Home::Tcp, 4, _) => ("tcp_seq_num", 0, bits),
        (Home::Tcp, 8, _) => ("tcp_ack_num", 0, bits),
        (Home::Tcp, ..) => ("tcp_flags", 0, 9),
        (Home::Udp | Home::Ports, 0, _) => ("udp_port_src", 0, bits),
        (Home::Udp | Home::Ports, ..) => ("udp_port_dst", 0, bits),
        (Home::Vxlan, ..) => ("vxlan_vni", 0, bits),
        (Home::Tag(_), ..) => ("tag", 0, 32),
        (Home::Meta, ..) => ("meta", 0, 32),
        (Home::Mark, ..) => ("mark", 0, 32),
        (Home::Colour, ..) => ("meter_color", 0, 2),
    }
}

struct Mac<'a>(&'a [u8]);

impl Display for Mac<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

struct Hex<'a>(&'a [u8]);

impl Display for Hex<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

struct Address<'a> {
    what: &'static str,
    bytes: &'a [u8],
}

impl Display for Address<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let what = self.what;
        match (<[u8; 4]>::try_from(self.bytes), <[u8; 16]>::try_from(self.bytes)) {
            (Ok(bytes), _) => write!(f, "set_ipv4_{what} ipv4_addr {}", Ipv4Addr::from(bytes)),
            (_, Ok(bytes)) => write!(f, "set_ipv6_{what} ipv6_addr {}", Ipv6Addr::from(bytes)),
            _ => Ok(()),
        }
    }
}
