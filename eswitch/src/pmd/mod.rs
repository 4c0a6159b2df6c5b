//! The driver, `net_eswitch`: ports, wires and flow operations around the model.

mod ffi;
