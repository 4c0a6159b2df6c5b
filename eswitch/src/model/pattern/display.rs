//! A rule's match, for people: in testpmd's pattern syntax, from the bits alone.
//!
//! It says the same as the pattern that was lowered, not in the same words: an EtherType that became an IP
//! version is shown as the item.

use super::super::key::{L3, L4, TunnelKind};
use super::place::{GRE_KEY_PRESENT, Place};
use super::*;
use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

/// A match to be printed with ethdevs as ports.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    rule: &'a Match,
    topology: Option<&'a Topology>,
}

impl Match {
    /// To be printed with the ethdevs of this switch. Without it, ports are printed as vports.
    #[must_use]
    pub fn with_ports<'a>(&'a self, topology: &'a Topology) -> Shown<'a> {
        Shown { rule: self, topology: Some(topology) }
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Shown { rule: self, topology: None }.fmt(f)
    }
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut out = Writer { f, rule: self.rule, started: false };
        source(&mut out, self.topology)?;
        registers(&mut out)?;
        headers(&mut out, &Place { base: layout::OUTER, shift: layout::OUTER_SHIFT, second_tag: false })?;
        let inner = Place { base: layout::INNER, shift: layout::INNER_SHIFT, second_tag: false };
        tunnel(&mut out)?;
        headers(&mut out, &inner)?;
        if !out.started {
            return f.write_str("end");
        }
        f.write_str(" / end")
    }
}

struct Writer<'a, 'b> {
    f: &'a mut Formatter<'b>,
    rule: &'a Match,
    started: bool,
}

/// A field's place: word, least significant bit, width.
type Bits = (usize, u32, u32);

impl Writer<'_, '_> {
    fn item(&mut self, name: &str) -> fmt::Result {
        if std::mem::replace(&mut self.started, true) {
            self.f.write_str(" / ")?;
        }
        self.f.write_str(name)
    }

    /// Value and mask.
    fn bits(&self, (word, shift, width): Bits) -> (u64, u64) {
        let ones = u64::MAX >> (64 - width);
        (self.rule.value.words[word] >> shift & ones, self.rule.mask.words[word] >> shift & ones)
    }

    fn is_masked(&self, bits: Bits) -> bool {
        self.bits(bits).1 != 0
    }

    /// A field, if it counts.
    fn field<T: Display>(&mut self, name: &str, bits: Bits, show: impl Fn(u64) -> T) -> fmt::Result {
        let (value, mask) = self.bits(bits);
        if mask == 0 {
            Ok(())
        } else if mask == u64::MAX >> (64 - bits.2) {
            write!(self.f, " {name} is {}", show(value))
        } else {
            write!(self.f, " {name} spec {} {name} mask {}", show(value), show(mask))
        }
    }
}

fn number(value: u64) -> u64 {
    value
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

fn colour_name(value: u64) -> &'static str {
    ["green", "yellow", "red"].get(value as usize).copied().unwrap_or("all")
}

fn mac(value: u64) -> String {
    let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn ipv4(value: u64) -> Ipv4Addr {
    Ipv4Addr::from(value as u32)
}

fn source(out: &mut Writer<'_, '_>, topology: Option<&Topology>) -> fmt::Result {
    let source = (layout::SHAPE, 0, 16);
    let (vport, mask) = out.bits(source);
    if mask != 0 {
        out.item("represented_port")?;
        return match topology {
            None => out.field("vport", source, number),
            Some(topology) => match topology.get(Vport(vport as u16)) {
                Some(info) => write!(out.f, " ethdev_port_id is {}", info.port_id),
                None => out.f.write_str(" ethdev_port_id is none"),
            },
        };
    }
    match out.bits((layout::SHAPE, layout::MANAGER.trailing_zeros(), 1)) {
        (1, 1) => out.item("port_representor"),
        _ => Ok(()),
    }
}

fn registers(out: &mut Writer<'_, '_>) -> fmt::Result {
    for tag in 0..TAGS {
        let bits = (layout::TAG + tag / 2, if tag % 2 == 0 { 32 } else { 0 }, 32);
        if out.is_masked(bits) {
            out.item("tag")?;
            out.field("data", bits, hex)?;
            write!(out.f, " index is {tag}")?;
        }
    }
    let (meta, mark) = ((layout::META, 32, 32), (layout::META, 0, 32));
    let colour = (layout::SHAPE, layout::COLOUR_SHIFT, 2);
    if out.is_masked(meta) {
        out.item("meta")?;
        out.field("data", meta, hex)?;
    }
    if out.is_masked(mark) {
        out.item("mark")?;
        out.field("id", mark, number)?;
    }
    if out.is_masked(colour) {
        out.item("meter")?;
        out.field("color", colour, colour_name)?;
    }
    Ok(())
}

fn headers(out: &mut Writer<'_, '_>, at: &Place) -> fmt::Result {
    let words = at.base..at.base + 8;
    let shape_counts = out.is_masked((layout::SHAPE, at.shift, 16));
    if !shape_counts && words.clone().all(|word| out.rule.mask.words[word] == 0) {
        return if at.inner() { Ok(()) } else { out.item("eth") };
    }
    let has_ethernet = !at.inner() || out.is_masked((layout::SHAPE, at.shift, 4)) || {
        let bits = (layout::SHAPE, at.shift + stack::ETHERNET.trailing_zeros(), 1);
        out.is_masked(bits)
            || (at.base + layout::ETH_DST..=at.base + layout::ETH_SRC)
                .any(|word| out.rule.mask.words[word] != 0)
    };
    if has_ethernet {
        ethernet(out, at)?;
    }
    network(out, at)?;
    transport(out, at)
}

fn ethernet(out: &mut Writer<'_, '_>, at: &Place) -> fmt::Result {
    let tagged = |bit: u64| (layout::SHAPE, at.shift + bit.trailing_zeros(), 1);
    let (first, first_counts) = out.bits(tagged(stack::TAGGED));
    let tci = (at.base + layout::ETH_SRC, 0, 16);
    let tci2 = (at.base + layout::REST, 48, 16);
    let ethertype = (at.base + layout::ETH_DST, 0, 16);
    let two = out.is_masked(tagged(stack::TAGGED2)) || out.is_masked(tci2);
    let one = first == 1 || two || out.is_masked(tci);
    out.item("eth")?;
    out.field("dst", (at.base + layout::ETH_DST, 16, 48), mac)?;
    out.field("src", (at.base + layout::ETH_SRC, 16, 48), mac)?;
    if !one {
        out.field("type", ethertype, hex)?;
        return if first_counts == 1 { out.f.write_str(" has_vlan is 0") } else { Ok(()) };
    }
    out.item("vlan")?;
    out.field("tci", tci, hex)?;
    // A service tag means that another follows.
    out.field("has_more_vlan", tagged(stack::SERVICE), number)?;
    if two {
        out.item("vlan")?;
        out.field("tci", tci2, hex)?;
    }
    out.field("inner_type", ethertype, hex)
}

fn network(out: &mut Writer<'_, '_>, at: &Place) -> fmt::Result {
    let base = at.base;
    let low_fields = out.is_masked((base + layout::PORTS, 0, 24));
    let version = out.bits((layout::SHAPE, at.shift, 16)).0 & stack::L3_MASK;
    let is_masked = |words: std::ops::Range<usize>| words.clone().any(|word| out.rule.mask.words[word] != 0);
    let addresses = base + layout::ADDRESSES;
    // Without a version (relaxed matching), by what is asked.
    let long = is_masked(addresses + 1..addresses + 4);
    let short =
        is_masked(addresses..addresses + 1) || low_fields || out.is_masked((base + layout::REST, 32, 16));
    let unnamed = out.bits((layout::SHAPE, at.shift, 16)).1 & stack::L3_MASK == 0;
    let fragment = (layout::SHAPE, at.shift + stack::FRAGMENT.trailing_zeros(), 1);
    if version == layout::l3_bits(L3::Ipv6) || unnamed && long {
        out.item("ipv6")?;
        ipv6_addresses(out, base)?;
        out.field("tc", (base + layout::PORTS, 0, 8), number)?;
        out.field("hop", (base + layout::PORTS, 8, 8), number)?;
        out.field("flow", (base + layout::REST, 0, 20), hex)?;
        out.field("payload_len", (base + layout::REST, 32, 16), number)?;
        out.field("has_frag_ext", fragment, number)?;
    } else if version == layout::l3_bits(L3::Ipv4) || unnamed && (short || out.is_masked(fragment)) {
        out.item("ipv4")?;
        out.field("src", (base + layout::ADDRESSES, 32, 32), ipv4)?;
        out.field("dst", (base + layout::ADDRESSES, 0, 32), ipv4)?;
        out.field("version_ihl", (layout::SHAPE, at.shift + stack::IHL_SHIFT, 4), hex)?;
        out.field("tos", (base + layout::PORTS, 0, 8), number)?;
        out.field("ttl", (base + layout::PORTS, 8, 8), number)?;
        out.field("fragment_offset", (base + layout::REST, 32, 16), hex)?;
        match out.bits(fragment) {
            (0, 1) => out.f.write_str(" fragment_offset spec 0 fragment_offset mask 0x3fff")?,
            (_, 1) => out.f.write_str(
                " fragment_offset spec 1 fragment_offset last 0x3fff fragment_offset mask 0x3fff",
            )?,
            _ => {}
        }
    } else {
        return Ok(());
    }
    out.field("proto", (base + layout::PORTS, 16, 8), number)
}

fn ipv6_addresses(out: &mut Writer<'_, '_>, base: usize) -> fmt::Result {
    for (name, word) in [("src", base + layout::ADDRESSES), ("dst", base + layout::ADDRESSES + 2)] {
        let join = |key: &Key| u128::from(key.words[word]) << 64 | u128::from(key.words[word + 1]);
        let (value, mask) = (Ipv6Addr::from(join(&out.rule.value)), join(&out.rule.mask));
        match mask {
            0 => {}
            u128::MAX => write!(out.f, " {name} is {value}")?,
            _ => write!(out.f, " {name} spec {value} {name} mask {}", Ipv6Addr::from(mask))?,
        }
    }
    Ok(())
}

fn transport(out: &mut Writer<'_, '_>, at: &Place) -> fmt::Result {
    let word = at.base + layout::PORTS;
    let (shape, counts) = out.bits((layout::SHAPE, at.shift, 16));
    let kind = shape & stack::L4_MASK;
    let is = |l4| kind == layout::l4_bits(l4);
    if is(L4::Icmp) || is(L4::Icmp6) {
        out.item(if is(L4::Icmp) { "icmp" } else { "icmp6" })?;
        out.field("type", (word, 56, 8), number)?;
        out.field("code", (word, 48, 8), number)?;
        out.field("checksum", (word, 32, 16), hex)?;
        if is(L4::Icmp) {
            out.field("ident", (at.base + layout::REST, 16, 16), number)?;
            out.field("seq", (at.base + layout::REST, 0, 16), number)?;
        }
        return Ok(());
    }
    // Without a kind (relaxed matching), ports are shown as TCP's.
    let unnamed = counts & stack::L4_MASK == 0 && out.is_masked((word, 24, 40));
    if is(L4::Tcp) || is(L4::Udp) || unnamed {
        out.item(if is(L4::Udp) { "udp" } else { "tcp" })?;
        out.field("src", (word, 48, 16), number)?;
        out.field("dst", (word, 32, 16), number)?;
        out.field("flags", (word, 24, 8), hex)?;
    }
    Ok(())
}

fn tunnel(out: &mut Writer<'_, '_>) -> fmt::Result {
    let code = out.bits((layout::SHAPE, layout::TUNNEL_SHIFT, 2)).0;
    let is = |kind| code == layout::tunnel_code(kind);
    let word = |shift, width| (layout::TUNNEL, shift, width);
    if is(TunnelKind::Gre) {
        out.item("gre")?;
        out.field("protocol", word(32, 16), hex)?;
        out.field("c_rsvd0_ver", word(48, 16), hex)?;
        if out.is_masked(word(0, 32)) || out.rule.value.words[layout::TUNNEL] & GRE_KEY_PRESENT != 0 {
            out.item("gre_key")?;
        }
        return out.field("value", word(0, 32), hex);
    }
    if is(TunnelKind::Geneve) {
        out.item("geneve")?;
        out.field("vni", word(8, 24), number)?;
        out.field("protocol", word(32, 16), hex)?;
        out.field("ver_opt_len_o_c_rsvd0", word(48, 16), hex)?;
        return out.field("rsvd1", word(0, 8), hex);
    }
    if is(TunnelKind::Vxlan) || out.is_masked(word(0, 64)) {
        out.item("vxlan")?;
        out.field("vni", word(8, 24), number)?;
        out.field("flags", word(56, 8), hex)?;
        out.field("rsvd0", word(32, 24), hex)?;
        return out.field("last_rsvd", word(0, 8), hex);
    }
    Ok(())
}
