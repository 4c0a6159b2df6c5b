//! Tests of the table as a whole.

mod support;
mod table;
