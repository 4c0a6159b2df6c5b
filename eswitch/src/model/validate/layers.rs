//! The sets that mlx5 keeps while it walks: layers seen in a pattern, actions seen in a list.

pub(super) const OUTER_L2: u32 = 1 << 0;
pub(super) const OUTER_VLAN: u32 = 1 << 1;
pub(super) const OUTER_IPV4: u32 = 1 << 2;
pub(super) const OUTER_IPV6: u32 = 1 << 3;
pub(super) const OUTER_TCP: u32 = 1 << 4;
pub(super) const OUTER_UDP: u32 = 1 << 5;
pub(super) const INNER_VLAN: u32 = OUTER_VLAN << INNER;
pub(super) const ICMP: u32 = 1 << 16;
pub(super) const ICMP6: u32 = 1 << 17;
pub(super) const VXLAN: u32 = 1 << 18;
pub(super) const GENEVE: u32 = 1 << 19;
pub(super) const GRE: u32 = 1 << 20;
pub(super) const GRE_KEY: u32 = 1 << 21;
pub(super) const PORT: u32 = 1 << 22;

/// How far an outer layer's bit is from the inner one's.
pub(super) const INNER: u32 = 8;

pub(super) const OUTER_L3: u32 = OUTER_IPV4 | OUTER_IPV6;
pub(super) const OUTER_L4: u32 = OUTER_TCP | OUTER_UDP;
pub(super) const ANY_INNER: u32 = (OUTER_L2 | OUTER_L3 | OUTER_L4) << INNER;
pub(super) const TUNNEL: u32 = VXLAN | GENEVE | GRE;

/// Actions seen; bits as they matter to the rules about combinations.
pub(super) mod done {
    pub(in super::super) const DROP: u32 = 1 << 0;
    pub(in super::super) const QUEUE: u32 = 1 << 1;
    pub(in super::super) const RSS: u32 = 1 << 2;
    pub(in super::super) const JUMP: u32 = 1 << 3;
    pub(in super::super) const PORT: u32 = 1 << 4;
    pub(in super::super) const METER: u32 = 1 << 5;
    /// A meter whose policy is the rule's fate.
    pub(in super::super) const METER_FATE: u32 = 1 << 6;
    pub(in super::super) const FLAG: u32 = 1 << 7;
    pub(in super::super) const MARK: u32 = 1 << 8;
    pub(in super::super) const COUNT: u32 = 1 << 9;
    pub(in super::super) const AGE: u32 = 1 << 10;
    pub(in super::super) const POP: u32 = 1 << 11;
    pub(in super::super) const PUSH: u32 = 1 << 12;
    pub(in super::super) const SET_VID: u32 = 1 << 13;
    pub(in super::super) const SET_PCP: u32 = 1 << 14;
    pub(in super::super) const ENCAP: u32 = 1 << 15;
    pub(in super::super) const DECAP: u32 = 1 << 16;
    /// Any edit that becomes a modify-header command; [`SET_VID`] is one too.
    pub(in super::super) const MODIFY: u32 = 1 << 17;
    pub(in super::super) const SAMPLE: u32 = 1 << 18;
    pub(in super::super) const INC_SEQ: u32 = 1 << 19;
    pub(in super::super) const DEC_SEQ: u32 = 1 << 20;
    pub(in super::super) const INC_ACK: u32 = 1 << 21;
    pub(in super::super) const DEC_ACK: u32 = 1 << 22;
    /// An age of an indirect handle.
    pub(in super::super) const SHARED_AGE: u32 = 1 << 23;

    /// `MLX5_FLOW_FATE_ACTIONS`: fates of the receive side.
    pub(in super::super) const FATES: u32 = DROP | QUEUE | RSS | JUMP | METER_FATE;
    /// `MLX5_FLOW_FATE_ESWITCH_ACTIONS`.
    pub(in super::super) const FDB_FATES: u32 = DROP | PORT | JUMP | METER_FATE;
    pub(in super::super) const VLANS: u32 = POP | PUSH;
    pub(in super::super) const XCAPS: u32 = ENCAP | DECAP;
    pub(in super::super) const MODIFIES: u32 = MODIFY | SET_VID;
    /// What may accompany a drop.
    pub(in super::super) const WITH_DROP: u32 = COUNT | SAMPLE | AGE | SHARED_AGE;
}
