//! Connections: their frames, and the rules that translate them.
//!
//! The `n`th connection is IPv4 TCP, IPv4 UDP or IPv6 TCP, a third each. Its rule matches the five-tuple and
//! rewrites destination MAC, address and port, decrements the TTL, counts, ages, and sends to wire 1.

use std::ffi::c_void;
use std::ptr;

use super::ffi;

/// Bytes of a frame.
pub(super) const FRAME: usize = 74;

/// Kinds of connections.
pub(super) const KINDS: usize = 3;

/// The `n`th connection's frame.
pub(super) fn frame(n: u32) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    let (ether_type, protocol, l4) = match n % 3 {
        0 => (0x0800_u16, 6, 34),
        1 => (0x0800, 17, 34),
        _ => (0x86dd, 6, 54),
    };
    frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
    let client = (0x0a00_0000 | n >> 14).to_be_bytes();
    if ether_type == 0x0800 {
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&60_u16.to_be_bytes());
        frame[22] = 64;
        frame[23] = protocol;
        frame[26..30].copy_from_slice(&client);
        frame[30..34].copy_from_slice(&[192, 0, 2, 80]);
    } else {
        frame[14] = 0x60;
        frame[18..20].copy_from_slice(&20_u16.to_be_bytes());
        frame[20] = protocol;
        frame[21] = 64;
        frame[22] = 0xfd;
        frame[34..38].copy_from_slice(&client);
        frame[38] = 0xfd;
        frame[53] = 80;
    }
    frame[l4..l4 + 2].copy_from_slice(&(1024 + (n & 0x3fff) as u16).to_be_bytes());
    frame[l4 + 2..l4 + 4].copy_from_slice(&80_u16.to_be_bytes());
    if protocol == 6 {
        frame[l4 + 12..l4 + 14].copy_from_slice(&[0x50, 0x10]);
    } else {
        frame[l4 + 5] = 40;
    }
    frame
}

/// A rule in DPDK's form. Its lists point into it.
pub(super) struct Rule {
    kind: usize,
    ipv4: [ffi::rte_flow_item_ipv4; 2],
    ipv6: [ffi::rte_flow_item_ipv6; 2],
    tcp: [ffi::rte_flow_item_tcp; 2],
    udp: [ffi::rte_flow_item_udp; 2],
    mac: [u8; 6],
    address: [u8; 16],
    /// For templates, where the other rewrites do not exist; and its mask.
    modify: [ffi::rte_flow_action_modify_field; 2],
    port: ffi::rte_flow_action_set_tp,
    count: ffi::rte_flow_action_count,
    age: ffi::rte_flow_action_age,
    to: ffi::rte_flow_action_ethdev,
}

type Items = [ffi::rte_flow_item; 4];

impl Rule {
    /// The `n`th connection's rule, towards the wire of this port.
    pub(super) fn new(n: u32, to: u16) -> Rule {
        let frame = frame(n);
        let word = |at: usize| u32::from_ne_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([frame[at], frame[at + 1]]);
        let l4 = if n % 3 == 2 { 54 } else { 34 };
        let mut rule = Rule {
            kind: n as usize % KINDS,
            ipv4: Default::default(),
            ipv6: Default::default(),
            tcp: Default::default(),
            udp: Default::default(),
            mac: [2, 0, 0, 0, 0, 9],
            address: [0xfd; 16],
            modify: modify(n % 3 == 2),
            port: ffi::rte_flow_action_set_tp { port: 8080_u16.to_be() },
            count: ffi::rte_flow_action_count::default(),
            age: ffi::rte_flow_action_age::default(),
            to: ffi::rte_flow_action_ethdev { port_id: to },
        };
        rule.age.set_timeout(600);
        (rule.ipv4[0].hdr.src_addr, rule.ipv4[1].hdr.src_addr) = (word(26), u32::MAX);
        (rule.ipv4[0].hdr.dst_addr, rule.ipv4[1].hdr.dst_addr) = (word(30), u32::MAX);
        (rule.ipv6[0].hdr.src_addr, rule.ipv6[1].hdr.src_addr) =
            (frame[22..38].try_into().unwrap(), [0xff; 16]);
        (rule.ipv6[0].hdr.dst_addr, rule.ipv6[1].hdr.dst_addr) =
            (frame[38..54].try_into().unwrap(), [0xff; 16]);
        (rule.tcp[0].hdr.src_port, rule.tcp[1].hdr.src_port) = (half(l4), u16::MAX);
        (rule.tcp[0].hdr.dst_port, rule.tcp[1].hdr.dst_port) = (half(l4 + 2), u16::MAX);
        rule.tcp[1].hdr.tcp_flags = 0x07;
        (rule.udp[0].hdr.src_port, rule.udp[1].hdr.src_port) = (half(l4), u16::MAX);
        (rule.udp[0].hdr.dst_port, rule.udp[1].hdr.dst_port) = (half(l4 + 2), u16::MAX);
        rule
    }

    /// The pattern, which points into `self`.
    fn items(&self) -> Items {
        let l3 = match self.kind {
            2 => element(ffi::RTE_FLOW_ITEM_TYPE_IPV6, &self.ipv6),
            _ => element(ffi::RTE_FLOW_ITEM_TYPE_IPV4, &self.ipv4),
        };
        let l4 = match self.kind {
            1 => element(ffi::RTE_FLOW_ITEM_TYPE_UDP, &self.udp),
            _ => element(ffi::RTE_FLOW_ITEM_TYPE_TCP, &self.tcp),
        };
        let none = ptr::null();
        let eth =
            ffi::rte_flow_item { type_: ffi::RTE_FLOW_ITEM_TYPE_ETH, spec: none, last: none, mask: none };
        [eth, l3, l4, ffi::rte_flow_item { type_: ffi::RTE_FLOW_ITEM_TYPE_END, ..eth }]
    }

    /// The actions of the synchronous API, which point into `self`.
    fn actions(&self) -> [ffi::rte_flow_action; 8] {
        let set_address = match self.kind {
            2 => ffi::RTE_FLOW_ACTION_TYPE_SET_IPV6_DST,
            _ => ffi::RTE_FLOW_ACTION_TYPE_SET_IPV4_DST,
        };
        [
            action(ffi::RTE_FLOW_ACTION_TYPE_SET_MAC_DST, &self.mac),
            action(set_address, &self.address),
            action(ffi::RTE_FLOW_ACTION_TYPE_SET_TP_DST, &self.port),
            action(ffi::RTE_FLOW_ACTION_TYPE_DEC_TTL, &()),
            action(ffi::RTE_FLOW_ACTION_TYPE_COUNT, &self.count),
            action(ffi::RTE_FLOW_ACTION_TYPE_AGE, &self.age),
            action(ffi::RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT, &self.to),
            action(ffi::RTE_FLOW_ACTION_TYPE_END, &()),
        ]
    }

    /// Those of the flow queues: only the address is rewritten.
    fn templated(&self) -> [ffi::rte_flow_action; 5] {
        [
            action(ffi::RTE_FLOW_ACTION_TYPE_COUNT, &self.count),
            action(ffi::RTE_FLOW_ACTION_TYPE_AGE, &self.age),
            action(ffi::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD, &self.modify[0]),
            action(ffi::RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT, &self.to),
            action(ffi::RTE_FLOW_ACTION_TYPE_END, &()),
        ]
    }

    /// Makes it, synchronously.
    pub(super) fn create(&self, port: u16) -> Result<*mut ffi::rte_flow, String> {
        let mut attr = ffi::rte_flow_attr::default();
        attr.set_transfer(1);
        let (pattern, actions) = (self.items(), self.actions());
        let mut error = ffi::rte_flow_error::default();
        // SAFETY: lists that end, of structures that outlive the call.
        let flow = unsafe {
            ffi::rte_flow_create(port, &raw const attr, pattern.as_ptr(), actions.as_ptr(), &raw mut error)
        };
        if flow.is_null() { Err(message(&error)) } else { Ok(flow) }
    }
}

/// The destination address becomes a value of the rule's: action and mask.
fn modify(ipv6: bool) -> [ffi::rte_flow_action_modify_field; 2] {
    let mut all = [ffi::rte_flow_action_modify_field::default(); 2];
    for conf in &mut all {
        conf.operation = ffi::RTE_FLOW_MODIFY_SET;
        conf.dst.field = if ipv6 { ffi::RTE_FLOW_FIELD_IPV6_DST } else { ffi::RTE_FLOW_FIELD_IPV4_DST };
        conf.src.field = ffi::RTE_FLOW_FIELD_VALUE;
    }
    all[0].src.__bindgen_anon_1.value = [0xfd; 16];
    all[0].width = if ipv6 { 128 } else { 32 };
    all[1].dst.__bindgen_anon_1.__bindgen_anon_1.level = u32::MAX;
    all[1].dst.__bindgen_anon_1.__bindgen_anon_1.offset = u32::MAX;
    all[1].width = u32::MAX;
    all
}

fn element<T>(kind: ffi::rte_flow_item_type, spec_and_mask: &[T; 2]) -> ffi::rte_flow_item {
    let [spec, mask] = spec_and_mask;
    ffi::rte_flow_item {
        type_: kind,
        spec: ptr::from_ref(spec).cast::<c_void>(),
        last: ptr::null(),
        mask: ptr::from_ref(mask).cast::<c_void>(),
    }
}

fn action<T>(kind: ffi::rte_flow_action_type, conf: &T) -> ffi::rte_flow_action {
    let conf = if size_of::<T>() == 0 { ptr::null() } else { ptr::from_ref(conf).cast::<c_void>() };
    ffi::rte_flow_action { type_: kind, conf }
}

/// What DPDK says about a refusal.
pub(super) fn message(error: &ffi::rte_flow_error) -> String {
    if error.message.is_null() {
        return "(no reason given)".to_owned();
    }
    // SAFETY: the driver's messages are static and terminated.
    unsafe { std::ffi::CStr::from_ptr(error.message) }.to_string_lossy().into_owned()
}

/// The packets that a rule has counted.
pub(super) fn hits(port: u16, flow: *mut ffi::rte_flow) -> u64 {
    let actions = [action(ffi::RTE_FLOW_ACTION_TYPE_COUNT, &()), action(ffi::RTE_FLOW_ACTION_TYPE_END, &())];
    let (mut value, mut error) = (ffi::rte_flow_query_count::default(), ffi::rte_flow_error::default());
    // SAFETY: a rule of ours, one action, and room for the answer.
    let status =
        unsafe { ffi::rte_flow_query(port, flow, actions.as_ptr(), (&raw mut value).cast(), &raw mut error) };
    assert_eq!(status, 0, "{}", message(&error));
    value.hits
}

/// Template tables for the rules, one per kind, on a port with flow queues.
pub(super) struct Tables {
    port: u16,
    tables: [*mut ffi::rte_flow_template_table; KINDS],
}

// SAFETY: handles, which any thread may use; each thread uses a flow queue of its own.
unsafe impl Sync for Tables {}

impl Tables {
    /// Sets flow queues up on a stopped port.
    pub(super) fn configure(port: u16, queues: u16, size: u32, counters: u32) {
        let attr = ffi::rte_flow_port_attr {
            nb_counters: counters,
            nb_aging_objects: counters,
            ..Default::default()
        };
        let queue = ffi::rte_flow_queue_attr { size };
        let mut list = vec![&raw const queue; usize::from(queues)];
        let mut error = ffi::rte_flow_error::default();
        // SAFETY: the attributes outlive the call, which copies them.
        let status = unsafe {
            ffi::rte_flow_configure(port, &raw const attr, queues, list.as_mut_ptr(), &raw mut error)
        };
        assert_eq!(status, 0, "{}", message(&error));
    }

    /// Tables for so many rules each, in group 0, towards the wire of a port.
    pub(super) fn new(port: u16, to: u16, rules_max: u32) -> Tables {
        let tables = std::array::from_fn(|kind| {
            let rule = Rule::new(kind as u32, to);
            let (mut pattern, actions) = (rule.items(), rule.templated());
            for item in &mut pattern {
                item.spec = ptr::null();
            }
            // The port is the template's; the address, the counter and the age are each rule's own.
            let mut masks = actions;
            masks[2] = action(ffi::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD, &rule.modify[1]);
            masks[0].conf = ptr::null();
            masks[1].conf = ptr::null();
            let mut pattern_attr = ffi::rte_flow_pattern_template_attr::default();
            pattern_attr.set_transfer(1);
            let mut actions_attr = ffi::rte_flow_actions_template_attr::default();
            actions_attr.set_transfer(1);
            let mut attr = ffi::rte_flow_template_table_attr { nb_flows: rules_max, ..Default::default() };
            attr.flow_attr.set_transfer(1);
            let mut error = ffi::rte_flow_error::default();
            // SAFETY: lists that end; handles that were just made.
            let table = unsafe {
                let mut pattern = ffi::rte_flow_pattern_template_create(
                    port,
                    &raw const pattern_attr,
                    pattern.as_ptr(),
                    &raw mut error,
                );
                assert!(!pattern.is_null(), "{}", message(&error));
                let mut actions = ffi::rte_flow_actions_template_create(
                    port,
                    &raw const actions_attr,
                    actions.as_ptr(),
                    masks.as_ptr(),
                    &raw mut error,
                );
                assert!(!actions.is_null(), "{}", message(&error));
                ffi::rte_flow_template_table_create(
                    port,
                    &raw const attr,
                    &raw mut pattern,
                    1,
                    &raw mut actions,
                    1,
                    &raw mut error,
                )
            };
            assert!(!table.is_null(), "{}", message(&error));
            table
        });
        Tables { port, tables }
    }

    /// Enqueues a rule's creation; `None` when the queue is full.
    pub(super) fn create(
        &self,
        queue: u32,
        rule: &Rule,
        user_data: usize,
        postpone: bool,
    ) -> Option<*mut ffi::rte_flow> {
        let (pattern, actions) = (rule.items(), rule.templated());
        let attr = operation(postpone);
        // SAFETY: lists that end, of structures that outlive the call; this thread alone uses the queue.
        let flow = unsafe {
            ffi::rte_flow_async_create(
                self.port,
                queue,
                &raw const attr,
                self.tables[rule.kind],
                pattern.as_ptr(),
                0,
                actions.as_ptr(),
                0,
                ptr::without_provenance_mut(user_data),
                ptr::null_mut(),
            )
        };
        (!flow.is_null()).then_some(flow)
    }

    /// Enqueues a rule's destruction; false when the queue is full.
    pub(super) fn destroy(
        &self,
        queue: u32,
        flow: *mut ffi::rte_flow,
        user_data: usize,
        postpone: bool,
    ) -> bool {
        let attr = operation(postpone);
        // SAFETY: a rule of this queue; this thread alone uses the queue.
        let status = unsafe {
            ffi::rte_flow_async_destroy(
                self.port,
                queue,
                &raw const attr,
                flow,
                ptr::without_provenance_mut(user_data),
                ptr::null_mut(),
            )
        };
        status == 0
    }

    pub(super) fn push(&self, queue: u32) {
        // SAFETY: this thread alone uses the queue.
        let status = unsafe { ffi::rte_flow_push(self.port, queue, ptr::null_mut()) };
        assert_eq!(status, 0);
    }

    /// Takes completions: the user data and whether it worked, of each.
    pub(super) fn pull(&self, queue: u32, mut take: impl FnMut(usize, bool)) -> usize {
        let mut results = [ffi::rte_flow_op_result::default(); 64];
        // SAFETY: room for so many results; this thread alone uses the queue.
        let count = unsafe {
            ffi::rte_flow_pull(self.port, queue, results.as_mut_ptr(), results.len() as u16, ptr::null_mut())
        };
        assert!(count >= 0, "pull: {count}");
        for result in &results[..count as usize] {
            take(result.user_data.addr(), result.status == ffi::RTE_FLOW_OP_SUCCESS);
        }
        count as usize
    }
}

fn operation(postpone: bool) -> ffi::rte_flow_op_attr {
    let mut attr = ffi::rte_flow_op_attr::default();
    attr.set_postpone(u32::from(postpone));
    attr
}
