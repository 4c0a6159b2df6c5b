//! Tests of the model from outside, in one program: it is built once, and its files share what they need.

mod common;
mod support {
    pub(crate) mod machine;
    pub(crate) mod rich;
}

mod determinism;
mod dump;
mod faults;
mod hardware;
mod rich;
mod walk;
