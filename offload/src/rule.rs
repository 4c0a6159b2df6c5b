//! A flow rule as typed data: what the lowering makes, what engines carry out, and what is printed.
//!
//! Only what Millrace asks of hardware can be said. The two ways to say it to a driver (`set_*` and
//! `dec_ttl` under software steering, `modify_field` in templates under hardware steering) are the
//! engines' business; a rule means the same under both.

use arrayvec::ArrayVec;
use dataplane::addr::{Ip, MacAddr};

/// Items of a pattern at most: a port, Ethernet, a VLAN tag, IP, UDP, a tunnel's header, and Ethernet, IP,
/// and TCP or UDP inside of that.
pub const ITEMS_MAX: usize = 9;
/// Actions of a rule at most: tunnel off, meter, count, age, tags, two MAC addresses, an address, a port,
/// TTL, headers off and on, a fate.
pub const ACTIONS_MAX: usize = 12;
/// Bytes that a rule puts before a frame at most: Ethernet, a VLAN tag, IPv6, UDP, and VXLAN or GENEVE.
pub const HEADERS_MAX: usize = 14 + 4 + 40 + 8 + 8;

/// What a rule puts before a frame.
pub type Headers = ArrayVec<u8, HEADERS_MAX>;

/// A value of which only the bits of the mask matter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Masked<T> {
    /// The value; 0 where the mask is.
    pub value: T,
    /// The bits compared.
    pub mask: T,
}

/// Where a rule lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Domain {
    /// The eSwitch (`transfer`): packets go from port to port.
    Transfer,
    /// The receive side of one port (`ingress`), before the application's queues: packets go to queues.
    Ingress,
}

/// Which rules see a packet, and in what order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Attr {
    /// Where.
    pub domain: Domain,
    /// The group (table); packets enter group 0.
    pub group: u32,
    /// 0 comes first.
    pub priority: u32,
}

/// A tunnel that hardware takes packets out of, known by its assigned UDP port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tunnel {
    /// RFC 7348, port 4789.
    Vxlan,
    /// RFC 8926, port 6081: of Ethernet frames, without options.
    Geneve,
}

/// What a packet must be like, layer by layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Item {
    /// It came from the wire of this ethdev's vport.
    RepresentedPort(u16),
    /// It has an Ethernet header; and no VLAN tag, unless [`Item::Vlan`] follows.
    Eth {
        /// Destination address; `None` is any.
        dst: Option<MacAddr>,
    },
    /// It has one VLAN tag (TPID 0x8100), with this VID.
    Vlan(u16),
    /// It has an IPv4 header.
    Ipv4 {
        /// Source address; `None` is any.
        src: Option<u32>,
        /// Destination address; `None` is any.
        dst: Option<u32>,
        /// Type of service: DSCP and ECN.
        class: Option<Masked<u8>>,
        /// Time to live.
        ttl: Option<Masked<u8>>,
    },
    /// It has an IPv6 header.
    Ipv6 {
        /// Source address; `None` is any.
        src: Option<Ip>,
        /// Destination address; `None` is any.
        dst: Option<Ip>,
        /// Traffic class: DSCP and ECN.
        class: Option<Masked<u8>>,
        /// Hop limit.
        hop_limit: Option<Masked<u8>>,
    },
    /// It has an IPv4 header.
    Ipv4From {
        /// Some bits of its source address.
        src: Masked<u32>,
        /// Destination address.
        dst: u32,
    },
    /// It has an IPv6 header.
    Ipv6From {
        /// Some of the last 32 bits of its source address.
        src: Masked<u32>,
        /// Destination address.
        dst: Ip,
    },
    /// It has a TCP header.
    Tcp {
        /// Source port; `None` is any.
        src: Option<u16>,
        /// Destination port; `None` is any.
        dst: Option<u16>,
        /// Flags, as in the header's low byte.
        flags: Option<Masked<u8>>,
    },
    /// It has a UDP header.
    Udp {
        /// Source port; `None` is any.
        src: Option<u16>,
        /// Destination port; `None` is any.
        dst: Option<u16>,
    },
    /// A rule of an earlier group has set these bits of its tag ([`Action::SetTag`]).
    Tag(Masked<u32>),
    /// A meter of an earlier group has found it red ([`Action::MeterMark`]).
    Red,
    /// It is in a tunnel, of the network with this number; `None` is any. The items that follow are about the
    /// frame inside.
    Tunnel(Tunnel, Option<u32>),
}

/// What happens to a packet.
///
/// A rule has them in the order that software steering takes: tunnel or tags off, meter, count and age,
/// edits, tags or headers on, fate.
/// Hardware steering wants tags on before edits: see [`Rule::with_tags_first`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// It is counted by a counter of the rule's own, which outlives the rule until it is released: so
    /// the last packets are in it, however late counters are read.
    Count,
    /// It goes on if this meter finds it green, and is dropped there if not. The rule counts what goes on.
    Meter(u32),
    /// It is coloured by this meter, and what becomes of the red ones is up to rules of later groups. The
    /// rule counts all: hardware steering's way, see [`crate::colours`].
    MeterMark(u32),
    /// Later groups see this tag.
    SetTag(u32),
    /// It is dropped. Drivers take nothing with it but a count and an age.
    Drop,
    /// The engine is told when none has come for so long.
    Age {
        /// Seconds, 1 to 2^24 - 1.
        timeout_s: u32,
    },
    /// All that is around the frame inside of a tunnel is taken off; what comes next is done to that frame.
    Decap(Tunnel),
    /// The outermost VLAN tag is taken off.
    PopVlan,
    /// A VLAN tag (TPID 0x8100) is put on,
    PushVlan,
    /// with this VID; or the outermost tag gets it.
    SetVlanVid(u16),
    /// Source MAC address.
    SetMacSrc(MacAddr),
    /// Destination MAC address.
    SetMacDst(MacAddr),
    /// Source address.
    SetIpSrc(Ip),
    /// Destination address.
    SetIpDst(Ip),
    /// Source port.
    SetPortSrc(u16),
    /// Destination port.
    SetPortDst(u16),
    /// Time to live or hop limit less one.
    DecTtl,
    /// The Ethernet header gives way to the headers that [`Action::RawEncap`], which comes next, puts on.
    RawDecap,
    /// The rule's headers, Ethernet's first, are put before the frame. The device fills in lengths and IPv4's
    /// checksum; of VXLAN and GENEVE, at their assigned ports, UDP's source port, too.
    RawEncap,
    /// It goes on in another group.
    Jump(u32),
    /// It leaves by the wire of this ethdev's vport.
    ToPort(u16),
    /// It goes to this receive queue: of a hairpin pair, or to software.
    Queue(u16),
}

/// A rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    /// The ethdev port it is created on: the transfer proxy, or the port whose packets an ingress rule sees.
    pub port: u16,
    /// Where it lives.
    pub attr: Attr,
    /// Its pattern.
    pub items: ArrayVec<Item, ITEMS_MAX>,
    /// Its actions; the last one is its fate.
    pub actions: ArrayVec<Action, ACTIONS_MAX>,
    /// What [`Action::RawEncap`] puts on.
    pub headers: Headers,
}

impl Rule {
    /// The actions in the order that hardware steering takes: as they are, but tags are put on before
    /// anything is edited. What becomes of a packet is the same.
    #[must_use]
    pub fn with_tags_first(&self) -> ArrayVec<Action, ACTIONS_MAX> {
        let mut actions = self.actions.clone();
        let Some(push) = actions.iter().position(|action| *action == Action::PushVlan) else {
            return actions;
        };
        let edits = |action: &Action| {
            let meters = matches!(action, Action::Meter(_) | Action::MeterMark(_));
            let before = matches!(action, Action::PopVlan | Action::Decap(_));
            !before && !meters && !matches!(action, Action::Count | Action::Age { .. })
        };
        let to = actions.iter().position(edits).unwrap_or(push).min(push);
        let tag = 1 + usize::from(matches!(actions.get(push + 1), Some(Action::SetVlanVid(_))));
        if let Some(moved) = actions.get_mut(to..push + tag) {
            moved.rotate_right(tag);
        }
        actions
    }

    /// Whether its packets' sources are a partition, and not a connection's.
    #[must_use]
    pub fn is_of_partition(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Item::Ipv4From { .. } | Item::Ipv6From { .. }))
    }

    /// The same rule, whose packets this meter has to find green. It ages no more: a rule of mlx5's has room
    /// for one object of the two kinds. `None`: it has too many actions, or it takes packets out of a tunnel,
    /// whose outer headers hardware would meter and software does not.
    #[must_use]
    pub fn metered(mut self, meter: Option<u32>) -> Option<Rule> {
        let Some(meter) = meter else { return Some(self) };
        if self.decaps() {
            return None;
        }
        self.actions.retain(|action| !matches!(action, Action::Age { .. }));
        let at = self.actions.iter().position(|action| *action == Action::Count).unwrap_or(0);
        self.actions.try_insert(at, Action::Meter(meter)).ok()?;
        Some(self)
    }

    /// Whether it takes packets out of a tunnel.
    #[must_use]
    pub fn decaps(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Decap(_)))
    }

    /// The items about what is to be edited: those inside of a tunnel, if there is one.
    #[must_use]
    pub fn innermost(&self) -> &[Item] {
        let tunnel = self.items.iter().rposition(|item| matches!(item, Item::Tunnel(..)));
        self.items.get(tunnel.map_or(0, |at| at + 1)..).unwrap_or_default()
    }

    /// The same rule with nothing where values were: what the rules of one template table have in common.
    /// The group of a jump stays.
    #[must_use]
    pub fn shape(&self) -> Rule {
        Rule {
            port: self.port,
            attr: self.attr,
            items: self.items.iter().map(Item::without_value).collect(),
            actions: self.actions.iter().map(Action::without_value).collect(),
            headers: self.headers.iter().map(|_| 0).collect(),
        }
    }
}

impl Item {
    fn without_value(&self) -> Item {
        let none = |masked: Masked<u8>| Masked { value: 0, mask: masked.mask };
        let no_ip = |_| Ip::v6([0; 16]);
        match *self {
            Item::RepresentedPort(_) => Item::RepresentedPort(0),
            Item::Eth { dst } => Item::Eth { dst: dst.map(|_| MacAddr::default()) },
            Item::Vlan(_) => Item::Vlan(0),
            Item::Ipv4 { src, dst, class, ttl } => {
                let (src, dst) = (src.map(|_| 0), dst.map(|_| 0));
                Item::Ipv4 { src, dst, class: class.map(none), ttl: ttl.map(none) }
            }
            Item::Ipv6 { src, dst, class, hop_limit } => {
                let (src, dst) = (src.map(no_ip), dst.map(no_ip));
                Item::Ipv6 { src, dst, class: class.map(none), hop_limit: hop_limit.map(none) }
            }
            Item::Ipv4From { src, .. } => Item::Ipv4From { src: Masked { value: 0, ..src }, dst: 0 },
            Item::Ipv6From { src, .. } => {
                Item::Ipv6From { src: Masked { value: 0, ..src }, dst: Ip::v6([0; 16]) }
            }
            Item::Tcp { src, dst, flags } => {
                Item::Tcp { src: src.map(|_| 0), dst: dst.map(|_| 0), flags: flags.map(none) }
            }
            Item::Udp { src, dst } => Item::Udp { src: src.map(|_| 0), dst: dst.map(|_| 0) },
            Item::Tag(Masked { mask, .. }) => Item::Tag(Masked { value: 0, mask }),
            Item::Red => Item::Red,
            Item::Tunnel(kind, vni) => Item::Tunnel(kind, vni.map(|_| 0)),
        }
    }
}

impl Action {
    fn without_value(&self) -> Action {
        let none = |ip: Ip| if ip.is_v4() { Ip::v4(0) } else { Ip::v6([0; 16]) };
        match *self {
            Action::Count
            | Action::Decap(_)
            | Action::PopVlan
            | Action::PushVlan
            | Action::DecTtl
            | Action::RawDecap
            | Action::RawEncap
            | Action::Drop
            | Action::Jump(_) => *self,
            Action::Meter(_) => Action::Meter(0),
            Action::MeterMark(_) => Action::MeterMark(0),
            Action::SetTag(_) => Action::SetTag(0),
            Action::Age { .. } => Action::Age { timeout_s: 0 },
            Action::SetVlanVid(_) => Action::SetVlanVid(0),
            Action::SetMacSrc(_) => Action::SetMacSrc(MacAddr::default()),
            Action::SetMacDst(_) => Action::SetMacDst(MacAddr::default()),
            Action::SetIpSrc(ip) => Action::SetIpSrc(none(ip)),
            Action::SetIpDst(ip) => Action::SetIpDst(none(ip)),
            Action::SetPortSrc(_) => Action::SetPortSrc(0),
            Action::SetPortDst(_) => Action::SetPortDst(0),
            Action::ToPort(_) => Action::ToPort(0),
            Action::Queue(_) => Action::Queue(0),
        }
    }
}
