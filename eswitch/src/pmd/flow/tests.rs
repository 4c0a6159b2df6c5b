//! Lists as applications write them, and lists that nobody should write.

mod actions;
mod cells;
mod encap;
mod errors;
mod items;
