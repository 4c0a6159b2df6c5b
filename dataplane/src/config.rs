//! The configuration: one TOML file, parsed strictly into [`Config`].
