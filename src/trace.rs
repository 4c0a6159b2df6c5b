//! `trace`: what becomes of a made-up packet, and why. The answer is the walk's own: a shadow of the worker
//! that owns the packet's connection forwards it, and says what it does. Nothing is sent.

mod lines;
mod words;

use crate::api::{self, Refusal, RefusalKind, RuleRow};
use crate::offloading::Offloading;
use crate::rows;
use dataplane::addr::{Ip, MacAddr};
use dataplane::config::{self, Config};
use dataplane::drops::DropReason;
use dataplane::flow::{FlowKey, Protocol};
use dataplane::ids::{PortId, TenantId};
use dataplane::owner::{DEFAULT_KEY, Owners};
use dataplane::snapshot::{Overrides, Port, PortFacts, Snapshot};
use dataplane::wire::checksum::Sum;
use dataplane::worker::{Excerpt, Note, Shadow, Sizes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use words::Words;

pub(crate) use lines::Lines;

/// Connections of the packet's ends that are looked at.
const CONNECTIONS_MAX: usize = 16_384;
/// IP protocol numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Who hands us the packet: nobody's address.
const SENDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);

/// How flows are described: both ends of the same family, ports or none. More is understood, such as all that
/// is short for an IPv6 address.
const FLOW: &str = concat!(
    r"^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}(:[1-9]\d{0,3})? -> ",
    r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}(:[1-9]\d{0,3})?|",
    r"([0-9a-f]{1,4}:){1,6}:[0-9a-f]{1,4} -> ([0-9a-f]{1,4}:){1,6}:[0-9a-f]{1,4})/(tcp|udp|icmp)$",
);

/// A packet to be traced.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct TraceQuery {
    /// Its ends: `10.0.0.1:5555 -> 192.0.2.53:53/udp`; the protocol is `tcp`, `udp` or `icmp` (a ping).
    #[schemars(regex(pattern = FLOW))]
    pub(crate) flow: String,
    /// The port that it comes in by; if not given, the one that leads back to its source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<String>,
    /// Letters of `FSRPAU`; `S` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[FSRPAUfsrpau.]*$"))]
    pub(crate) tcp_flags: Option<String>,
    /// Bytes of IP packet; as few as there can be if not given, or if it is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9000))]
    pub(crate) size: Option<u16>,
    /// TTL or hop limit; 64 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<u8>,
}

/// What becomes of a packet, and why.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TraceRow {
    /// In a line: forwarded, held, answered, passed on or dropped.
    pub(crate) verdict: String,
    /// What was found and decided, in order.
    pub(crate) steps: Vec<StepRow>,
    /// Frames that leave.
    pub(crate) sent: Vec<FrameRow>,
    /// Whether hardware forwards for the packet's connection, and why or why not.
    pub(crate) hardware: String,
    /// The packet's connection as it would be afterwards.
    pub(crate) connection: Option<api::ConnectionRow>,
    /// Its rules in hardware.
    pub(crate) rules: Vec<RuleRow>,
}

/// One thing that was found or decided.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepRow {
    /// Which part of the way it is of: `parse`, `policy`, `service`, `backend`, `connection` and so on.
    pub(crate) step: String,
    pub(crate) text: String,
    /// The line of the configuration that says so.
    pub(crate) line: Option<usize>,
}

/// A frame that leaves.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameRow {
    /// The port.
    pub(crate) port: String,
    /// Its bytes, in hexadecimal.
    pub(crate) frame: String,
}

/// The same, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    src: (Ip, u16),
    dst: (Ip, u16),
    protocol: u8,
    flags: u8,
    size: u16,
    ttl: u8,
}

fn malformed(text: impl Into<String>) -> Refusal {
    Refusal::new(RefusalKind::Malformed, text)
}

/// `10.0.0.1:5555`, `[2001:db8::1]:5555`, or an address alone.
fn end(text: &str) -> Option<(Ip, u16)> {
    let text = text.trim();
    let full = text.parse::<SocketAddr>().map(|address| (address.ip(), address.port()));
    let (ip, port) = full.or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, 0))).ok()?;
    Some((ip.into(), port))
}

impl Packet {
    /// The packet that a query asks for.
    fn new(query: &TraceQuery) -> Result<Packet, Refusal> {
        const FORM: &str = "write it as '10.0.0.1:5555 -> 192.0.2.53:53/udp' (tcp, udp or icmp)";
        let bad = |what: &str| malformed(format!("flow `{}`: {what}; {FORM}", query.flow));
        let (src, rest) = query.flow.split_once("->").ok_or_else(|| bad("there is no `->`"))?;
        let (dst, protocol) = rest.rsplit_once('/').ok_or_else(|| bad("there is no protocol"))?;
        let src = end(src).ok_or_else(|| bad("the source is no address"))?;
        let dst = end(dst).ok_or_else(|| bad("the destination is no address"))?;
        let v4 = src.0.is_v4();
        if v4 != dst.0.is_v4() {
            return Err(bad("one end is IPv4, the other IPv6"));
        }
        let (protocol, header) = match protocol.trim() {
            "tcp" => (TCP, 20),
            "udp" => (UDP, 8),
            "icmp" => (if v4 { ICMP } else { ICMPV6 }, 8),
            _ => return Err(bad("the protocol is none of these")),
        };
        let least = header + if v4 { 20 } else { 40 };
        let size = query.size.unwrap_or(least).max(least);
        if size > 9000 {
            return Err(malformed(format!("size {size} is more than 9000 bytes")));
        }
        let flags = tcp_flags(query.tcp_flags.as_deref().unwrap_or("S"))?;
        Ok(Packet { src, dst, protocol, flags, size, ttl: query.ttl.unwrap_or(64) })
    }

    /// A packet of a connection, without payload: TCP with these flags, or else UDP.
    pub(crate) fn sample(src: (Ip, u16), dst: (Ip, u16), flags: Option<u8>) -> Packet {
        let least = if src.0.is_v4() { 20 } else { 40 } + if flags.is_some() { 20 } else { 8 };
        let protocol = if flags.is_some() { TCP } else { UDP };
        Packet { src, dst, protocol, flags: flags.unwrap_or_default(), size: least, ttl: 64 }
    }

    /// The same with this TTL or hop limit.
    #[cfg(test)]
    pub(crate) fn with_ttl(self, ttl: u8) -> Packet {
        Packet { ttl, ..self }
    }

    /// The frame that a port would receive.
    pub(crate) fn frame(&self, port: &Port) -> Vec<u8> {
        let mut frame = [port.mac.0, SENDER.0].concat();
        for (kind, tag) in [(0x88a8u16, port.vlan.outer), (0x8100, port.vlan.inner)] {
            let Some(tag) = tag else { continue };
            frame.extend(kind.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        let v4 = self.src.0.is_v4();
        let kind: u16 = if v4 { 0x0800 } else { 0x86dd };
        frame.extend(kind.to_be_bytes());
        let header = if v4 { 20 } else { 40 };
        let payload = self.transport(usize::from(self.size) - header);
        if v4 {
            let [hi, lo] = self.size.to_be_bytes();
            let mut ip = vec![0x45, 0, hi, lo, 0, 0, 0x40, 0, self.ttl, self.protocol, 0, 0];
            ip.extend(self.src.0.low32().to_be_bytes());
            ip.extend(self.dst.0.low32().to_be_bytes());
            let sum = Sum::default().bytes(&ip).finish();
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(ip);
        } else {
            let [hi, lo] = (self.size - 40).to_be_bytes();
            frame.extend([0x60, 0, 0, 0, hi, lo, self.protocol, self.ttl]);
            frame.extend(self.src.0.octets());
            frame.extend(self.dst.0.octets());
        }
        frame.extend(payload);
        frame
    }

    /// The transport header and as much payload as there is room for.
    fn transport(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let (src, dst) = (self.src.1.to_be_bytes(), self.dst.1.to_be_bytes());
        bytes[0..2].copy_from_slice(&src);
        bytes[2..4].copy_from_slice(&dst);
        let at = match self.protocol {
            TCP => {
                (bytes[7], bytes[11], bytes[12], bytes[13]) = (1, 1, 0x50, self.flags);
                bytes[14..16].copy_from_slice(&[0xff, 0xff]);
                16
            }
            UDP => {
                bytes[4..6].copy_from_slice(&(len as u16).to_be_bytes());
                6
            }
            echo => {
                bytes[0..8].copy_from_slice(&[if echo == ICMP { 8 } else { 128 }, 0, 0, 0, 0, 7, 0, 1]);
                2
            }
        };
        let sum = match self.protocol {
            ICMP => Sum::default(),
            _ => Sum::default().pseudo_header(self.src.0, self.dst.0, self.protocol, len),
        };
        let sum = sum.bytes(&bytes).finish().to_be_bytes();
        bytes[at..at + 2].copy_from_slice(&sum);
        bytes
    }

    /// The port that the packet comes in by: the one that is named, or else where its source would be
    /// answered.
    fn port(&self, snapshot: &Snapshot, name: Option<&str>) -> Result<PortId, Refusal> {
        let mut ports = snapshot.ports.iter().enumerate();
        let found = match name {
            Some(name) => ports.find(|(_, port)| port.name == name),
            None => ports.find(|(id, port)| {
                snapshot.route(port.tenant, self.src.0).is_some_and(|hop| hop.port.index() == *id)
            }),
        };
        found.map(|(id, _)| PortId(id as u16)).ok_or_else(|| {
            let names: Vec<&str> = snapshot.ports.iter().map(|port| port.name.as_str()).collect();
            let why = match name {
                Some(name) => format!("there is no port `{name}`"),
                None => format!("no route leads to {}; name the port", self.src.0),
            };
            Refusal::new(RefusalKind::NotFound, format!("{why}; there are: {}", names.join(", ")))
        })
    }
}

/// `SA`: letters as in `tcpdump`, with `A` for the ACK.
fn tcp_flags(text: &str) -> Result<u8, Refusal> {
    text.chars().try_fold(0, |flags, letter| {
        let bit = match letter.to_ascii_uppercase() {
            'F' => 0x01,
            'S' => 0x02,
            'R' => 0x04,
            'P' => 0x08,
            'A' | '.' => 0x10,
            'U' => 0x20,
            _ => return Err(malformed(format!("TCP flag `{letter}` is none of F, S, R, P, A, U"))),
        };
        Ok(flags | bit)
    })
}

/// A packet, and where it comes in.
pub(crate) struct Arrival {
    packet: Packet,
    port: PortId,
    tenant: TenantId,
}

impl Arrival {
    /// What a query asks for, on the ports of a snapshot.
    pub(crate) fn new(query: &TraceQuery, snapshot: &Snapshot) -> Result<Arrival, Refusal> {
        let packet = Packet::new(query)?;
        let port = packet.port(snapshot, query.port.as_deref())?;
        let tenant = snapshot.port(port).map(|port| port.tenant).unwrap_or_default();
        Ok(Arrival { packet, port, tenant })
    }

    /// Whose owner sees the packet.
    pub(crate) fn client(&self, snapshot: &Snapshot) -> Ip {
        let Packet { src, dst, .. } = self.packet;
        if snapshot.is_vip(self.tenant, dst.0) { src.0 } else { dst.0 }
    }

    /// The rule in hardware that drops the packet before a worker could, as `row` says it would.
    pub(crate) fn dropped_by(
        &self,
        row: &TraceRow,
        offloading: &Offloading,
        snapshot: &Snapshot,
    ) -> Option<RuleRow> {
        let denied = row.verdict == format!("dropped: {}", DropReason::PolicyDenied.label());
        if !denied {
            return None;
        }
        offloading.denial_of(self.port, &self.ends()?, snapshot)
    }

    /// The rule in hardware of the partition that the packet is of, which forwards it before a worker could.
    pub(crate) fn parted_by(&self, offloading: &Offloading, snapshot: &Snapshot) -> Option<RuleRow> {
        offloading.partition_of(self.port, &self.ends()?, snapshot)
    }

    /// What a rule could match of it; `None` if it goes to software first of all, as what expires does.
    fn ends(&self) -> Option<FlowKey> {
        let Packet { src, dst, ttl, .. } = self.packet;
        if ttl <= 1 {
            return None;
        }
        let protocol = match self.packet.protocol {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            _ => return None,
        };
        Some(FlowKey {
            src: src.0,
            dst: dst.0,
            src_port: src.1,
            dst_port: dst.1,
            tenant: self.tenant,
            protocol,
        })
    }

    /// An excerpt for its worker to fill.
    pub(crate) fn excerpt(&self, neighbours_max: usize) -> Excerpt {
        let ends = [self.packet.src.0, self.packet.dst.0];
        Excerpt::new(self.tenant, ends, CONNECTIONS_MAX, neighbours_max)
    }

    /// Lets it arrive. `lines` are those of the configuration that the snapshot is of.
    pub(crate) fn walk(&self, snapshot: &Snapshot, lines: &Lines, shadow: &mut Shadow) -> TraceRow {
        let Some(port) = snapshot.port(self.port) else { return TraceRow::default() };
        let frame = self.packet.frame(port);
        // What is behind a tunnel begins where its frames have been taken out.
        let device = port.parent.filter(|_| port.tunnel.is_none());
        let walked = shadow.receive(device.unwrap_or(self.port), [frame.as_slice()]);
        let connection = walked.notes.iter().find_map(|note| match note {
            Note::Known { slot, .. } => shadow.connection(*slot),
            _ => None,
        });
        let words = Words { snapshot, lines };
        TraceRow {
            verdict: words.verdict(&walked),
            steps: walked.notes.iter().map(|note| words.step(note)).collect(),
            sent: walked.sent.iter().map(|(port, frame)| words.frame(*port, frame)).collect(),
            hardware: words.hardware(&walked, connection.as_ref(), shadow.price()),
            connection: connection.map(|row| rows::connection(snapshot, &row)),
            rules: Vec::new(),
        }
    }
}

/// What ports are taken to be while no device is there to be asked.
pub(crate) fn assumed_facts(config: &Config) -> Vec<PortFacts> {
    let facts = |(number, port): (usize, &config::Port)| {
        let device = config.device_port(port).map_or(number, PortId::index);
        let of_device = config.ports.get(device).and_then(|port| port.mtu);
        let mac = MacAddr([2, 0, 0, 0, 1, device as u8]);
        PortFacts { mac, mtu: port.mtu.or(of_device).unwrap_or(1500) }
    };
    config.ports.iter().enumerate().map(facts).collect()
}

/// `trace --config`: by a worker that has just started with what `text` says, and knows no neighbours.
pub(crate) fn offline(config: &Config, text: &str, query: &TraceQuery) -> Result<TraceRow, Refusal> {
    let failed = |error: String| Refusal::new(RefusalKind::Faulty, error);
    let facts = assumed_facts(config);
    let snapshot = Snapshot::build(config, &facts, &Overrides::default(), None, &|_| 0);
    let snapshot = Arc::new(snapshot.map_err(|error| failed(error.to_string()))?);
    let owners = Owners::new(&DEFAULT_KEY, 1, 1).map_err(|error| failed(error.to_string()))?;
    let arrival = Arrival::new(query, &snapshot)?;
    let excerpt = arrival.excerpt(0);
    let mut shadow = Shadow::new(Arc::clone(&snapshot), owners, &Sizes::of(&config.limits), &excerpt);
    Ok(arrival.walk(&snapshot, &Lines::new(text), &mut shadow))
}

#[cfg(test)]
mod tests;
