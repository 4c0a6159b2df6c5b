//! Log lines: `tracing`, as text or JSON, to standard error.

use dataplane::config::{Log, LogFormat, LogLevel};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging. `RUST_LOG` wins over the configuration, unless it is empty or cannot be read.
pub(crate) fn init(log: Log) {
    let level = match log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // An empty filter would let nothing but errors through.
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|text| !text.trim().is_empty());
    let asked = asked.map(EnvFilter::try_new).transpose();
    let ignored = asked.as_ref().err().map(ToString::to_string);
    let filter = asked.ok().flatten().unwrap_or_else(|| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
    }
    if let Some(error) = ignored {
        tracing::warn!("RUST_LOG is ignored: {error}");
    }
}
