//! What is captured, in words: `service=web client=198.51.100.0/24 protocol=tcp`.
//!
//! Terms stand side by side, and all of them must hold; of a term's values, which commas separate, one.

use crate::api::{Refusal, RefusalKind};
use dataplane::addr::{Ip, Prefix};
use dataplane::capture::{Choice, End};
use dataplane::config::Tenant;
use dataplane::drops::DropReason;
use dataplane::ids::{PortId, TenantId};
use dataplane::snapshot::Snapshot;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What ARP has in place of a protocol number: its EtherType.
pub(super) const ARP: u16 = 0x0806;

/// How filters are described. More is understood: IPv6, several values, drop reasons, protocols by number.
pub(super) const PATTERN: &str = concat!(
    r"^(((client|vip|backend)=(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}",
    r"(/([12]?\d|3[0-2])|:[1-9]\d{0,3})?|(service|port|tenant)=[A-Za-z0-9_.-]{1,32}|",
    r"protocol=(tcp|udp|icmp|icmpv6|arp)|dropped)( (service|port)=[A-Za-z0-9_.-]{1,32})?)?$",
);

const TERMS: &str = "client=, vip=, backend= (addresses, prefixes, address:port), service=, port=, tenant= \
                     (names), protocol= (tcp, udp, icmp, icmpv6, arp or a number), dropped, dropped=REASON";

/// A filter that is understood.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Filter {
    /// What is said of connections.
    pub(super) choice: Arc<Choice>,
    /// At these ports; empty is all.
    pub(super) ports: Vec<PortId>,
    /// Only what is dropped, and for these reasons; empty is any.
    pub(super) dropped: Option<Vec<DropReason>>,
}

impl Filter {
    /// The filter that `text` says, with names as `snapshot` and `tenants` have them.
    ///
    /// # Errors
    ///
    /// What is not understood, or a name that does not exist.
    pub(super) fn parse(text: &str, snapshot: &Snapshot, tenants: &[Tenant]) -> Result<Filter, Refusal> {
        let (mut filter, mut choice) = (Filter::default(), Choice::default());
        for term in text.split_whitespace() {
            let (key, values) = term.split_once('=').unwrap_or((term, ""));
            let values = || values.split(',');
            match key {
                "client" => extend(&mut choice.clients, values(), end)?,
                "vip" => extend(&mut choice.vips, values(), end)?,
                "backend" => extend(&mut choice.backends, values(), end)?,
                "protocol" => extend(&mut choice.protocols, values(), protocol)?,
                "service" => extend(&mut choice.services, values(), |name| {
                    let service = snapshot.services.iter().flatten().find(|service| service.name == name);
                    service.map(|service| service.id).ok_or_else(|| unknown("service", name))
                })?,
                "tenant" => extend(&mut choice.tenants, values(), |name| {
                    let at = tenants.iter().position(|tenant| tenant.name == name);
                    at.map(|at| TenantId(at as u16)).ok_or_else(|| unknown("tenant", name))
                })?,
                "port" => extend(&mut filter.ports, values(), |name| {
                    let at = snapshot.ports.iter().position(|port| port.name == name);
                    at.map(|at| PortId(at as u16)).ok_or_else(|| unknown("port", name))
                })?,
                "dropped" if term == "dropped" => drop(filter.dropped.get_or_insert_default()),
                "dropped" => extend(filter.dropped.get_or_insert_default(), values(), reason)?,
                _ => return Err(malformed(format!("filter: `{term}` is no term; there are {TERMS}"))),
            }
        }
        filter.choice = Arc::new(choice);
        Ok(filter)
    }
}

fn malformed(error: String) -> Refusal {
    Refusal::new(RefusalKind::Malformed, error)
}

fn unknown(what: &str, name: &str) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("filter: there is no {what} `{name}`"))
}

fn extend<'t, T>(
    list: &mut Vec<T>,
    values: impl Iterator<Item = &'t str>,
    read: impl Fn(&str) -> Result<T, Refusal>,
) -> Result<(), Refusal> {
    values.map(read).try_for_each(|value| {
        list.push(value?);
        Ok(())
    })
}

/// `10.0.0.1`, `10.0.0.1:80`, `10.0.0.0/8`, and the same of IPv6.
fn end(text: &str) -> Result<End, Refusal> {
    let bad = || malformed(format!("filter: `{text}` is no address, address:port or prefix"));
    if let Ok(full) = text.parse::<SocketAddr>() {
        return Ok(End { prefix: whole(full.ip()), port: Some(full.port()) });
    }
    let Some((address, length)) = text.split_once('/') else {
        return text.parse().map(|ip| End { prefix: whole(ip), port: None }).map_err(|_| bad());
    };
    let most = whole(address.parse().map_err(|_| bad())?);
    let length = length.parse().ok().filter(|length| *length <= most.length).ok_or_else(bad)?;
    Ok(End { prefix: Prefix { length, ..most }, port: None })
}

fn whole(ip: IpAddr) -> Prefix {
    Prefix { address: Ip::from(ip), length: if ip.is_ipv4() { 32 } else { 128 } }
}

fn protocol(text: &str) -> Result<u16, Refusal> {
    match text {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "icmp" => Ok(1),
        "icmpv6" => Ok(58),
        "arp" => Ok(ARP),
        number => number.parse::<u8>().map(u16::from).map_err(|_| {
            malformed(format!(
                "filter: `{number}` is no protocol; there are tcp, udp, icmp, icmpv6, arp, numbers"
            ))
        }),
    }
}

fn reason(text: &str) -> Result<DropReason, Refusal> {
    let known = DropReason::ALL.iter().find(|reason| reason.label() == text);
    known.copied().ok_or_else(|| {
        malformed(format!("filter: `{text}` is no reason; `millrace show drops --all` lists them"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::snapshot::Parts;

    fn parse(text: &str) -> Result<Filter, String> {
        let snapshot = Snapshot::assemble(Parts::default()).expect("empty");
        Filter::parse(text, &snapshot, &[]).map_err(|refusal| refusal.error)
    }

    #[test]
    fn terms_are_read() {
        assert_eq!(parse("  "), Ok(Filter::default()));
        let filter =
            parse("client=10.0.0.0/8,[2001:db8::1]:53 vip=192.0.2.1:80 protocol=tcp,47,arp").expect("read");
        let Choice { clients, vips, protocols, .. } = &*filter.choice;
        let text = |end: &End| format!("{} {:?}", end.prefix, end.port);
        assert_eq!(
            clients.iter().map(text).collect::<Vec<_>>(),
            ["10.0.0.0/8 None", "2001:db8::1/128 Some(53)"]
        );
        assert_eq!(vips.iter().map(text).collect::<Vec<_>>(), ["192.0.2.1/32 Some(80)"]);
        assert_eq!(protocols, &[6, 47, ARP]);
        assert_eq!(parse("dropped").expect("read").dropped, Some(vec![]));
        let reasons = parse("dropped=policy_denied,no_route").expect("read").dropped.expect("reasons");
        assert_eq!(
            reasons.iter().map(|reason| reason.label()).collect::<Vec<_>>(),
            ["policy_denied", "no_route"]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("host=10.0.0.1", "`host=10.0.0.1` is no term"),
            ("client", "`` is no address"),
            ("client=10.0.0.1,", "`` is no address"),
            ("client=10.0.0.0/33", "`10.0.0.0/33` is no address"),
            ("protocol=sctpp", "`sctpp` is no protocol"),
            ("dropped=never", "`never` is no reason"),
            ("dropped=", "`` is no reason"),
            ("service=web", "no service `web`"),
            ("port=wan tenant=a", "no port `wan`"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(named), "{error}");
        }
    }
}
