//! Tests of the offload engine from outside, in one program: it is built once, and its files share what they
//! need. The real engines and the whole-system simulation are programs of their own.

mod frames;
mod support {
    pub(crate) mod device;
    pub(crate) mod world;
}

mod agreement;
mod enforce;
mod hitters;
mod machine;
mod meters;
mod partitions;
