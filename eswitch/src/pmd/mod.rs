//! The driver, `net_eswitch`: ports, wires and flow operations around the model.

mod ffi;
#[allow(dead_code, reason = "the operations that use it follow")]
mod flow;
