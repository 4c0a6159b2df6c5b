//! Rules as commands of `dpdk-testpmd`, to be read, compared and pasted at the prompt of a testpmd that has a
//! device like ours.
//!
//! Software steering takes a rule in one line. Hardware steering takes three to make the template table of
//! all rules of a shape ([`Rule::testpmd_table`]), then one for the rule, and `flow push 0 queue 0` and
//! `flow pull 0 queue 0` to see it through; flow queues have to be configured before the ports start.
//!
//! Headers that a rule puts on are set up by a line or two of their own before it. Under hardware steering
//! testpmd cannot leave them to each rule: a table is for one rule's headers then, the engine's for headers
//! of one length.
//!
//! testpmd of DPDK 22.11 cuts lines of more than 511 characters without a word. Under hardware steering, a
//! rule that edits more than three fields is longer: paste it with some edits left out, in all four lines.

mod headers;
#[cfg(test)]
mod tests;

use crate::rule::{Action, Domain, Item, Masked, Rule, Tunnel};
use core::fmt::{self, Display, Formatter};
use dataplane::addr::Ip;
use headers::Headers;

/// Which commands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dialect {
    /// Software steering: `flow create`, `set_*` actions.
    Sync,
    /// Hardware steering: `flow queue … create`, `modify_field`.
    Template,
}

/// What is said about values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Say {
    /// The value, all bits of which count.
    Whole,
    /// The value alone: which bits count is the template's business.
    Value,
    /// Which bits count.
    Mask,
}

/// What is said about actions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// `set_*`.
    Set,
    /// `modify_field` with its value.
    Rule,
    /// `modify_field` whose value comes with each rule, and likewise the rest.
    Template,
    /// The mask to that: what is not each rule's.
    Mask,
}

impl Rule {
    /// The command that makes this rule.
    #[must_use]
    pub fn testpmd(&self, dialect: Dialect) -> impl Display + '_ {
        Command { rule: self, dialect }
    }

    /// The commands that make the template table for rules of this one's shape, for so many of them: a
    /// pattern template, an actions template and the table, a line each. All have one number, which rules of
    /// [`Dialect::Template`] refer to.
    #[must_use]
    pub fn testpmd_table(&self, rules: u32) -> impl Display + '_ {
        Table { rule: self, rules }
    }

    /// The number of its shape's templates and table: the same wherever it is printed.
    fn table_number(&self) -> u32 {
        // FNV-1a: short, and it needs no seed.
        let text = self.table_shape().testpmd(Dialect::Sync).to_string();
        let hash = text
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        hash % 1_000_000
    }

    /// What testpmd's rules of one table have in common: headers, too.
    fn table_shape(&self) -> Rule {
        Rule { headers: self.headers.clone(), ..self.shape() }
    }

    /// What is to be said before it, each line with its end.
    fn preface(&self) -> Headers<'_> {
        let geneve = self.actions.contains(&Action::Decap(Tunnel::Geneve));
        Headers { bytes: &self.headers, decap: self.actions.contains(&Action::RawDecap), geneve }
    }

    fn domain_name(&self) -> &'static str {
        match self.attr.domain {
            Domain::Transfer => "transfer",
            Domain::Ingress => "ingress",
        }
    }
}

struct Command<'a> {
    rule: &'a Rule,
    dialect: Dialect,
}

impl Display for Command<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rule = self.rule;
        write!(f, "{}", rule.preface())?;
        match self.dialect {
            Dialect::Sync => {
                let (port, domain, attr) = (rule.port, rule.domain_name(), rule.attr);
                write!(f, "flow create {port} {domain} group {} priority {}", attr.group, attr.priority)?;
                pattern(f, rule, " pattern", Say::Whole)?;
                actions(f, rule, " actions", Part::Set)
            }
            Dialect::Template => {
                let (port, table) = (rule.port, rule.table_number());
                write!(f, "flow queue {port} create 0 template_table {table} pattern_template 0")?;
                f.write_str(" actions_template 0 postpone no")?;
                pattern(f, rule, " pattern", Say::Value)?;
                actions(f, rule, " actions", Part::Rule)
            }
        }
    }
}

struct Table<'a> {
    rule: &'a Rule,
    rules: u32,
}

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Table { rule, rules } = *self;
        let (port, number, domain, attr) = (rule.port, rule.table_number(), rule.domain_name(), rule.attr);
        write!(f, "{}", rule.preface())?;
        write!(f, "flow pattern_template {port} create {domain} pattern_template_id {number}")?;
        pattern(f, rule, " template", Say::Mask)?;
        write!(f, "\nflow actions_template {port} create {domain} actions_template_id {number}")?;
        actions(f, rule, " template", Part::Template)?;
        actions(f, rule, " mask", Part::Mask)?;
        let (group, priority) = (attr.group, attr.priority);
        write!(f, "\nflow template_table {port} create table_id {number} group {group} priority {priority}")?;
        write!(f, " {domain} rules_number {rules} pattern_template {number} actions_template {number}")
    }
}

/// The items of a rule, each followed by a slash, and `end`.
fn pattern(f: &mut Formatter<'_>, rule: &Rule, word: &str, say: Say) -> fmt::Result {
    f.write_str(word)?;
    for (at, item) in rule.items.iter().enumerate() {
        let tagged = matches!(rule.items.get(at + 1), Some(Item::Vlan(_)));
        f.write_str(" ")?;
        write_item(&mut Fields { f, say }, item, tagged)?;
        f.write_str(" /")?;
    }
    f.write_str(" end")
}

/// Writes fields of an item.
struct Fields<'a, 'b> {
    f: &'a mut Formatter<'b>,
    say: Say,
}

impl Fields<'_, '_> {
    /// A field that is matched whole, if it is matched; `all`: the mask of all its bits.
    fn field(&mut self, name: &str, value: Option<&dyn Display>, all: &str) -> fmt::Result {
        match (value, self.say) {
            (None, _) => Ok(()),
            (Some(value), Say::Whole) => write!(self.f, " {name} is {value}"),
            (Some(value), Say::Value) => write!(self.f, " {name} spec {value}"),
            (Some(_), Say::Mask) => write!(self.f, " {name} mask {all}"),
        }
    }

    fn number(&mut self, name: &str, value: Option<u16>) -> fmt::Result {
        self.field(name, value.as_ref().map(|value| value as &dyn Display), "0xffff")
    }

    fn ip(&mut self, name: &str, value: Option<Ip>) -> fmt::Result {
        let all = match value {
            Some(ip) if ip.is_v4() => "255.255.255.255",
            _ => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        };
        self.field(name, value.as_ref().map(|ip| ip as &dyn Display), all)
    }

    /// A source address of which some bits are matched.
    fn bits(&mut self, value: &Ip, mask: &Ip) -> fmt::Result {
        if self.say != Say::Mask {
            write!(self.f, " src spec {value}")?;
        }
        if self.say != Say::Value {
            write!(self.f, " src mask {mask}")?;
        }
        Ok(())
    }

    fn masked(&mut self, name: &str, field: Option<Masked<u8>>) -> fmt::Result {
        let Some(Masked { value, mask }) = field else { return Ok(()) };
        if self.say != Say::Mask {
            write!(self.f, " {name} spec {value:#x}")?;
        }
        if self.say != Say::Value {
            write!(self.f, " {name} mask {mask:#x}")?;
        }
        Ok(())
    }

    fn tag(&mut self, Masked { value, mask }: Masked<u32>) -> fmt::Result {
        self.f.write_str("tag index is 0")?;
        if self.say != Say::Mask {
            write!(self.f, " data spec {value:#x}")?;
        }
        if self.say != Say::Value {
            write!(self.f, " data mask {mask:#x}")?;
        }
        Ok(())
    }
}

/// One item; `tagged`: whether a VLAN tag comes next.
fn write_item(to: &mut Fields<'_, '_>, item: &Item, tagged: bool) -> fmt::Result {
    match *item {
        Item::RepresentedPort(port) => {
            to.f.write_str("represented_port")?;
            to.number("ethdev_port_id", Some(port))
        }
        Item::Eth { dst } => {
            to.f.write_str("eth")?;
            to.field("dst", dst.as_ref().map(|mac| mac as &dyn Display), "ff:ff:ff:ff:ff:ff")?;
            to.field("has_vlan", (!tagged).then_some(&0 as &dyn Display), "1")
        }
        Item::Vlan(vid) => {
            to.f.write_str("vlan")?;
            to.field("vid", Some(&vid), "0xfff")?;
            to.field("has_more_vlan", Some(&0), "1")
        }
        Item::Ipv4 { src, dst, class, ttl } => {
            to.f.write_str("ipv4")?;
            to.ip("src", src.map(Ip::v4))?;
            to.ip("dst", dst.map(Ip::v4))?;
            to.masked("tos", class)?;
            to.masked("ttl", ttl)
        }
        Item::Ipv6 { src, dst, class, hop_limit } => {
            to.f.write_str("ipv6")?;
            to.ip("src", src)?;
            to.ip("dst", dst)?;
            to.masked("tc", class)?;
            to.masked("hop", hop_limit)
        }
        Item::Ipv4From { src, dst } => {
            to.f.write_str("ipv4")?;
            to.bits(&Ip::v4(src.value), &Ip::v4(src.mask))?;
            to.ip("dst", Some(Ip::v4(dst)))
        }
        Item::Ipv6From { src, dst } => {
            to.f.write_str("ipv6")?;
            let low = |bits: u32| Ip::from_words([0, u64::from(bits)]);
            to.bits(&low(src.value), &low(src.mask))?;
            to.ip("dst", Some(dst))
        }
        Item::Tcp { src, dst, flags } => {
            to.f.write_str("tcp")?;
            to.number("src", src)?;
            to.number("dst", dst)?;
            to.masked("flags", flags)
        }
        Item::Udp { src, dst } => {
            to.f.write_str("udp")?;
            to.number("src", src)?;
            to.number("dst", dst)
        }
        Item::Tag(tag) => to.tag(tag),
        Item::Red => {
            to.f.write_str("meter")?;
            to.field("color", Some(&"red"), "all")
        }
        Item::Tunnel(kind, vni) => {
            to.f.write_str(if kind == Tunnel::Vxlan { "vxlan" } else { "geneve" })?;
            to.field("vni", vni.as_ref().map(|vni| vni as &dyn Display), "0xffffff")?;
            if kind == Tunnel::Geneve {
                to.field("protocol", Some(&"0x6558"), "0xffff")?;
                to.field("optlen", Some(&0), "0x3f")?;
            }
            Ok(())
        }
    }
}

/// The actions of a rule, each followed by a slash, and `end`.
fn actions(f: &mut Formatter<'_>, rule: &Rule, word: &str, part: Part) -> fmt::Result {
    let layers = Layers::of(rule);
    let list = if part == Part::Set { rule.actions.clone() } else { rule.with_tags_first() };
    f.write_str(word)?;
    for action in &list {
        f.write_str(" ")?;
        match edit(action, layers) {
            Some(edit) if part == Part::Set => write!(f, "{}", edit.set)?,
            Some(edit) => edit.modify(f, part)?,
            None => write_plain(f, action, part)?,
        }
        f.write_str(" /")?;
    }
    f.write_str(" end")
}

/// An action that edits nothing that `modify_field` would.
fn write_plain(f: &mut Formatter<'_>, action: &Action, part: Part) -> fmt::Result {
    let each_rules = matches!(part, Part::Set | Part::Rule);
    match *action {
        Action::Count => f.write_str("count"),
        Action::Meter(meter) => write!(f, "meter mtr_id {meter}"),
        Action::MeterMark(_) if part == Part::Mask => f.write_str("meter_mark"),
        // A meter that rules share: testpmd's number of the indirect action is the meter's here.
        Action::MeterMark(meter) => write!(f, "indirect {meter}"),
        Action::Drop => f.write_str("drop"),
        Action::Age { timeout_s } if each_rules => write!(f, "age timeout {timeout_s}"),
        Action::Age { .. } => f.write_str("age"),
        Action::Decap(Tunnel::Vxlan) => f.write_str("vxlan_decap"),
        Action::Decap(Tunnel::Geneve) => f.write_str("raw_decap index 0"),
        Action::PopVlan => f.write_str("of_pop_vlan"),
        Action::PushVlan if each_rules => f.write_str("of_push_vlan ethertype 0x8100"),
        Action::PushVlan => f.write_str("of_push_vlan"),
        Action::SetVlanVid(vid) if each_rules => write!(f, "of_set_vlan_vid vlan_vid {vid}"),
        Action::SetVlanVid(_) => f.write_str("of_set_vlan_vid"),
        Action::RawDecap => f.write_str("raw_decap index 0"),
        Action::RawEncap => f.write_str("raw_encap index 0"),
        Action::Jump(group) => write!(f, "jump group {group}"),
        Action::ToPort(port) if each_rules => write!(f, "represented_port ethdev_port_id {port}"),
        Action::ToPort(_) => f.write_str("represented_port"),
        Action::Queue(queue) if each_rules => write!(f, "queue index {queue}"),
        Action::Queue(_) => f.write_str("queue"),
        Action::SetMacSrc(_)
        | Action::SetMacDst(_)
        | Action::SetIpSrc(_)
        | Action::SetIpDst(_)
        | Action::SetPortSrc(_)
        | Action::SetPortDst(_)
        | Action::SetTag(_)
        | Action::DecTtl => Ok(()),
    }
}

/// What a rule's headers are: `modify_field` has other names for each.
#[derive(Clone, Copy)]
struct Layers {
    v6: bool,
    udp: bool,
}

impl Layers {
    fn of(rule: &Rule) -> Layers {
        let has = |wanted: fn(&Item) -> bool| rule.innermost().iter().any(wanted);
        Layers {
            v6: has(|item| matches!(item, Item::Ipv6 { .. } | Item::Ipv6From { .. })),
            udp: has(|item| matches!(item, Item::Udp { .. })),
        }
    }
}

/// An edit in both dialects.
struct Edit {
    set: String,
    op: &'static str,
    field: String,
    /// In the order of the packet.
    value: Vec<u8>,
    /// Whether it is the same for all rules.
    constant: bool,
}

impl Edit {
    fn modify(&self, f: &mut Formatter<'_>, part: Part) -> fmt::Result {
        let Edit { op, field, value, constant, .. } = self;
        write!(f, "modify_field op {op} dst_type {field}")?;
        if part == Part::Mask {
            f.write_str(" dst_level 0xffffffff dst_offset 0xffffffff")?;
        }
        f.write_str(" src_type value")?;
        if part == Part::Rule || *constant {
            f.write_str(" src_value ")?;
            value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        match part {
            Part::Mask => f.write_str(" width 0xffffffff"),
            _ => write!(f, " width {}", 8 * value.len()),
        }
    }
}

/// The edit that an action is, if it is one.
fn edit(action: &Action, layers: Layers) -> Option<Edit> {
    let set = |set: String, field: &str, value: &[u8]| {
        Some(Edit { set, op: "set", field: field.to_owned(), value: value.to_vec(), constant: false })
    };
    let address = |end: &str, ip: Ip| {
        let octets = ip.octets();
        let (family, value) = if ip.is_v4() { ("ipv4", &octets[12..]) } else { ("ipv6", &octets[..]) };
        set(format!("set_{family}_{end} {family}_addr {ip}"), &format!("{family}_{end}"), value)
    };
    let port = |end: &str, port: u16| {
        let protocol = if layers.udp { "udp" } else { "tcp" };
        let field = format!("{protocol}_port_{end}");
        set(format!("set_tp_{end} port {port}"), &field, &port.to_be_bytes())
    };
    match *action {
        Action::SetMacSrc(mac) => set(format!("set_mac_src mac_addr {mac}"), "mac_src", &mac.0),
        Action::SetMacDst(mac) => set(format!("set_mac_dst mac_addr {mac}"), "mac_dst", &mac.0),
        Action::SetIpSrc(ip) => address("src", ip),
        Action::SetIpDst(ip) => address("dst", ip),
        Action::SetPortSrc(number) => port("src", number),
        Action::SetPortDst(number) => port("dst", number),
        Action::SetTag(tag) => {
            let all = "mask 0xffffffff index 0";
            set(format!("set_tag data {tag:#x} {all}"), "tag", &tag.to_le_bytes())
        }
        Action::DecTtl => {
            let field = if layers.v6 { "ipv6_hoplimit" } else { "ipv4_ttl" };
            // One less is 255 more.
            set("dec_ttl".to_owned(), field, &[0xff]).map(|edit| Edit { op: "add", constant: true, ..edit })
        }
        _ => None,
    }
}
