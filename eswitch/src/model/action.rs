//! What to do with a match: `rte_flow_action`s without pointers.

use super::types::{AgeId, CounterId, MeterId};

/// A field of a packet, or a register: `rte_flow_field_id` of DPDK 22.11, same order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "the names are rte_flow's")]
pub enum Field {
    Start,
    MacDst,
    MacSrc,
    VlanType,
    VlanId,
    MacType,
    Ipv4Dscp,
    Ipv4Ttl,
    Ipv4Src,
    Ipv4Dst,
    Ipv6Dscp,
    Ipv6HopLimit,
    Ipv6Src,
    Ipv6Dst,
    TcpPortSrc,
    TcpPortDst,
    TcpSeqNum,
    TcpAckNum,
    TcpFlags,
    UdpPortSrc,
    UdpPortDst,
    VxlanVni,
    GeneveVni,
    Tag,
    Mark,
    Meta,
    Ipv4Ecn,
    Ipv6Ecn,
    MeterColour,
    /// Any other: its number.
    Other(u32),
}

/// A place that `modify_field` names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct FieldRef {
    /// Which field.
    pub field: Field,
    /// 0 and 1: outermost header; 2: innermost. For [`Field::Tag`], the register's index.
    pub level: u32,
    /// Bits to skip: of a header's field from its most significant, of a register from its least significant.
    pub offset: u32,
}

/// Where `modify_field` takes its value from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldSource {
    /// `VALUE`, or what `POINTER` pointed at: the field as on the wire, a register as a big-endian number.
    Value([u8; 16]),
    /// Another field.
    Field(FieldRef),
}

/// `rte_flow_modify_op`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ModifyOp {
    /// Overwrite.
    Set,
    /// Add, modulo the field's width.
    Add,
    /// Subtract.
    Sub,
}

/// What an indirect handle refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Shared {
    /// A counter.
    Counter(CounterId),
    /// An age context.
    Age(AgeId),
    /// A meter (HWS `METER_MARK`).
    Meter(MeterId),
    /// Queues of a representor: an index into the device's RSS objects.
    Rss(u32),
}

/// One action. `void` and `end` have no counterpart.
///
/// A `None` is a configuration that the application left out (`conf == NULL`) in an actions template whose
/// value comes with each rule; elsewhere it is refused (`ACTION_CONF`, EINVAL).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action<'a> {
    /// To the entity represented by this ethdev.
    RepresentedPort(Option<u16>),
    /// The deprecated `port_id`: as [`Action::RepresentedPort`].
    PortId(Option<u32>),
    /// To this ethdev's own receive queues.
    PortRepresentor(Option<u16>),
    /// Go on in this group.
    Jump(Option<u32>),
    /// Drop.
    Drop,
    /// To this receive queue.
    Queue(Option<u16>),
    /// To one of these receive queues, by a hash of addresses and ports.
    Rss {
        /// The queues.
        queues: &'a [u16],
    },
    /// Deliver with this mark (`mbuf.hash.fdir.hi`).
    Mark(Option<u32>),
    /// Deliver with the flag mark.
    Flag,
    /// Count packets and bytes.
    Count,
    /// Report the rule as aged after so many seconds without a hit.
    Age {
        /// Seconds, 24 bits.
        timeout_s: u32,
        /// What to report; 0: the handle (SWS) or an internal index (HWS).
        context: u64,
    },
    /// Set bits of a register.
    SetTag {
        /// Which.
        index: u8,
        /// The value.
        data: u32,
        /// The bits to set.
        mask: u32,
    },
    /// Set bits of the metadata register.
    SetMeta {
        /// The value.
        data: u32,
        /// The bits to set.
        mask: u32,
    },
    /// Source MAC address.
    SetMacSrc([u8; 6]),
    /// Destination MAC address.
    SetMacDst([u8; 6]),
    /// Source address, outermost IPv4 header.
    SetIpv4Src([u8; 4]),
    /// Destination address.
    SetIpv4Dst([u8; 4]),
    /// Source address, outermost IPv6 header.
    SetIpv6Src([u8; 16]),
    /// Destination address.
    SetIpv6Dst([u8; 16]),
    /// Source port, TCP or UDP.
    SetTpSrc(u16),
    /// Destination port.
    SetTpDst(u16),
    /// TTL or hop limit.
    SetTtl(u8),
    /// TTL or hop limit less one, wrapping.
    DecTtl,
    /// DSCP of IPv4 (6 bits).
    SetIpv4Dscp(u8),
    /// DSCP of IPv6.
    SetIpv6Dscp(u8),
    /// Add to TCP's sequence number, modulo 2^32 (negative: `dec_tcp_seq`).
    AddTcpSeq(i64),
    /// Add to TCP's acknowledgement number, modulo 2^32 (negative: `dec_tcp_ack`).
    AddTcpAck(i64),
    /// `modify_field`.
    ModifyField {
        /// What to do.
        op: ModifyOp,
        /// To what.
        dst: FieldRef,
        /// With what; `None` in a template whose rules bring it.
        src: Option<FieldSource>,
        /// How many bits.
        width: u32,
    },
    /// Remove the outermost VLAN tag.
    PopVlan,
    /// Add a VLAN tag with this EtherType.
    PushVlan(u16),
    /// VID of the outermost tag.
    SetVlanVid(u16),
    /// PCP of the outermost tag.
    SetVlanPcp(u8),
    /// Put these headers (Ethernet to VXLAN) before the frame.
    VxlanEncap(&'a [u8]),
    /// Remove everything up to and with the VXLAN header.
    VxlanDecap,
    /// Put these bytes before the frame.
    RawEncap(&'a [u8]),
    /// Remove as many bytes as these from the front: headers up to a tunnel's inner Ethernet, or an Ethernet
    /// header (then a [`Action::RawEncap`] of an Ethernet header follows).
    RawDecap(&'a [u8]),
    /// An `rte_mtr` meter of the rule's port, by its id.
    Meter(u32),
    /// HWS: meter with a profile and set the colour. The meter is an indirect handle's, or the rule's own.
    MeterMark {
        /// The profile (an index the driver gives out in `rte_mtr_meter_profile_get`).
        profile: u32,
        /// Whether the packet's colour is taken into account.
        colour_aware: bool,
    },
    /// What an indirect handle refers to; `None` in a template whose rules bring the handle.
    Indirect(Option<Shared>),
    /// Mirror: one packet in `ratio` also goes through these actions.
    Sample {
        /// 1: every packet.
        ratio: u32,
        /// Ends with a port.
        actions: &'a [Action<'a>],
    },
    /// Any other action: its `rte_flow_action_type`.
    Other(i32),
}

impl Action<'_> {
    /// Its name in testpmd's flow commands.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Action::RepresentedPort(_) => "represented_port",
            Action::PortId(_) => "port_id",
            Action::PortRepresentor(_) => "port_representor",
            Action::Jump(_) => "jump",
            Action::Drop => "drop",
            Action::Queue(_) => "queue",
            Action::Rss { .. } => "rss",
            Action::Mark(_) => "mark",
            Action::Flag => "flag",
            Action::Count => "count",
            Action::Age { .. } => "age",
            Action::SetTag { .. } => "set_tag",
            Action::SetMeta { .. } => "set_meta",
            Action::SetMacSrc(_) => "set_mac_src",
            Action::SetMacDst(_) => "set_mac_dst",
            Action::SetIpv4Src(_) => "set_ipv4_src",
            Action::SetIpv4Dst(_) => "set_ipv4_dst",
            Action::SetIpv6Src(_) => "set_ipv6_src",
            Action::SetIpv6Dst(_) => "set_ipv6_dst",
            Action::SetTpSrc(_) => "set_tp_src",
            Action::SetTpDst(_) => "set_tp_dst",
            Action::SetTtl(_) => "set_ttl",
            Action::DecTtl => "dec_ttl",
            Action::SetIpv4Dscp(_) => "set_ipv4_dscp",
            Action::SetIpv6Dscp(_) => "set_ipv6_dscp",
            Action::AddTcpSeq(_) => "inc_tcp_seq",
            Action::AddTcpAck(_) => "inc_tcp_ack",
            Action::ModifyField { .. } => "modify_field",
            Action::PopVlan => "of_pop_vlan",
            Action::PushVlan(_) => "of_push_vlan",
            Action::SetVlanVid(_) => "of_set_vlan_vid",
            Action::SetVlanPcp(_) => "of_set_vlan_pcp",
            Action::VxlanEncap(_) => "vxlan_encap",
            Action::VxlanDecap => "vxlan_decap",
            Action::RawEncap(_) => "raw_encap",
            Action::RawDecap(_) => "raw_decap",
            Action::Meter(_) => "meter",
            Action::MeterMark { .. } => "meter_mark",
            Action::Indirect(_) => "indirect",
            Action::Sample { .. } => "sample",
            Action::Other(_) => "unknown",
        }
    }
}
