//! What this build is called.

/// `0.1.0 (1a2b3c4d5e6f)`: the version and the commit it was built from.
pub(crate) const SHORT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("MILLRACE_COMMIT"), ")");

/// The version alone.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit alone; `unknown` outside a git checkout.
pub(crate) const COMMIT: &str = env!("MILLRACE_COMMIT");
