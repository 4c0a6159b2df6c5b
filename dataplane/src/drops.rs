//! Why a packet was not sent: a closed list.
//!
//! Each reason is a metric label, a word in `show drops` and a line in `docs/drops.md` (a test compares
//! the page with this file).

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// Why a packet was not sent. Every packet that Millrace takes and does not send is counted
        /// under exactly one of these.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl DropReason {
            /// All reasons, in declaration order.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name,)+];

            /// The metric label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(DropReason::$name => $label,)+ }
            }

            /// One or two sentences for a person.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(DropReason::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

drop_reasons! {
    /// The frame is spread over several buffers; Millrace forwards frames of one buffer only.
    Scattered = "scattered",
    /// The frame ends inside its Ethernet header or a VLAN tag.
    EthernetTruncated = "ethernet_truncated",
    /// More VLAN tags than two.
    VlanTooDeep = "vlan_too_deep",
    /// The frame's VLAN tags are not those of the port.
    VlanMismatch = "vlan_mismatch",
    /// The frame is addressed to another station.
    NotOurMac = "not_our_mac",
    /// An EtherType that is neither ARP, IPv4 nor IPv6.
    EtherTypeUnknown = "ethertype_unknown",
    /// The ARP packet is truncated or not Ethernet/IPv4.
    ArpMalformed = "arp_malformed",
    /// The frame ends inside the IPv4 header.
    Ipv4Truncated = "ipv4_truncated",
    /// IPv4 version or header length is wrong.
    Ipv4HeaderInvalid = "ipv4_header_invalid",
    /// IPv4 total length is smaller than the header or larger than the frame.
    Ipv4LengthInvalid = "ipv4_length_invalid",
    /// The IPv4 header checksum is wrong.
    Ipv4Checksum = "ipv4_checksum",
    /// The frame ends inside the IPv6 header or its payload length is larger than the frame.
    Ipv6Truncated = "ipv6_truncated",
    /// The IPv6 version is wrong, or an IPv4-mapped address is used on the wire.
    Ipv6HeaderInvalid = "ipv6_header_invalid",
    /// An IPv6 extension header is truncated, repeated too often or not allowed where it stands.
    Ipv6ExtensionInvalid = "ipv6_extension_invalid",
    /// The source address is one no packet may come from (multicast, unspecified, loopback; our own, where
    /// health is checked).
    SourceAddressInvalid = "source_address_invalid",
    /// An IP protocol that is not forwarded.
    ProtocolUnsupported = "protocol_unsupported",
    /// The packet ends inside its TCP header, or its data offset is wrong.
    TcpTruncated = "tcp_truncated",
    /// TCP flags that no stack sends: none at all, SYN with FIN, or SYN with RST.
    TcpFlagsInvalid = "tcp_flags_invalid",
    /// The packet ends inside its UDP header, or its UDP length is wrong.
    UdpTruncated = "udp_truncated",
    /// The packet ends inside its ICMP message.
    IcmpTruncated = "icmp_truncated",
    /// The ICMP or ICMPv6 checksum is wrong.
    IcmpChecksum = "icmp_checksum",
    /// A neighbour-discovery message that fails the checks of RFC 4861 section 7.1.
    NdInvalid = "nd_invalid",
    /// An ICMP message that is neither an error about a connection nor a request to us.
    IcmpUnhandled = "icmp_unhandled",
    /// An ICMP error about a connection that does not exist here.
    IcmpNoConnection = "icmp_no_connection",
    /// A fragment whose first fragment was not seen.
    FragmentUnknown = "fragment_unknown",
    /// A fragment that overlaps the transport header or is otherwise malformed.
    FragmentInvalid = "fragment_invalid",
    /// What came for the end of a tunnel has no header of that tunnel's kind in front of an Ethernet frame,
    /// or came in fragments.
    TunnelMalformed = "tunnel_malformed",
    /// The UDP checksum around a frame from a tunnel is wrong.
    TunnelChecksum = "tunnel_checksum",
    /// GENEVE options that must be understood, and are not.
    TunnelOption = "tunnel_option",
    /// A frame from a tunnel of a network (VNI) that no port is on.
    TunnelNetwork = "tunnel_network",
    /// A frame from a tunnel whose far end is not the port's `remote`.
    TunnelRemote = "tunnel_remote",
    /// Congestion was met inside a tunnel by a packet whose ends could not be told (RFC 6040).
    TunnelEcn = "tunnel_ecn",
    /// The destination is neither a service nor known here.
    NoService = "no_service",
    /// A packet of no connection that may not open one: a TCP segment without SYN for a `strict` service,
    /// or what a backend sends unasked.
    NoConnection = "no_connection",
    /// The policy denies it.
    PolicyDenied = "policy_denied",
    /// The policy rejects it: its sender was told, within the rate.
    PolicyRejected = "policy_rejected",
    /// The service has no backend that takes new connections.
    NoBackend = "no_backend",
    /// The connection's backend was removed with policy `reset`.
    BackendRemoved = "backend_removed",
    /// Every backend tried for the connection already talks to this client from the same port.
    NatTupleInUse = "nat_tuple_in_use",
    /// The connection table is full and nothing in it may be evicted.
    TableFull = "table_full",
    /// The half-open share of the table is used up by younger connections.
    HalfOpenLimit = "half_open_limit",
    /// The tenant has as many connections as it may, and nothing of its own may be evicted.
    TenantLimit = "tenant_limit",
    /// A client uses its port again while hardware still forwards for the connection before, whose backend
    /// takes no new ones. The client tries again.
    OffloadPending = "offload_pending",
    /// More packets or bits per second than the `limit` of the service or its tenant lets through.
    MeterRate = "meter_rate",
    /// A new connection beyond the `limit` of the service or its tenant: too many in this second,
    /// or too many at a time.
    MeterConnections = "meter_connections",
    /// TTL or hop limit ran out here.
    TtlExpired = "ttl_expired",
    /// The packet does not fit the next link. Millrace fragments nothing; it tells the sender the MTU.
    TooBig = "too_big",
    /// No route towards the destination.
    NoRoute = "no_route",
    /// The next hop does not answer ARP or neighbour discovery.
    NeighbourUnreachable = "neighbour_unreachable",
    /// Too many packets wait for the same next hop already.
    NeighbourQueueFull = "neighbour_queue_full",
    /// The neighbour table is full.
    NeighbourTableFull = "neighbour_table_full",
    /// The ring to the worker that owns the connection is full.
    HandOffRingFull = "hand_off_ring_full",
    /// An answer to a health check that the checker has no room for.
    CheckerBusy = "checker_busy",
    /// The port's transmit queue is full.
    TxRingFull = "tx_ring_full",
    /// No room in the buffer for the headers to be added.
    NoHeadroom = "no_headroom",
    /// No free packet buffer.
    NoBuffer = "no_buffer",
    /// Over the rate at which Millrace answers ICMP, ARP or neighbour discovery.
    RateLimited = "rate_limited",
    /// A frame that Millrace itself sent came back.
    OwnFrame = "own_frame",
    /// Held when Millrace stopped.
    Shutdown = "shutdown",
}

impl DropReason {
    /// Whether the packet may simply be meant for someone else. A port that is a bump in the wire
    /// passes it on instead of dropping it.
    #[must_use]
    pub const fn is_someone_elses(self) -> bool {
        use DropReason as R;
        matches!(
            self,
            R::VlanTooDeep
                | R::SourceAddressInvalid
                | R::VlanMismatch
                | R::NotOurMac
                | R::EtherTypeUnknown
                | R::ProtocolUnsupported
                | R::IcmpUnhandled
                | R::IcmpNoConnection
                | R::NoService
                | R::NoConnection
        )
    }
}

/// The number of reasons.
pub const DROP_REASONS: usize = DropReason::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_described() {
        let mut labels: Vec<_> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DROP_REASONS);
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(reason.description().ends_with('.'), "{reason:?}");
        }
    }

    /// `docs/drops.md` has a row for each reason, in this order, with these words.
    #[test]
    fn the_page_says_the_same() {
        let page = include_str!("../../docs/drops.md");
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
            .collect();
        for (reason, row) in DropReason::ALL.iter().zip(&rows) {
            let [label, meaning, remedy] = row[..] else { panic!("three columns: {row:?}") };
            assert_eq!(label, format!("`{}`", reason.label()));
            assert_eq!(meaning, reason.description().trim());
            assert!(remedy.ends_with('.') && remedy.len() > 10, "{label}: {remedy}");
        }
        assert_eq!(rows.len(), DROP_REASONS);
    }
}
