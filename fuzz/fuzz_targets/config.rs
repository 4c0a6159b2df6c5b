//! Any text: it is a configuration in which everything fits together, or every fault has a place in it.

#![no_main]

use dataplane::config::{Config, Faults, Severity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::parse("fuzz.toml", text) {
        Ok(config) => {
            assert_eq!(config.warnings.count(Severity::Error), 0);
            check_references(&config);
            check_places(text, &config.warnings);
        }
        Err(faults) => {
            assert!(faults.count(Severity::Error) > 0);
            check_places(text, &faults);
        }
    }
});

/// What a `Config` promises to those who index by it.
fn check_references(config: &Config) {
    assert!(!config.ports.is_empty() && !config.workers.cores.is_empty());
    for port in &config.ports {
        assert!(port.tenant.index() < config.tenants.len());
        assert!(port.pass_to.is_none_or(|to| to.index() < config.ports.len()));
    }
    for service in &config.services {
        assert!(service.tenant.index() < config.tenants.len());
        assert!(!service.ports.is_empty());
        assert!(service.ports.is_sorted_by(|a, b| a.end() < b.start()));
        assert!(service.backends.iter().all(|backend| backend.address.is_v4() == service.vip.is_v4()));
    }
}

fn check_places(text: &str, faults: &Faults) {
    for fault in &faults.faults {
        let line = text.split('\n').nth(fault.line - 1).expect("the line is in the text");
        // One column past the end is where something is missing; one more is a carriage return.
        assert!((1..=line.chars().count() + 2).contains(&fault.column), "{fault:?}");
        assert!(!fault.message.is_empty() && !fault.remedy.is_empty(), "{fault:?}");
    }
    assert_eq!(faults.to_string().is_empty(), faults.is_empty());
}
