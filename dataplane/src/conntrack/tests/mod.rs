//! Tests of the table and its parts. The test against a model, which needs only what is public, is in
//! `tests/suite/table.rs`.

mod index;
mod pressure;
pub(super) mod support;
mod table;
mod tcp;
mod wheel;
