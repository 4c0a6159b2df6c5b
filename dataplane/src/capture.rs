//! Which connections somebody wants to see all packets of.
//!
//! Every part of a [`Choice`] that is given must match; of its values, one. What hardware forwards of these
//! connections comes back to software for the time: see [`crate::worker::Worker::set_captured`].

use crate::addr::{Ip, Prefix};
use crate::ids::{ServiceId, TenantId};

/// One end: addresses, and a port or any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The addresses.
    pub prefix: Prefix,
    /// The port of TCP or UDP; `None` is any.
    pub port: Option<u16>,
}

impl End {
    /// Whether it is this one.
    #[must_use]
    pub fn is_at(&self, (ip, port): (Ip, u16)) -> bool {
        self.prefix.contains(ip) && self.port.is_none_or(|wanted| wanted == port)
    }
}

/// See the module's header. A part without values matches everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Choice {
    /// Tenants.
    pub tenants: Vec<TenantId>,
    /// Protocols, by their IANA numbers; beyond 255, by EtherType.
    pub protocols: Vec<u16>,
    /// Services.
    pub services: Vec<ServiceId>,
    /// Clients.
    pub clients: Vec<End>,
    /// Where clients send to.
    pub vips: Vec<End>,
    /// Backends.
    pub backends: Vec<End>,
}

/// What is known of a connection, or of a packet. Of a packet alone, either end may be the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject<'a> {
    /// Its tenant.
    pub tenant: TenantId,
    /// As in [`Choice::protocols`].
    pub protocol: u16,
    /// Its service, if it has one.
    pub service: Option<ServiceId>,
    /// Who may be the client,
    pub clients: &'a [(Ip, u16)],
    /// where it may have sent to,
    pub vips: &'a [(Ip, u16)],
    /// and who may be the backend.
    pub backends: &'a [(Ip, u16)],
}

impl Choice {
    /// Whether it says anything of connections.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Choice::default()
    }

    /// Whether this is wanted.
    #[must_use]
    pub fn takes(&self, subject: &Subject<'_>) -> bool {
        let Choice { tenants, protocols, services, clients, vips, backends } = self;
        let among = |wanted: &[End], ends: &[(Ip, u16)]| {
            wanted.is_empty() || ends.iter().any(|end| wanted.iter().any(|wanted| wanted.is_at(*end)))
        };
        (tenants.is_empty() || tenants.contains(&subject.tenant))
            && (protocols.is_empty() || protocols.contains(&subject.protocol))
            && (services.is_empty() || subject.service.is_some_and(|id| services.contains(&id)))
            && among(clients, subject.clients)
            && among(vips, subject.vips)
            && among(backends, subject.backends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ip {
        text.parse::<std::net::IpAddr>().expect("an address").into()
    }

    fn end(text: &str, length: u8, port: Option<u16>) -> End {
        End { prefix: Prefix { address: ip(text), length }, port }
    }

    #[test]
    fn every_part_must_match_and_one_value_of_each() {
        let (client, vip, backend) =
            ((ip("198.51.100.7"), 5555), (ip("192.0.2.80"), 80), (ip("10.0.1.11"), 8080));
        let subject = Subject {
            tenant: TenantId(1),
            protocol: 6,
            service: Some(ServiceId(3)),
            clients: &[client],
            vips: &[vip],
            backends: &[backend],
        };
        let all = Choice {
            tenants: vec![TenantId(0), TenantId(1)],
            protocols: vec![17, 6],
            services: vec![ServiceId(3)],
            clients: vec![end("198.51.100.0", 24, None)],
            vips: vec![end("192.0.2.80", 32, Some(443)), end("192.0.2.80", 32, Some(80))],
            backends: vec![end("10.0.1.11", 32, None)],
        };
        assert!(all.takes(&subject) && !all.is_any());
        assert!(Choice::default().takes(&subject) && Choice::default().is_any());
        let wrong: [fn(&mut Choice); 7] = [
            |choice| choice.tenants = vec![TenantId(2)],
            |choice| choice.protocols = vec![1],
            |choice| choice.services = vec![ServiceId(4)],
            |choice| choice.clients = vec![end("198.51.101.0", 24, None)],
            |choice| choice.clients = vec![end("::", 0, None)],
            |choice| choice.vips = vec![end("192.0.2.80", 32, Some(443))],
            |choice| choice.backends = vec![end("10.0.1.12", 32, None)],
        ];
        for (number, spoil) in wrong.into_iter().enumerate() {
            let mut choice = all.clone();
            spoil(&mut choice);
            assert!(!choice.takes(&subject), "{number}");
        }
        let unserved = Subject { service: None, ..subject };
        assert!(!all.takes(&unserved));
    }
}
