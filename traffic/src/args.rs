//! What the user writes behind `--vdev net_traffic0,`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::stamp;

/// The keys, for the message that turns down another one.
const KEYS: &str = "flows, protocol, flags, ipv6, size, vip, port, client, order, new, fresh, rate, count, stamp, answers, \
                    seed, mac, check, turns_after";

/// Flows that are played over and over, at most.
pub const FLOWS_MAX: u32 = 10_000_000;

/// Clients that flow numbers, of 32 bits, can reach: addresses from `client` on that must exist.
pub const CLIENTS_MAX: u32 = 1 << 17;

/// The longest frame, without its checksum: 9000 bytes of payload.
pub const SIZE_MAX: u16 = 9018;

/// What is above IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Segments.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What a TCP segment of a flow is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flags {
    /// A connection's first.
    Syn,
    /// Data of an established connection.
    Ack,
}

/// A device as the user wants it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Args {
    /// Flows to play; 0: none.
    pub flows: u32,
    /// Their protocol.
    pub protocol: Protocol,
    /// Their segments.
    pub flags: Flags,
    /// Bytes of a frame, without its checksum; at least [`size_min`].
    pub size: u16,
    /// Where they go.
    pub vip: IpAddr,
    /// The port there.
    pub port: u16,
    /// The first client's address, of the VIP's family.
    pub client: IpAddr,
    /// Whether flows come in pseudo-random order, not by their numbers.
    pub shuffled: bool,
    /// Connections per second that come and go.
    pub new: u32,
    /// Whether every packet is of a flow of its own.
    pub fresh: bool,
    /// Packets per second of the flows, at most; 0: as many as are asked for.
    pub rate: u32,
    /// Packets of the flows, and connections that come and go, after which no more begin; 0: no end.
    pub count: u64,
    /// Whether packets carry the time, and that of packets sent to the device is looked at.
    pub stamp: bool,
    /// How many of the packets sent to the device are answered; 0: nothing is, not even a SYN.
    pub answers: u64,
    /// For everything random.
    pub seed: u64,
    /// The port's own MAC address; `None`: one made from the device's name.
    pub mac: Option<[u8; 6]>,
    /// Whether the checksums of what is sent to the device are verified.
    pub check: bool,
    /// Packets that a queue receives before turns are timed.
    pub turns_after: u64,
}

/// An argument that cannot be, and what could.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("bad argument {key}={value}: {remedy}")]
pub struct ArgsError {
    /// The key, as the user wrote it.
    pub key: String,
    /// The value, as the user wrote it.
    pub value: String,
    /// What to write instead.
    pub remedy: String,
}

/// The shortest frame that has room for the headers: Ethernet's least, or more.
pub fn size_min(ipv6: bool, protocol: Protocol) -> u16 {
    match (ipv6, protocol) {
        (false, _) => 60,
        (true, Protocol::Udp) => 62,
        (true, Protocol::Tcp) => 74,
    }
}

/// The pairs, as they are read; what has a default that depends on others is `None`.
struct Raw<'a> {
    args: Args,
    ipv6: bool,
    size: Option<(&'a str, u16)>,
    vip: Option<(&'a str, IpAddr)>,
    client: Option<(&'a str, IpAddr)>,
    flags: Option<&'a str>,
}

impl Args {
    /// Parses `key=value,key=value`.
    ///
    /// # Errors
    /// The first pair that cannot be: an unknown key, one given twice, a value out of its range, or one that
    /// does not go with another.
    pub fn parse(text: &str) -> Result<Args, ArgsError> {
        let mut raw = Raw {
            args: Args {
                flows: 64,
                protocol: Protocol::Tcp,
                flags: Flags::Ack,
                size: 0,
                vip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 80)),
                port: 80,
                client: IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)),
                shuffled: true,
                new: 0,
                fresh: false,
                rate: 0,
                count: 0,
                stamp: false,
                answers: 0,
                seed: 1,
                mac: None,
                check: false,
                turns_after: 0,
            },
            ipv6: false,
            size: None,
            vip: None,
            client: None,
            flags: None,
        };
        let mut seen = Vec::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&key) {
                return Err(bad(key, value, "given twice; give it once"));
            }
            seen.push(key);
            raw.set(key, value)?;
        }
        raw.finish()
    }
}

impl Args {
    /// A time takes room in the payload.
    fn check_stamp(&self) -> Result<(), ArgsError> {
        if !self.stamp || self.flows == 0 {
            return Ok(());
        }
        if self.new > 0 {
            return Err(bad(
                "stamp",
                "1",
                "segments of connections that come and go have no payload for it; without new=",
            ));
        }
        if self.protocol == Protocol::Tcp && self.flags == Flags::Syn {
            return Err(bad("stamp", "1", "a SYN has no payload for it; use flags=ack or protocol=udp"));
        }
        let headers = if self.vip.is_ipv6() { 54 } else { 34 };
        let headers = headers + if self.protocol == Protocol::Udp { 8 } else { 20 };
        // One more: it begins at an even offset.
        let least = headers + stamp::LEN as u16 + 1;
        if self.size < least {
            return Err(bad(
                "stamp",
                "1",
                &format!("it takes {} bytes of payload: size={least}", stamp::LEN),
            ));
        }
        Ok(())
    }
}

impl<'a> Raw<'a> {
    fn set(&mut self, key: &str, value: &'a str) -> Result<(), ArgsError> {
        let args = &mut self.args;
        match key {
            "flows" => {
                let remedy = "a number from 0 (nothing is received) to 10000000";
                args.flows = number(key, value, 0, u64::from(FLOWS_MAX), remedy)? as u32;
            }
            "protocol" => {
                args.protocol =
                    choice(key, value, &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)], "tcp or udp")?;
            }
            "flags" => {
                args.flags = choice(key, value, &[("syn", Flags::Syn), ("ack", Flags::Ack)], "syn or ack")?;
                self.flags = Some(value);
            }
            "order" => {
                let choices = [("shuffled", true), ("sequential", false)];
                args.shuffled = choice(key, value, &choices, "shuffled or sequential")?;
            }
            "ipv6" => self.ipv6 = switch(key, value)?,
            "fresh" => args.fresh = switch(key, value)?,
            "stamp" => args.stamp = switch(key, value)?,
            "check" => args.check = switch(key, value)?,
            "size" => {
                let remedy = "bytes of a frame without its checksum, from 60 to 9018";
                self.size = Some((value, number(key, value, 60, u64::from(SIZE_MAX), remedy)? as u16));
            }
            "vip" => self.vip = Some((value, address(key, value)?)),
            "client" => self.client = Some((value, address(key, value)?)),
            "port" => args.port = number(key, value, 1, 65_535, "a number from 1 to 65535")? as u16,
            "new" => {
                let remedy = "connections per second, from 0 to 100000000";
                args.new = number(key, value, 0, 100_000_000, remedy)? as u32;
            }
            "rate" => {
                let remedy = "packets per second, from 0 (as many as are asked for) to 1000000000";
                args.rate = number(key, value, 0, 1_000_000_000, remedy)? as u32;
            }
            "count" => args.count = number(key, value, 0, u64::MAX, "a number from 0 (no end) to 2^64-1")?,
            "answers" => args.answers = number(key, value, 0, u64::MAX, "a number from 0 to 2^64-1")?,
            "seed" => args.seed = number(key, value, 0, u64::MAX, "a number from 0 to 2^64-1")?,
            "turns_after" => {
                args.turns_after = number(key, value, 0, u64::MAX, "a number from 0 to 2^64-1")?;
            }
            "mac" => args.mac = Some(mac(key, value)?),
            _ => return Err(bad(key, value, &format!("no such key; there are {KEYS}"))),
        }
        Ok(())
    }

    /// What depends on more than one key.
    fn finish(self) -> Result<Args, ArgsError> {
        let Raw { mut args, ipv6, size, vip, client, flags } = self;
        if ipv6 {
            args.vip = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80));
            args.client = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 0));
        }
        for (key, given, to) in [("vip", vip, &mut args.vip), ("client", client, &mut args.client)] {
            let Some((value, address)) = given else { continue };
            if address.is_ipv6() != ipv6 {
                let remedy =
                    if ipv6 { "with ipv6=1, an IPv6 address" } else { "an IPv4 address, or add ipv6=1" };
                return Err(bad(key, value, remedy));
            }
            *to = address;
        }
        if low_half(args.client).checked_add(CLIENTS_MAX - 1).is_none() {
            let value = args.client.to_string();
            return Err(bad("client", &value, "131072 addresses must follow it; choose a lower one"));
        }
        let least = size_min(ipv6, args.protocol);
        args.size = match size {
            Some((value, size)) if size < least => {
                return Err(bad("size", value, &format!("the headers alone need {least}")));
            }
            Some((_, size)) => size,
            None => least,
        };
        if args.fresh && args.new > 0 {
            let value = args.new.to_string();
            return Err(bad(
                "new",
                &value,
                "with fresh=1 every packet is of a new flow already; leave one out",
            ));
        }
        args.check_stamp()?;
        match flags {
            Some(value) if args.protocol == Protocol::Udp => {
                Err(bad("flags", value, "UDP has none; leave it out, or use protocol=tcp"))
            }
            _ => Ok(args),
        }
    }
}

/// The low 32 bits of an address: those that differ from client to client.
pub fn low_half(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => address.to_bits() as u32,
    }
}

fn bad(key: &str, value: &str, remedy: &str) -> ArgsError {
    ArgsError { key: key.to_owned(), value: value.to_owned(), remedy: remedy.to_owned() }
}

fn number(key: &str, value: &str, least: u64, most: u64, remedy: &str) -> Result<u64, ArgsError> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| bad(key, value, remedy))
}

fn choice<T: Copy>(key: &str, value: &str, choices: &[(&str, T)], remedy: &str) -> Result<T, ArgsError> {
    let found = choices.iter().find(|(name, _)| *name == value);
    found.map(|(_, choice)| *choice).ok_or_else(|| bad(key, value, remedy))
}

fn switch(key: &str, value: &str) -> Result<bool, ArgsError> {
    choice(key, value, &[("0", false), ("1", true)], "0 or 1")
}

fn address(key: &str, value: &str) -> Result<IpAddr, ArgsError> {
    value.parse().map_err(|_| bad(key, value, "an IP address, e.g. 192.0.2.80"))
}

fn mac(key: &str, value: &str) -> Result<[u8; 6], ArgsError> {
    let remedy = "a unicast MAC address, e.g. 02:00:00:00:00:01";
    let mut bytes = [0; 6];
    let mut parts = value.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2);
        let part = part.and_then(|part| u8::from_str_radix(part, 16).ok());
        *byte = part.ok_or_else(|| bad(key, value, remedy))?;
    }
    if parts.next().is_some() || bytes[0] & 1 != 0 || bytes == [0; 6] {
        return Err(bad(key, value, remedy));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_said() {
        let text = "flows=10000000,protocol=tcp,flags=syn,ipv6=1,size=1514,vip=2001:db8::1,port=443,\
                    client=2001:db8:1::,order=sequential,new=100000,answers=18446744073709551615,seed=7,\
                    mac=02:00:00:00:00:0A,check=1,turns_after=9,rate=1000000000,\
                    count=12";
        let expected = Args {
            flows: 10_000_000,
            protocol: Protocol::Tcp,
            flags: Flags::Syn,
            size: 1514,
            vip: "2001:db8::1".parse().unwrap(),
            port: 443,
            client: "2001:db8:1::".parse().unwrap(),
            shuffled: false,
            new: 100_000,
            fresh: false,
            rate: 1_000_000_000,
            count: 12,
            stamp: false,
            answers: u64::MAX,
            seed: 7,
            mac: Some([2, 0, 0, 0, 0, 10]),
            check: true,
            turns_after: 9,
        };
        assert_eq!(Args::parse(text), Ok(expected));
    }

    #[test]
    fn nothing_said_is_64_established_connections() {
        let args = Args::parse("").unwrap();
        assert_eq!((args.flows, args.size, args.flags, args.shuffled), (64, 60, Flags::Ack, true));
        assert_eq!(args.client.to_string(), "100.64.0.0");
        assert!(Args::parse("flags=syn,fresh=1").unwrap().fresh);
        assert_eq!(Args::parse("ipv6=1").unwrap().size, 74);
        assert_eq!(Args::parse("ipv6=1,protocol=udp").unwrap().size, 62);
        assert!(Args::parse("protocol=udp,stamp=1").unwrap().stamp);
        assert!(Args::parse("flows=0,stamp=1").unwrap().stamp, "a sink looks only");
    }

    #[test]
    fn what_cannot_be_is_named_with_a_remedy() {
        let cases = [
            ("flow=1", "bad argument flow=1: no such key; there are flows, protocol,"),
            ("flows=10000001", "bad argument flows=10000001: a number from 0"),
            ("flows", "bad argument flows=: a number"),
            ("flows=1,flows=2", "bad argument flows=2: given twice"),
            ("protocol=sctp", "bad argument protocol=sctp: tcp or udp"),
            ("flags=fin", "bad argument flags=fin: syn or ack"),
            ("protocol=udp,flags=ack", "bad argument flags=ack: UDP has none"),
            ("ipv6=yes", "bad argument ipv6=yes: 0 or 1"),
            ("size=59", "bad argument size=59: bytes of a frame"),
            ("ipv6=1,size=60", "bad argument size=60: the headers alone need 74"),
            ("vip=2001:db8::1", "bad argument vip=2001:db8::1: an IPv4 address, or add ipv6=1"),
            ("ipv6=1,client=10.0.0.1", "bad argument client=10.0.0.1: with ipv6=1"),
            ("client=255.255.0.0", "bad argument client=255.255.0.0: 131072 addresses"),
            ("vip=here", "bad argument vip=here: an IP address"),
            ("port=0", "bad argument port=0: a number from 1"),
            ("order=random", "bad argument order=random: shuffled or sequential"),
            ("fresh=1,new=5", "bad argument new=5: with fresh=1"),
            ("rate=1000000001", "bad argument rate=1000000001: packets per second"),
            ("stamp=1", "bad argument stamp=1: it takes 16 bytes of payload: size=71"),
            ("stamp=1,flags=syn,size=200", "bad argument stamp=1: a SYN has no payload"),
            ("stamp=1,new=5,size=200", "bad argument stamp=1: segments of connections"),
            ("new=-1", "bad argument new=-1: connections per second"),
            ("mac=03:00:00:00:00:01", "bad argument mac=03:00:00:00:00:01: a unicast"),
            ("mac=2:0:0:0:0:1", "bad argument mac=2:0:0:0:0:1: a unicast"),
        ];
        for (text, expected) in cases {
            let error = Args::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
