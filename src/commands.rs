//! The commands that talk to a running Millrace, and `check`.

use crate::api::{BackendName, BackendRow, Changed, ConnectionQuery, Connections, DropRow, NeighbourRow};
use crate::api::{HistoryRow, MeterRow, Reloaded};
use crate::api::{OffloadRow, PortRow, RefusalKind, RuleQuery, Rules, ServiceRow, VersionInfo, WorkerRow};
use crate::cli::{BackendArgs, Cli, ConnectionArgs, RuleArgs, Show, TraceArgs};
use crate::client::{Client, ClientError};
use crate::policy::PolicyRow;
use crate::tenants::TenantRow;
use crate::trace::{TraceQuery, TraceRow};
use crate::{Failure, output, trace, version};
use dataplane::config::{Config, Fault, Faults, Severity};
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// Prints to standard output. Whoever reads it may leave early (`| head`), which is no failure.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

pub(crate) fn print_json(value: &impl Serialize) {
    // Serialising our own plain rows to memory cannot fail.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    print(&(text + "\n"));
}

/// The configuration in `file`, and the text it comes from.
pub(crate) fn read(file: &Path) -> Result<(Config, String), Failure> {
    let name = file.display().to_string();
    let text = text_of(file).map_err(|error| Failure::Config(format!("configuration {name}: {error}")))?;
    let config = Config::parse(&name, &text).map_err(Failure::Faulty)?;
    Ok((config, text))
}

/// What is in `file`. Whoever opens a pipe or a device waits until somebody writes, and may read for ever.
pub(crate) fn text_of(file: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(file).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a directory" } else { "a pipe, socket or device" };
        return Err(format!("this is {what}; name a regular file"));
    }
    std::fs::read_to_string(file).map_err(|error| error.to_string())
}

/// Puts what is wrong or odd into the log, a line each.
pub(crate) fn log_faults(faults: &Faults) {
    for Fault { severity, line, path, message, remedy, .. } in &faults.faults {
        let file = &faults.file;
        match severity {
            Severity::Error => tracing::error!("{file}:{line}: {path}: {message} ({remedy})"),
            Severity::Warning => tracing::warn!("{file}:{line}: {path}: {message} ({remedy})"),
        }
    }
}

/// `check`: all faults and warnings, or a line that there are none.
pub(crate) fn check(file: &Path, json: bool) -> Result<(), Failure> {
    let config = read(file).map(|(config, _)| config);
    let faults = match &config {
        Ok(config) => &config.warnings,
        Err(Failure::Faulty(faults)) => faults,
        Err(_) => return config.map(drop),
    };
    if json {
        print_json(faults);
    } else if faults.faults.is_empty() {
        print(&format!("{}: good\n", file.display()));
    } else {
        print(&faults.to_string());
    }
    config.map(drop).map_err(|_| Failure::Reported)
}

/// `show`.
pub(crate) fn show(cli: &Cli, what: &Show) -> Result<(), Failure> {
    let client = Client::new(cli.socket());
    match what {
        Show::Policy => table(cli, client.get::<Vec<PolicyRow>>("/v1/policy")?, |r| output::policy(r)),
        Show::Tenants => table(cli, client.get::<Vec<TenantRow>>("/v1/tenants")?, |r| output::tenants(r)),
        Show::Services => table(cli, client.get::<Vec<ServiceRow>>("/v1/services")?, |r| output::services(r)),
        Show::Backends { service } => {
            let mut rows: Vec<BackendRow> = client.get("/v1/backends")?;
            rows.retain(|row| service.as_ref().is_none_or(|service| *service == row.service));
            table(cli, rows, |rows| output::backends(rows));
        }
        Show::Connections(filter) => {
            let found: Connections = client.get(&connections_path(filter))?;
            table(cli, found, output::connections);
        }
        Show::Ports => table(cli, client.get::<Vec<PortRow>>("/v1/ports")?, |rows| output::ports(rows)),
        Show::Workers => table(cli, client.get::<Vec<WorkerRow>>("/v1/workers")?, |r| output::workers(r)),
        Show::Meters => table(cli, client.get::<Vec<MeterRow>>("/v1/meters")?, |rows| output::meters(rows)),
        Show::Drops { all } => {
            table(cli, client.get::<Vec<DropRow>>("/v1/drops")?, |rows| output::drops(rows, *all));
        }
        Show::Neighbours => {
            table(cli, client.get::<Vec<NeighbourRow>>("/v1/neighbours")?, |rows| output::neighbours(rows));
        }
        Show::Offload => table(cli, client.get::<OffloadRow>("/v1/offload")?, output::offload),
        Show::Rules(filter) => table(cli, client.get::<Rules>(&rules_path(filter))?, output::rules),
    }
    Ok(())
}

pub(crate) fn table<T: Serialize>(cli: &Cli, rows: T, render: impl Fn(&T) -> String) {
    if cli.json { print_json(&rows) } else { print(&render(&rows)) }
}

fn connections_path(filter: &ConnectionArgs) -> String {
    let query = ConnectionQuery {
        service: filter.service.clone(),
        client: filter.client,
        backend: filter.backend,
        protocol: filter.protocol,
        limit: Some(filter.limit),
    };
    // Strings, addresses and numbers: nothing that cannot be written as a query.
    format!("/v1/connections?{}", serde_urlencoded::to_string(&query).unwrap_or_default())
}

fn rules_path(filter: &RuleArgs) -> String {
    let query = RuleQuery {
        service: filter.service.clone(),
        client: filter.client,
        backend: filter.backend,
        limit: Some(filter.limit),
    };
    format!("/v1/rules?{}", serde_urlencoded::to_string(&query).unwrap_or_default())
}

/// `trace`, by the running Millrace or by a file.
pub(crate) fn trace(cli: &Cli, args: &TraceArgs) -> Result<(), Failure> {
    let TraceArgs { flow, port, tcp_flags, size, ttl, config } = args;
    let (port, tcp_flags) = (port.clone(), tcp_flags.clone());
    let query = TraceQuery { flow: flow.clone(), port, tcp_flags, size: *size, ttl: *ttl };
    let row = match config {
        Some(file) => {
            let (config, text) = read(file)?;
            trace::offline(&config, &text, &query).map_err(ClientError::Refused)?
        }
        None => {
            let query = serde_urlencoded::to_string(&query).unwrap_or_default();
            Client::new(cli.socket()).get::<TraceRow>(&format!("/v1/trace?{query}"))?
        }
    };
    table(cli, row, output::trace);
    Ok(())
}

/// `drain` and `undrain`, by the API's path.
pub(crate) fn change_backend(cli: &Cli, path: &str, backend: &BackendArgs) -> Result<(), Failure> {
    let name = BackendName { service: backend.service.clone(), backend: backend.backend.clone() };
    changed(cli, Client::new(cli.socket()).post(path, &name)?)
}

/// `reload`.
pub(crate) fn reload(cli: &Cli, dry_run: bool) -> Result<(), Failure> {
    let query = if dry_run { "?dry_run=true" } else { "" };
    let reloaded: Reloaded = Client::new(cli.socket()).post(&format!("/v1/reload{query}"), &())?;
    table(cli, reloaded, output::reloaded);
    Ok(())
}

/// `apply`.
pub(crate) fn apply(cli: &Cli, file: &Path, dry_run: bool) -> Result<(), Failure> {
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).map_err(|error| error.to_string())
    } else {
        text_of(file)
    };
    let text = text.map_err(|error| Failure::Config(format!("configuration {}: {error}", file.display())))?;
    let query = if dry_run { "?dry_run=true" } else { "" };
    let applied: Reloaded = Client::new(cli.socket()).upload(&format!("/v1/config{query}"), text)?;
    table(cli, applied, output::reloaded);
    Ok(())
}

/// `history`.
pub(crate) fn history(cli: &Cli) -> Result<(), Failure> {
    let rows: Vec<HistoryRow> = Client::new(cli.socket()).get("/v1/history")?;
    table(cli, rows, |rows| output::history(rows));
    Ok(())
}

fn changed(cli: &Cli, change: Changed) -> Result<(), Failure> {
    table(cli, change, |change| format!("{} (generation {})\n", change.message, change.generation));
    Ok(())
}

/// `version`: ours, and the running one's if there is one.
pub(crate) fn version(cli: &Cli) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Versions {
        version: &'static str,
        commit: &'static str,
        running: Option<VersionInfo>,
    }
    let running = match Client::new(cli.socket()).get("/v1/version") {
        Ok(info) => Some(info),
        Err(ClientError::NotRunning(_) | ClientError::NotAllowed(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let versions = Versions { version: version::VERSION, commit: version::COMMIT, running };
    table(cli, versions, |versions| {
        let running = versions.running.as_ref().map_or(String::new(), output::version);
        format!("millrace {}\n{running}", version::SHORT)
    });
    Ok(())
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        match error {
            ClientError::Refused(refusal) => {
                let mut text = refusal.error.clone();
                for fault in &refusal.faults {
                    text += "\n";
                    text += fault.trim_end();
                }
                if refusal.kind == RefusalKind::Faulty { Failure::Config(text) } else { Failure::Other(text) }
            }
            other => Failure::Other(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Transport;

    #[test]
    fn only_regular_files_are_read() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let error = |path: &Path| text_of(path).expect_err("not a file");
        assert_eq!(error(directory.path()), "this is a directory; name a regular file");
        assert_eq!(error(Path::new("/dev/zero")), "this is a pipe, socket or device; name a regular file");
        assert!(error(&directory.path().join("none")).contains("No such file"));
        let file = directory.path().join("file");
        std::fs::write(&file, "text").expect("written");
        assert_eq!(text_of(&file).as_deref(), Ok("text"));
    }

    #[test]
    fn filters_become_a_query() {
        let filter = ConnectionArgs {
            service: Some("a&b".into()),
            client: Some("2001:db8::1".parse().expect("address")),
            protocol: Some(Transport::Tcp),
            limit: "5".parse().expect("limit"),
            ..ConnectionArgs::default()
        };
        let path = "/v1/connections?service=a%26b&client=2001%3Adb8%3A%3A1&protocol=tcp&limit=5";
        assert_eq!(connections_path(&filter), path);
    }
}
