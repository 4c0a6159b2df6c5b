//! Every bound, in one place, related to one another by `const` asserts.

/// Ports a process can have that are devices of their own.
pub const DEVICES_MAX: usize = 16;
/// Ports a process can have, those on the devices of others included.
pub const PORTS_MAX: usize = 1024;
/// Workers a process can have.
pub const WORKERS_MAX: usize = 64;
/// Services a configuration can have.
pub const SERVICES_MAX: usize = 4096;
/// Backends a configuration can have.
pub const BACKENDS_MAX: usize = 16384;
/// Backend slots: configured backends, and removed ones that still have connections. So all can be exchanged
/// for others at once.
pub const BACKEND_SLOTS_MAX: usize = 2 * BACKENDS_MAX;
/// VLAN tags of a frame: none, 802.1Q, or 802.1ad with 802.1Q inside.
pub const VLAN_TAGS_MAX: usize = 2;
/// IPv6 extension headers followed before a packet is given up.
pub const IPV6_EXTENSIONS_MAX: usize = 8;
/// Smallest and largest MTU a port can be given, bytes of IP packet (RFC 8200 §5 sets the lower one).
pub const MTU_MIN: u16 = 1280;
/// See [`MTU_MIN`].
pub const MTU_MAX: u16 = 9000;
/// Largest timeout of any state: 14 days.
pub const TIMEOUT_MAX_MS: u32 = 14 * 24 * 3600 * 1000;
/// Connections per worker: slots are numbered with 31 bits.
pub const CONNECTIONS_MAX: usize = 1 << 30;
/// Neighbours per worker: slots are numbered with 16 bits.
pub const NEIGHBOURS_MAX: usize = 1 << 16;
/// Largest Maglev table: the largest prime below 2^22.
pub const MAGLEV_TABLE_MAX: u32 = 4_194_301;
/// Characters of a name of a port, service or tenant.
pub const NAME_LENGTH_MAX: usize = 63;
/// Bytes of a Unix socket's path: `sun_path` has 108 with its NUL, unix(7).
pub const SOCKET_PATH_MAX: usize = 107;
/// Tenants a configuration can have, the default one included.
pub const TENANTS_MAX: usize = 1024;
/// Policy rules a configuration can have.
pub const RULES_MAX: usize = 16384;
/// Numbers of policy rules: those of a configuration, and of the one before.
pub const RULE_NUMBERS_MAX: usize = 2 * RULES_MAX;
/// Bounds of the address ranges of all policy rules together, two a prefix, for sources and for
/// destinations each.
pub const POLICY_BOUNDS_MAX: usize = 1 << 20;
/// Bytes that a policy may take in the form that it is looked up in.
pub const POLICY_BYTES_MAX: usize = 96 << 20;
/// Sets of prefixes a configuration can have.
pub const SETS_MAX: usize = 4096;
/// Prefixes of one set, or of one list of a policy rule.
pub const SET_PREFIXES_MAX: usize = 65536;
/// Routes of one port.
pub const ROUTES_MAX: usize = 256;
/// Partitions of one service.
pub const PARTITIONS_MAX: u32 = 1024;
/// Rules of partitions in hardware, those included whose counters may still grow.
pub const PARTITION_RULES_MAX: u32 = 4096;
/// Of these so many are planned: the others may be on their way out, or their counters awaited.
pub const PARTITION_RULES_PLANNED_MAX: u32 = PARTITION_RULES_MAX / 2;
/// Port ranges of one service.
pub const PORT_RANGES_MAX: usize = 64;
/// Largest weight of a backend.
pub const WEIGHT_MAX: u32 = 1000;
/// Largest CPU number a worker can be pinned to.
pub const CORE_MAX: u16 = 1023;
/// Fragmented datagrams per worker.
pub const FRAGMENTS_MAX: u32 = 1 << 20;
/// Rules in hardware, one per direction of a connection.
pub const OFFLOAD_RULES_MAX: u32 = 1 << 24;
/// Rules in hardware that drop what the policy denies.
pub const DENY_RULES_MAX: u32 = 4096;
/// Longest time between two readings of a rule's counters, milliseconds.
pub const OFFLOAD_POLL_MS_MAX: u32 = 2_000;
/// How late a worker may hear of what hardware has forwarded: silence of a connection in hardware counts
/// only beyond this, milliseconds.
pub const HARDWARE_STALE_MS: u32 = 3_000;
/// Packets held for a next hop that is being resolved.
pub const NEIGHBOUR_QUEUE_MAX: u16 = 256;

const _: () = assert!(OFFLOAD_POLL_MS_MAX < HARDWARE_STALE_MS, "connections in use would expire");
const _: () = assert!(TIMEOUT_MAX_MS < u32::MAX / 2, "ticks would be ambiguous");
const _: () = assert!(DEVICES_MAX <= PORTS_MAX && PORTS_MAX <= u16::MAX as usize, "PortId is 16 bits");
const _: () = assert!(BACKEND_SLOTS_MAX <= u16::MAX as usize, "BackendId is 16 bits");
const _: () = assert!(RULE_NUMBERS_MAX <= u16::MAX as usize, "RuleNumber is 16 bits");
const _: () = assert!(SERVICES_MAX <= u16::MAX as usize, "ServiceId is 16 bits");
