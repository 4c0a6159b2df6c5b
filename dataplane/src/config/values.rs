//! Readers of single values: what they accept, and what they say of what they do not.

use super::suggest::nearest;
use crate::addr::{Ip, MacAddr, Prefix};
use crate::limits;
use crate::maglev::is_prime;
use core::fmt::Display;
use core::net::{IpAddr, SocketAddr};
use core::ops::RangeInclusive;
use std::path::PathBuf;
use toml::de::DeValue;

/// A value as it stands in the file. Its numbers are digits yet.
pub(super) type Value<'a> = DeValue<'a>;

/// Why a value is refused, and what to write instead.
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Complaint {
        Complaint { message: message.into(), remedy: remedy.into() }
    }

    pub(super) fn wrong_type(expected: &str, found: &str, remedy: &str) -> Complaint {
        let article = if found.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        Complaint::new(format!("expected {expected}, found {article} {found}"), remedy)
    }
}

pub(super) fn boolean(value: &Value<'_>) -> Result<bool, Complaint> {
    let remedy = "write true or false, without quotes";
    value.as_bool().ok_or_else(|| Complaint::wrong_type("a boolean", value.type_str(), remedy))
}

pub(super) fn string<'a>(value: &'a Value<'_>) -> Result<&'a str, Complaint> {
    let remedy = "write it in quotes";
    value.as_str().ok_or_else(|| Complaint::wrong_type("a string", value.type_str(), remedy))
}

/// A string that something else will take as it is: anything but nothing and NUL.
pub(super) fn verbatim(value: &Value<'_>) -> Result<String, Complaint> {
    match string(value)? {
        "" => Err(Complaint::new("is empty", "fill it in")),
        text if text.contains('\0') => Err(Complaint::new("contains a NUL", "remove the NUL")),
        text => Ok(text.to_owned()),
    }
}

/// A whole number that 64 bits hold.
pub(super) fn whole(value: &Value<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A whole number within a range that lies within `T`.
pub(super) fn integer<T: TryFrom<i64>>(
    range: RangeInclusive<i64>,
) -> impl Fn(&Value<'_>) -> Result<T, Complaint> {
    move |value| {
        let remedy = format!("give a whole number from {} to {}, without quotes", range.start(), range.end());
        let Some(number) = value.as_integer() else {
            return Err(Complaint::wrong_type("an integer", value.type_str(), &remedy));
        };
        let fitting = whole(value).filter(|number| range.contains(number));
        let is_number = || number.as_str().chars().all(|c| c.is_digit(number.radix()) || "+-".contains(c));
        let what = || if is_number() { "is out of range" } else { "is not a whole number" };
        fitting
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| Complaint::new(format!("{number} {}", what()), remedy))
    }
}

/// A whole number within a range, and a power of two.
pub(super) fn power_of_two(range: RangeInclusive<i64>) -> impl Fn(&Value<'_>) -> Result<u32, Complaint> {
    move |value| {
        let number: u32 = integer(range.clone())(value)?;
        if number.is_power_of_two() {
            return Ok(number);
        }
        let near = number.checked_next_power_of_two().filter(|near| range.contains(&i64::from(*near)));
        let near = near.unwrap_or(1 << number.ilog2());
        Err(Complaint::new(format!("{number} is not a power of two"), format!("use {near}")))
    }
}

/// A whole number within a range, and a prime.
pub(super) fn prime(range: RangeInclusive<i64>) -> impl Fn(&Value<'_>) -> Result<u32, Complaint> {
    move |value| {
        let number: u32 = integer(range.clone())(value)?;
        if is_prime(number) {
            return Ok(number);
        }
        let near = next_prime(number).filter(|prime| range.contains(&i64::from(*prime)));
        let remedy = match near {
            Some(near) => format!("the next prime is {near}"),
            None => format!("{} is the largest", range.end()),
        };
        Err(Complaint::new(format!("{number} is not a prime, so Maglev could not visit every entry"), remedy))
    }
}

/// The least prime that is not below `number`.
pub(super) fn next_prime(number: u32) -> Option<u32> {
    (number..=u32::MAX).find(|n| is_prime(*n))
}

/// One of a few words.
pub(super) fn choice<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(&Value<'_>) -> Result<T, Complaint> {
    move |value| {
        let text = string(value)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let all: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let near = nearest(text, words.iter().map(|(word, _)| *word));
        let hint = near.map_or_else(String::new, |near| format!("did you mean {near:?}? "));
        let remedy = format!("{hint}it is one of {}", all.join(", "));
        Err(Complaint::new(format!("unknown value {text:?}"), remedy))
    }
}

/// A name, fit for a metric's label, a command line and a table's column.
pub(super) fn name(value: &Value<'_>) -> Result<String, Complaint> {
    let text = string(value)?;
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=limits::NAME_LENGTH_MAX).contains(&text.len()) && text.chars().all(fit) {
        return Ok(text.to_owned());
    }
    let remedy =
        format!("use 1 to {} of the characters A-Z a-z 0-9 - _ and the full stop", limits::NAME_LENGTH_MAX);
    Err(Complaint::new(format!("{text:?} is not a name"), remedy))
}

/// Parses an address and refuses the forms that cannot occur on the wire (RFC 6890).
fn parse_ip(text: &str) -> Result<Ip, Complaint> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let remedy = if text.contains('/') {
            "write the address alone, without a prefix length".to_owned()
        } else {
            "write it like \"192.0.2.1\" or \"2001:db8::1\"; names are not resolved".to_owned()
        };
        return Err(Complaint::new(format!("{text:?} is not an IP address"), remedy));
    };
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => {
                Err(Complaint::new(format!("{v6} is an IPv4-mapped address"), format!("write \"{v4}\"")))
            }
            None => Ok(v6.into()),
        },
        IpAddr::V4(v4) => Ok(v4.into()),
    }
}

/// Refuses addresses that no single host on a network can have.
fn require_host(ip: Ip) -> Result<Ip, Complaint> {
    let address = IpAddr::from(ip);
    let this_network = ip.is_v4() && ip.low32() >> 24 == 0;
    let broadcast = ip.is_v4() && ip.low32() == u32::MAX;
    let kind = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_loopback() {
        "a loopback address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if broadcast {
        "the broadcast address"
    } else if this_network {
        "in 0.0.0.0/8, which no host can have"
    } else {
        return Ok(ip);
    };
    Err(Complaint::new(format!("{ip} is {kind}"), "give the unicast address of a host on the network"))
}

/// The address of one host.
pub(super) fn host(value: &Value<'_>) -> Result<Ip, Complaint> {
    parse_ip(string(value)?).and_then(require_host)
}

/// A prefix, host bits kept.
fn parse_prefix(text: &str) -> Result<Prefix, Complaint> {
    let Some((address, length)) = text.split_once('/') else {
        parse_ip(text)?;
        let remedy = format!("append it: \"{text}/{}\"", if text.contains(':') { 64 } else { 24 });
        return Err(Complaint::new(format!("{text:?} has no prefix length"), remedy));
    };
    let address = parse_ip(address)?;
    let max = if address.is_v4() { 32 } else { 128 };
    let digits = length.bytes().all(|byte| byte.is_ascii_digit());
    match length.parse::<u8>().ok().filter(|length| digits && *length <= max) {
        Some(length) => Ok(Prefix { address, length }),
        None => {
            let remedy = format!("give a prefix length from 0 to {max}");
            Err(Complaint::new(format!("\"/{length}\" is not a prefix length"), remedy))
        }
    }
}

/// The network of a prefix: its host bits zero.
pub(super) fn network(prefix: Prefix) -> Prefix {
    let bits = u32::from(prefix.length) + if prefix.address.is_v4() { 96 } else { 0 };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    // The mapped form keeps its upper 96 bits, so an IPv4 address stays one.
    let address = u128::from_be_bytes(prefix.address.octets()) & mask;
    Prefix { address: Ip::v6(address.to_be_bytes()), length: prefix.length }
}

/// A host's address with the prefix of its link.
pub(super) fn interface(value: &Value<'_>) -> Result<Prefix, Complaint> {
    let prefix = parse_prefix(string(value)?)?;
    require_host(prefix.address)?;
    if prefix.length == 0 {
        return Err(Complaint::new(
            "a link with every address of the family",
            "give the prefix length of the link",
        ));
    }
    if !prefix.address.is_v4() || prefix.length >= 31 {
        return Ok(prefix);
    }
    let host_mask = u32::MAX >> prefix.length;
    let remedy = "give an address of a host within the network";
    match prefix.address.low32() & host_mask {
        0 => Err(Complaint::new(format!("{prefix} is the address of the network itself"), remedy)),
        host if host == host_mask => {
            Err(Complaint::new(format!("{prefix} is the network's broadcast address"), remedy))
        }
        _ => Ok(prefix),
    }
}

/// The destinations of a route.
pub(super) fn destination(value: &Value<'_>) -> Result<Prefix, Complaint> {
    let prefix = parse_prefix(string(value)?)?;
    if network(prefix) != prefix {
        let remedy = format!("write \"{}\"", network(prefix));
        return Err(Complaint::new(format!("{prefix} has bits set beyond its prefix length"), remedy));
    }
    Ok(prefix)
}

/// A unicast MAC address.
pub(super) fn mac(value: &Value<'_>) -> Result<MacAddr, Complaint> {
    let text = string(value)?;
    let octet = |part: &str| {
        let hexadecimal = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        u8::from_str_radix(part, 16).ok().filter(|_| hexadecimal)
    };
    let octets: Option<Vec<u8>> = text.split([':', '-']).map(octet).collect();
    let remedy = "write six pairs of hexadecimal digits, like \"02:00:00:00:00:01\"";
    let Some(octets) = octets.and_then(|octets| <[u8; 6]>::try_from(octets).ok()) else {
        return Err(Complaint::new(format!("{text:?} is not a MAC address"), remedy));
    };
    let mac = MacAddr(octets);
    if mac.is_multicast() || octets == [0; 6] {
        return Err(Complaint::new(format!("{mac} is not the address of one host"), remedy));
    }
    Ok(mac)
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
pub(super) fn endpoint(value: &Value<'_>) -> Result<(Ip, Option<u16>), Complaint> {
    let text = string(value)?;
    if let Ok(socket) = text.parse::<SocketAddr>() {
        let address = parse_ip(&socket.ip().to_string()).and_then(require_host)?;
        if socket.port() == 0 {
            return Err(Complaint::new(
                "port 0 cannot be reached",
                "give a port from 1 to 65535, or none to keep the VIP's",
            ));
        }
        return Ok((address, Some(socket.port())));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let Ok(_) = bare.parse::<IpAddr>() else {
        let remedy = "write an address, \"10.0.1.11\" or \"fd00::1\", or with a port \"10.0.1.11:8080\" or \"[fd00::1]:8080\"";
        return Err(Complaint::new(format!("{text:?} is not an address, with or without a port"), remedy));
    };
    Ok((parse_ip(bare).and_then(require_host)?, None))
}

/// Where to listen.
pub(super) fn listen(value: &Value<'_>) -> Result<SocketAddr, Complaint> {
    let text = string(value)?;
    let remedy = "write an address and a port, like \"127.0.0.1:9095\" or \"[::1]:9095\"";
    text.parse().map_err(|_| Complaint::new(format!("{text:?} is not an address with a port"), remedy))
}

/// One port or a range of them: `80` or `"8000-8010"`.
pub(super) fn port_range(value: &Value<'_>) -> Result<RangeInclusive<u16>, Complaint> {
    let remedy = "give a port from 1 to 65535, or a range like \"8000-8010\"";
    let refuse = |found: &dyn Display| Complaint::new(format!("{found} is not a port"), remedy);
    if let Some(number) = value.as_integer() {
        let port = whole(value).and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
        return port.map(|port| port..=port).ok_or_else(|| refuse(number));
    }
    let Some(text) = value.as_str() else {
        return Err(Complaint::wrong_type("a port", value.type_str(), remedy));
    };
    let refuse = || refuse(&format_args!("{text:?}"));
    let parse = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(refuse);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse(first)?, parse(last)?);
    if first > last {
        return Err(Complaint::new(
            format!("the range {text:?} is backwards"),
            format!("write \"{last}-{first}\""),
        ));
    }
    Ok(first..=last)
}

/// The path of a Unix socket. The kernel's `sun_path` holds 108 bytes with the NUL (unix(7)).
pub(super) fn socket_path(value: &Value<'_>) -> Result<PathBuf, Complaint> {
    let text = verbatim(value)?;
    if !text.starts_with('/') {
        return Err(Complaint::new(format!("{text:?} is not an absolute path"), "start it with a slash"));
    }
    if text.len() > limits::SOCKET_PATH_MAX {
        let message = format!("the path has {} bytes", text.len());
        let remedy =
            format!("choose one of at most {} bytes; sockets can have no more", limits::SOCKET_PATH_MAX);
        return Err(Complaint::new(message, remedy));
    }
    Ok(PathBuf::from(text))
}

/// The path of a file.
pub(super) fn absolute_path(value: &Value<'_>) -> Result<PathBuf, Complaint> {
    let text = verbatim(value)?;
    if !text.starts_with('/') {
        return Err(Complaint::new(format!("{text:?} is not an absolute path"), "start it with a slash"));
    }
    Ok(PathBuf::from(text))
}

/// Permission bits in octal.
pub(super) fn file_mode(value: &Value<'_>) -> Result<u32, Complaint> {
    let remedy = "write permission bits in octal and in quotes, like \"0600\"";
    let text = value.as_str().ok_or_else(|| Complaint::wrong_type("a string", value.type_str(), remedy))?;
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= 0o777);
    mode.ok_or_else(|| Complaint::new(format!("{text:?} is not a file mode"), remedy))
}
