//! What a rule can say: patterns and actions, built in fixed arrays, independent of the release and of the
//! steering. Only what Millrace asks of hardware has a word here.

use arrayvec::ArrayVec;
use dpdk_sys::{millrace_action, millrace_fields, millrace_item};

use super::{CounterKey, MeterKey};

/// Items of a pattern at most.
pub const ITEMS_MAX: usize = dpdk_sys::MILLRACE_ITEMS_MAX as usize;

/// Actions of a rule at most.
pub const ACTIONS_MAX: usize = dpdk_sys::MILLRACE_ACTIONS_MAX as usize;

/// Bytes of headers that a rule puts before a frame at most.
pub const HEADERS_MAX: usize = dpdk_sys::MILLRACE_HEADERS_MAX as usize;

/// Where a rule lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attr {
    /// In the eSwitch; or else on the port's receive side.
    pub transfer: bool,
    /// The group.
    pub group: u32,
    /// 0 comes first.
    pub priority: u32,
}

impl Attr {
    pub(super) fn c(self) -> dpdk_sys::millrace_flow_attr {
        let Attr { transfer, group, priority } = self;
        dpdk_sys::millrace_flow_attr { group, priority, transfer }
    }
}

/// Some bits of a byte: value and mask.
pub type MaskedByte = (u8, u8);

/// What a packet must be like, layer by layer. `None` and a zero mask compare nothing.
///
/// # Panics
/// Methods panic beyond [`ITEMS_MAX`] items.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    items: ArrayVec<millrace_item, ITEMS_MAX>,
}

impl Pattern {
    /// Matches everything.
    #[must_use]
    pub fn new() -> Pattern {
        Pattern::default()
    }

    /// It came from the wire of this ethdev.
    pub fn represented_port(&mut self, ethdev: u16) {
        let item = self.item(dpdk_sys::MILLRACE_ITEM_REPRESENTED_PORT);
        (item.value.number, item.mask.number) = (ethdev, u16::MAX);
    }

    /// It has an Ethernet header, with this destination; and no VLAN tag unless [`Pattern::vlan`] comes next.
    pub fn eth(&mut self, dst: Option<[u8; 6]>) {
        let item = self.item(dpdk_sys::MILLRACE_ITEM_ETH);
        if let Some(dst) = dst {
            item.value.dst[..6].copy_from_slice(&dst);
            item.mask.dst[..6].fill(0xff);
        }
        item.mask.byte = 1;
    }

    /// It has one VLAN tag, with this VID.
    pub fn vlan(&mut self, vid: u16) {
        if let Some(eth) = self.items.last_mut() {
            eth.mask.byte = 0;
        }
        let item = self.item(dpdk_sys::MILLRACE_ITEM_VLAN);
        (item.value.number, item.mask.number) = (vid, 0x0fff);
        item.mask.byte = 1;
    }

    /// It has an IPv4 header, with these addresses, in host order; `class`: its type of service.
    pub fn ipv4(
        &mut self,
        src: Option<u32>,
        dst: Option<u32>,
        class: Option<MaskedByte>,
        ttl: Option<MaskedByte>,
    ) {
        let item = self.item(dpdk_sys::MILLRACE_ITEM_IPV4);
        let address = |address: Option<u32>, value: &mut [u8; 16], mask: &mut [u8; 16]| {
            if let Some(address) = address {
                value[..4].copy_from_slice(&address.to_be_bytes());
                mask[..4].fill(0xff);
            }
        };
        address(src, &mut item.value.src, &mut item.mask.src);
        address(dst, &mut item.value.dst, &mut item.mask.dst);
        byte(item, ttl);
        traffic_class(item, class);
    }

    /// It has an IPv4 header, to `dst`, from a source of which the bits of the mask are the value's.
    pub fn ipv4_from(&mut self, (value, mask): (u32, u32), dst: u32) {
        let item = self.item(dpdk_sys::MILLRACE_ITEM_IPV4);
        item.value.src[..4].copy_from_slice(&value.to_be_bytes());
        item.mask.src[..4].copy_from_slice(&mask.to_be_bytes());
        item.value.dst[..4].copy_from_slice(&dst.to_be_bytes());
        item.mask.dst[..4].fill(0xff);
    }

    /// It has an IPv6 header, to `dst`; of its source's last 32 bits those of the mask are the value's.
    pub fn ipv6_from(&mut self, (value, mask): (u32, u32), dst: [u8; 16]) {
        let item = self.item(dpdk_sys::MILLRACE_ITEM_IPV6);
        item.value.src[12..].copy_from_slice(&value.to_be_bytes());
        item.mask.src[12..].copy_from_slice(&mask.to_be_bytes());
        (item.value.dst, item.mask.dst) = (dst, [0xff; 16]);
    }

    /// It has an IPv6 header, with these addresses; `class`: its traffic class.
    pub fn ipv6(
        &mut self,
        src: Option<[u8; 16]>,
        dst: Option<[u8; 16]>,
        class: Option<MaskedByte>,
        hop_limit: Option<MaskedByte>,
    ) {
        let item = self.item(dpdk_sys::MILLRACE_ITEM_IPV6);
        if let Some(src) = src {
            (item.value.src, item.mask.src) = (src, [0xff; 16]);
        }
        if let Some(dst) = dst {
            (item.value.dst, item.mask.dst) = (dst, [0xff; 16]);
        }
        byte(item, hop_limit);
        traffic_class(item, class);
    }

    /// It has a TCP header, with these ports and flags.
    pub fn tcp(&mut self, src: Option<u16>, dst: Option<u16>, flags: Option<MaskedByte>) {
        let item = self.item(dpdk_sys::MILLRACE_ITEM_TCP);
        ports(item, src, dst);
        byte(item, flags);
    }

    /// It has a UDP header, with these ports.
    pub fn udp(&mut self, src: Option<u16>, dst: Option<u16>) {
        ports(self.item(dpdk_sys::MILLRACE_ITEM_UDP), src, dst);
    }

    /// A rule of another group has set these bits of its tag. Hardware steering only.
    pub fn tag(&mut self, value: u32, mask: u32) {
        let item = self.item(dpdk_sys::MILLRACE_ITEM_TAG);
        item.value.src[..4].copy_from_slice(&(value & mask).to_ne_bytes());
        item.mask.src[..4].copy_from_slice(&mask.to_ne_bytes());
        item.mask.byte = u8::MAX;
    }

    /// A meter of another group's rule has found it red. Hardware steering only.
    pub fn red(&mut self) {
        let item = self.item(dpdk_sys::MILLRACE_ITEM_COLOUR);
        // All bits: mlx5 translates a mask like a colour (mlx5dr_definer.c, 22.11), and red to none.
        item.value.byte = dpdk_sys::MILLRACE_COLOUR_RED as u8;
        item.mask.byte = dpdk_sys::MILLRACE_COLOURS as u8;
    }

    /// It is in a tunnel of the kind, of the network with this number; what follows is inside.
    pub fn tunnel(&mut self, kind: Tunnel, vni: Option<u32>) {
        let item = self.item(match kind {
            Tunnel::Vxlan => dpdk_sys::MILLRACE_ITEM_VXLAN,
            Tunnel::Geneve => dpdk_sys::MILLRACE_ITEM_GENEVE,
        });
        if let Some(vni) = vni {
            item.value.src[..3].copy_from_slice(&vni.to_be_bytes()[1..]);
            item.mask.src[..3].fill(0xff);
        }
        if kind == Tunnel::Geneve {
            // Frames without options: of these, some are for software to refuse.
            (item.value.number, item.mask.number) = (TRANSPARENT_ETHERNET, u16::MAX);
            item.mask.byte = GENEVE_OPTIONS;
        }
    }

    /// Whether it compares the same bits of the same headers: whether one template serves both.
    #[must_use]
    pub fn is_alike(&self, other: &Pattern) -> bool {
        let same =
            |(a, b): (&millrace_item, &millrace_item)| a.kind == b.kind && parts(&a.mask) == parts(&b.mask);
        self.items.len() == other.items.len() && self.items.iter().zip(&other.items).all(same)
    }

    fn item(&mut self, kind: dpdk_sys::millrace_item_kind) -> &mut millrace_item {
        self.items.push(millrace_item { kind, ..Default::default() });
        let last = self.items.len() - 1;
        &mut self.items[last]
    }

    /// Valid while the pattern is.
    pub(super) fn c(&self) -> dpdk_sys::millrace_pattern {
        dpdk_sys::millrace_pattern { items: self.items.as_ptr(), count: self.items.len() as u32 }
    }
}

fn parts(fields: &millrace_fields) -> (u16, u16, [u8; 16], [u8; 16], [u8; 2]) {
    (fields.number, fields.second, fields.src, fields.dst, [fields.byte, fields.traffic_class])
}

fn byte(item: &mut millrace_item, masked: Option<MaskedByte>) {
    (item.value.byte, item.mask.byte) = masked.map_or((0, 0), |(value, mask)| (value & mask, mask));
}

fn traffic_class(item: &mut millrace_item, masked: Option<MaskedByte>) {
    let (value, mask) = masked.unwrap_or_default();
    (item.value.traffic_class, item.mask.traffic_class) = (value & mask, mask);
}

fn ports(item: &mut millrace_item, src: Option<u16>, dst: Option<u16>) {
    if let Some(src) = src {
        (item.value.number, item.mask.number) = (src, u16::MAX);
    }
    if let Some(dst) = dst {
        (item.value.second, item.mask.second) = (dst, u16::MAX);
    }
}

/// A kind of tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tunnel {
    /// VXLAN, at its assigned port.
    Vxlan,
    /// GENEVE, at its assigned port.
    Geneve,
}

/// The protocol of GENEVE that carries frames (RFC 8926).
const TRANSPARENT_ETHERNET: u16 = 0x6558;
/// In GENEVE's first byte: how long its options are.
const GENEVE_OPTIONS: u8 = 0x3f;

/// Which transport header an edit is about; drivers' words differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What happens to a packet, in order.
///
/// # Panics
/// Methods panic beyond [`ACTIONS_MAX`] actions.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    list: ArrayVec<millrace_action, ACTIONS_MAX>,
    counter: Option<CounterKey>,
    meter: Option<MeterKey>,
    /// What [`Actions::raw_encap`] puts on.
    headers: ArrayVec<u8, HEADERS_MAX>,
}

impl Actions {
    /// Nothing happens.
    #[must_use]
    pub fn new() -> Actions {
        Actions::default()
    }

    /// It is counted. A template says `None`: each rule brings its own counter.
    pub fn count(&mut self, counter: Option<CounterKey>) {
        self.action(dpdk_sys::MILLRACE_ACTION_COUNT);
        self.counter = counter;
    }

    /// After so many seconds without a packet, `context` is among [`FlowPort::aged`](super::FlowPort::aged).
    /// A context is not 0.
    pub fn age(&mut self, timeout_s: u32, context: u64) {
        let action = self.action(dpdk_sys::MILLRACE_ACTION_AGE);
        (action.number, action.context) = (timeout_s, context);
    }

    /// It goes on if this meter finds it green, and is dropped if not. Software steering only.
    pub fn meter(&mut self, meter: u32) {
        self.action(dpdk_sys::MILLRACE_ACTION_METER).number = meter;
    }

    /// It is coloured by this meter. A template says `None`: each rule brings its own. Hardware steering
    /// only.
    pub fn meter_mark(&mut self, meter: Option<MeterKey>) {
        self.action(dpdk_sys::MILLRACE_ACTION_METER_MARK);
        self.meter = meter;
    }

    /// Later groups see this tag. Hardware steering only.
    pub fn set_tag(&mut self, tag: u32) {
        self.action(dpdk_sys::MILLRACE_ACTION_SET_TAG).bytes[..4].copy_from_slice(&tag.to_ne_bytes());
    }

    /// It is dropped.
    pub fn discard(&mut self) {
        self.action(dpdk_sys::MILLRACE_ACTION_DROP);
    }

    /// The outermost VLAN tag is taken off.
    pub fn pop_vlan(&mut self) {
        self.action(dpdk_sys::MILLRACE_ACTION_POP_VLAN);
    }

    /// A VLAN tag is put on; [`Actions::set_vlan`] comes next.
    pub fn push_vlan(&mut self) {
        self.action(dpdk_sys::MILLRACE_ACTION_PUSH_VLAN);
    }

    /// The outermost tag gets this VID.
    pub fn set_vlan(&mut self, vid: u16) {
        self.action(dpdk_sys::MILLRACE_ACTION_SET_VLAN).number = u32::from(vid);
    }

    /// Source MAC address.
    pub fn set_mac_src(&mut self, mac: [u8; 6]) {
        self.action(dpdk_sys::MILLRACE_ACTION_SET_MAC_SRC).bytes[..6].copy_from_slice(&mac);
    }

    /// Destination MAC address.
    pub fn set_mac_dst(&mut self, mac: [u8; 6]) {
        self.action(dpdk_sys::MILLRACE_ACTION_SET_MAC_DST).bytes[..6].copy_from_slice(&mac);
    }

    /// Source address, in host order.
    pub fn set_ipv4_src(&mut self, address: u32) {
        self.action(dpdk_sys::MILLRACE_ACTION_SET_IPV4_SRC).bytes[..4]
            .copy_from_slice(&address.to_be_bytes());
    }

    /// Destination address, in host order.
    pub fn set_ipv4_dst(&mut self, address: u32) {
        self.action(dpdk_sys::MILLRACE_ACTION_SET_IPV4_DST).bytes[..4]
            .copy_from_slice(&address.to_be_bytes());
    }

    /// Source address.
    pub fn set_ipv6_src(&mut self, address: [u8; 16]) {
        self.action(dpdk_sys::MILLRACE_ACTION_SET_IPV6_SRC).bytes = address;
    }

    /// Destination address.
    pub fn set_ipv6_dst(&mut self, address: [u8; 16]) {
        self.action(dpdk_sys::MILLRACE_ACTION_SET_IPV6_DST).bytes = address;
    }

    /// Source port.
    pub fn set_port_src(&mut self, transport: Transport, port: u16) {
        let kind = match transport {
            Transport::Tcp => dpdk_sys::MILLRACE_ACTION_SET_TCP_SRC,
            Transport::Udp => dpdk_sys::MILLRACE_ACTION_SET_UDP_SRC,
        };
        self.action(kind).number = u32::from(port);
    }

    /// Destination port.
    pub fn set_port_dst(&mut self, transport: Transport, port: u16) {
        let kind = match transport {
            Transport::Tcp => dpdk_sys::MILLRACE_ACTION_SET_TCP_DST,
            Transport::Udp => dpdk_sys::MILLRACE_ACTION_SET_UDP_DST,
        };
        self.action(kind).number = u32::from(port);
    }

    /// Time to live less one.
    pub fn dec_ttl(&mut self) {
        self.action(dpdk_sys::MILLRACE_ACTION_DEC_TTL_IPV4);
    }

    /// Hop limit less one.
    pub fn dec_hop_limit(&mut self) {
        self.action(dpdk_sys::MILLRACE_ACTION_DEC_TTL_IPV6);
    }

    /// All that is around the frame inside of a tunnel is taken off.
    pub fn decap(&mut self, kind: Tunnel) {
        self.action(match kind {
            Tunnel::Vxlan => dpdk_sys::MILLRACE_ACTION_DECAP_VXLAN,
            Tunnel::Geneve => dpdk_sys::MILLRACE_ACTION_DECAP_GENEVE,
        });
    }

    /// The Ethernet header gives way to the headers of [`Actions::raw_encap`], which comes next.
    pub fn raw_decap(&mut self) {
        self.action(dpdk_sys::MILLRACE_ACTION_RAW_DECAP);
    }

    /// These headers, Ethernet's first, are put before the frame.
    ///
    /// # Panics
    /// More than [`HEADERS_MAX`] bytes.
    pub fn raw_encap(&mut self, headers: &[u8]) {
        self.action(dpdk_sys::MILLRACE_ACTION_RAW_ENCAP);
        self.headers = headers.iter().copied().collect();
    }

    /// It goes on in another group.
    pub fn jump(&mut self, group: u32) {
        self.action(dpdk_sys::MILLRACE_ACTION_JUMP).number = group;
    }

    /// It leaves by the wire of this ethdev.
    pub fn represented_port(&mut self, ethdev: u16) {
        self.action(dpdk_sys::MILLRACE_ACTION_PORT).number = u32::from(ethdev);
    }

    /// It goes to this receive queue.
    pub fn queue(&mut self, queue: u16) {
        self.action(dpdk_sys::MILLRACE_ACTION_QUEUE).number = u32::from(queue);
    }

    /// Whether it does the same things, with whatever values: whether one template serves both.
    #[must_use]
    pub fn is_alike(&self, other: &Actions) -> bool {
        self.headers.len() == other.headers.len()
            && self.list.iter().map(|action| action.kind).eq(other.list.iter().map(|action| action.kind))
    }

    fn action(&mut self, kind: dpdk_sys::millrace_action_kind) -> &mut millrace_action {
        self.list.push(millrace_action { kind, ..Default::default() });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    pub(super) fn counter(&self) -> Option<CounterKey> {
        self.counter
    }

    pub(super) fn meter_key(&self) -> Option<MeterKey> {
        self.meter
    }

    /// Valid while the actions are; with the driver's handles of the counter and the meter.
    pub(super) fn c(
        &self,
        counter: *mut dpdk_sys::rte_flow_action_handle,
        meter: *mut dpdk_sys::rte_flow_action_handle,
    ) -> dpdk_sys::millrace_actions {
        let (actions, count) = (self.list.as_ptr(), self.list.len() as u32);
        let (headers, headers_len) = (self.headers.as_ptr(), self.headers.len() as u32);
        dpdk_sys::millrace_actions { actions, count, counter, meter, headers, headers_len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_alike_if_they_compare_the_same_bits() {
        let pattern = |src: Option<u32>, port: u16, flags: MaskedByte| {
            let mut pattern = Pattern::new();
            pattern.represented_port(port);
            pattern.eth(None);
            pattern.ipv4(src, Some(7), None, None);
            pattern.tcp(Some(port), None, Some(flags));
            pattern
        };
        assert!(pattern(Some(1), 1, (0, 7)).is_alike(&pattern(Some(2), 9, (1, 7))));
        assert!(!pattern(Some(1), 1, (0, 7)).is_alike(&pattern(None, 1, (0, 7))));
        assert!(!pattern(Some(1), 1, (0, 7)).is_alike(&pattern(Some(1), 1, (0, 3))));
        let mut longer = pattern(Some(1), 1, (0, 7));
        longer.eth(None);
        assert!(!longer.is_alike(&pattern(Some(1), 1, (0, 7))));
    }

    #[test]
    fn actions_are_alike_if_they_do_the_same() {
        let actions = |transport, port: u16| {
            let mut actions = Actions::new();
            actions.age(port.into(), 1);
            actions.set_port_dst(transport, port);
            actions
        };
        assert!(actions(Transport::Tcp, 1).is_alike(&actions(Transport::Tcp, 2)));
        assert!(!actions(Transport::Tcp, 1).is_alike(&actions(Transport::Udp, 1)));
        let tunnel = |headers: &[u8]| {
            let mut actions = Actions::new();
            actions.raw_encap(headers);
            actions
        };
        assert!(tunnel(&[1; 50]).is_alike(&tunnel(&[2; 50])));
        assert!(!tunnel(&[1; 50]).is_alike(&tunnel(&[1; 54])), "a template's headers are of one length");
    }
}
