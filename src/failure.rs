//! Why a command failed, and what the shell is told.

use dataplane::config::Faults;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The configuration has faults.
    #[error("{0}")]
    Faulty(Faults),
    /// The configuration cannot be read, or cannot be put in force.
    #[error("{0}")]
    Config(String),
    /// Faults of a configuration, told already.
    #[error("")]
    Reported,
    /// `plan`: a limit is exceeded, as told already.
    #[error("")]
    Exceeded,
    /// The control socket or the metrics address.
    #[error(transparent)]
    Bind(#[from] crate::socket::BindError),
    /// DPDK would not start.
    #[error(
        "{0}; DPDK's own lines above say why (if it is huge pages: reserve some, or see [dpdk] hugepages)"
    )]
    Eal(#[from] dpdk::EalError),
    /// A port has no device.
    #[error(transparent)]
    Device(#[from] crate::devices::DeviceError),
    /// A port would not open.
    #[error(transparent)]
    Ports(#[from] crate::ports::PortsError),
    /// The configuration does not fit the ports.
    #[error(transparent)]
    Snapshot(#[from] dataplane::snapshot::BuildError),
    /// A worker would not start.
    #[error(transparent)]
    Crew(#[from] crate::runtime::crew::CrewError),
    /// What went about the configuration has a fault of ours.
    #[error(
        "a fault of Millrace's own, which has stopped what was begun: {0}; please report it with the configuration"
    )]
    Panicked(#[from] crate::panics::Panicked),
    /// A thread or a signal handler could not be set up.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// Anything else, told for a person.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// Says what is wrong on standard error; gives the exit code: 2 for what the user wrote, 3 for
    /// a plan that does not fit, 1 otherwise.
    pub(crate) fn report(self) -> ExitCode {
        match &self {
            Failure::Reported | Failure::Exceeded => {}
            Failure::Faulty(faults) => eprint!("{faults}"),
            other => eprintln!("millrace: {other}"),
        }
        match self {
            Failure::Faulty(_) | Failure::Config(_) | Failure::Reported => ExitCode::from(2),
            Failure::Exceeded => ExitCode::from(3),
            _ => ExitCode::FAILURE,
        }
    }
}
