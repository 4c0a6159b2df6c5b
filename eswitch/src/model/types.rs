//! Names for what gets confused: time, ports, domains, identifiers.

/// A point in time, in nanoseconds from an arbitrary start. It never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
#[repr(transparent)]
pub struct Tick(pub u64);

impl Tick {
    /// Nanoseconds in a second.
    pub const SECOND: u64 = 1_000_000_000;

    /// Nanoseconds from `earlier` to `self`; 0 if `earlier` is later.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The point `ns` nanoseconds later.
    #[inline]
    #[must_use]
    pub fn after(self, ns: u64) -> Tick {
        Tick(self.0.saturating_add(ns))
    }
}

/// Which engine writes rules: `dv_flow_en`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Steering {
    /// SWS, `dv_flow_en=1`: `rte_flow_create` and friends, which block.
    Software,
    /// HWS, `dv_flow_en=2`: templates, tables and flow queues.
    Hardware,
}

/// A port of the eSwitch: an index into [`Topology`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct Vport(pub u16);

/// What is at the other end of a vport.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// The n-th physical port.
    Uplink(u16),
    /// The n-th function of the host: 0 is the host's PF (`pf0hpf`), n > 0 is VF n-1.
    Host(u16),
}

/// One vport and the ethdev that represents it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VportInfo {
    /// What it leads to.
    pub role: Role,
    /// The ethdev (DPDK port id) that is its representor: what `represented_port` names.
    pub port_id: u16,
}

/// The vports of one eSwitch, which is one switch domain. Uplinks come first; vport 0 is the first uplink,
/// and its representor is the transfer proxy.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    vports: Vec<VportInfo>,
}

impl Topology {
    /// A switch with these ports.
    ///
    /// # Panics
    /// If the first is no uplink, or there are more than 65,535.
    #[must_use]
    pub fn new(vports: Vec<VportInfo>) -> Topology {
        assert!(vports.len() <= usize::from(u16::MAX), "at most 65,535 vports");
        assert!(matches!(vports.first(), Some(VportInfo { role: Role::Uplink(_), .. })), "an uplink first");
        Topology { vports }
    }

    /// The vport whose representor is this ethdev; `None` if it is of another domain or none.
    #[inline]
    #[must_use]
    pub fn vport_of(&self, port_id: u16) -> Option<Vport> {
        self.vports.iter().position(|vport| vport.port_id == port_id).map(|index| Vport(index as u16))
    }

    /// A vport's particulars; `None` if there is no such vport.
    #[inline]
    #[must_use]
    pub fn get(&self, vport: Vport) -> Option<&VportInfo> {
        self.vports.get(usize::from(vport.0))
    }

    /// Whether it leads to a wire.
    #[inline]
    #[must_use]
    pub fn is_uplink(&self, vport: Vport) -> bool {
        matches!(self.get(vport), Some(VportInfo { role: Role::Uplink(_), .. }))
    }

    /// The ethdev through which transfer templates are made: `rte_flow_pick_transfer_proxy`.
    #[must_use]
    pub fn proxy(&self) -> u16 {
        self.vports.first().map_or(0, |vport| vport.port_id)
    }

    /// All vports, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Vport, &VportInfo)> {
        self.vports.iter().enumerate().map(|(index, vport)| (Vport(index as u16), vport))
    }
}

/// Where a rule lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Domain {
    /// The forwarding database, before any function or CPU: `transfer`.
    Fdb,
    /// The receive side of one representor: `ingress`. It sees what the FDB sends to that representor.
    NicRx(Vport),
}

/// `rte_flow_attr`, untouched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Attr {
    /// The table in its domain; user groups, so 0 is where every packet enters.
    pub group: u32,
    /// 0 wins.
    pub priority: u32,
    /// NIC receive domain.
    pub ingress: bool,
    /// NIC transmit domain (refused: not modelled).
    pub egress: bool,
    /// FDB.
    pub transfer: bool,
}

/// A rule, as the application holds it. Never a pointer: a stale or invented one is recognised.
///
/// Layout: 8 bits queue + 1 (0: made by the synchronous API), 24 bits generation, 32 bits slot + 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct RuleHandle(pub std::num::NonZeroU64);

/// Slot of a rule within the device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct RuleId(pub u32);

/// A counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct CounterId(pub u32);

/// An age context.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct AgeId(pub u32);

/// A meter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct MeterId(pub u32);

/// Colour of a packet (RFC 2697, RFC 2698, RFC 4115); values are `rte_color`'s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[repr(u8)]
pub enum Colour {
    /// Conforms.
    #[default]
    Green = 0,
    /// Exceeds the committed, not the excess rate or burst.
    Yellow = 1,
    /// Exceeds both.
    Red = 2,
}
