//! Where in its text the configuration speaks of services and backends.

use crate::rows;
use serde::Deserialize;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use toml::Spanned;

/// The lines, from 1, of what goes by a name.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    services: HashMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    line: usize,
    /// By their names in tables.
    backends: HashMap<String, usize>,
}

/// As much of the file as matters here.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    service: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    name: Spanned<String>,
    #[serde(default)]
    backend: Vec<Backend>,
}

#[derive(Deserialize)]
struct Backend {
    address: Spanned<String>,
}

impl Lines {
    /// Of a configuration that is in order; of any other there are none.
    pub(crate) fn new(text: &str) -> Lines {
        let Ok(file) = toml::from_str::<File>(text) else { return Lines::default() };
        let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let line = |at: usize| 1 + ends.partition_point(|end| *end < at);
        let place = |service: Service| {
            let backends = service.backend.into_iter();
            let backends = backends.map(|one| (name(one.address.get_ref()), line(one.address.span().start)));
            let place = Place { line: line(service.name.span().start), backends: backends.collect() };
            (service.name.into_inner(), place)
        };
        Lines { services: file.service.into_iter().map(place).collect() }
    }

    /// The line with a service's name.
    pub(super) fn service(&self, name: &str) -> Option<usize> {
        Some(self.services.get(name)?.line)
    }

    /// The line with the address of a service's backend.
    pub(super) fn backend(&self, service: &str, backend: &str) -> Option<usize> {
        self.services.get(service)?.backends.get(backend).copied()
    }
}

/// What a backend that is written like this is called.
fn name(address: &str) -> String {
    match (address.parse::<SocketAddr>(), address.parse::<IpAddr>()) {
        (Ok(full), _) => rows::endpoint(full.ip().into(), full.port()),
        (_, Ok(ip)) => rows::backend_name(ip.into(), None),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_their_lines() {
        let backend =
            "[[service.backend]]\naddress = \"10.0.0.2\"\n[[service.backend]]\naddress = \"10.0.0.2:80\"\n";
        let text = format!("[[service]]\nname = \"a\"\n{backend}\n# ä\n[[service]]\nname = \"b\"");
        let lines = Lines::new(&text);
        assert_eq!((lines.service("a"), lines.service("b"), lines.service("c")), (Some(2), Some(10), None));
        assert_eq!((lines.backend("a", "10.0.0.2"), lines.backend("a", "10.0.0.2:80")), (Some(4), Some(6)));
        assert_eq!(lines.backend("b", "10.0.0.2"), None);
    }
}
