//! Safe owners of the DPDK things that Millrace uses, and nothing else of DPDK's.
//!
//! Who must outlive whom is in the lifetimes, so tearing down out of order does not compile:
//!
//! ```text
//! Eal ── ThreadGuard<'eal>             a thread with an lcore id, hence a mempool cache
//!  ├──── Mempool<'eal>                 packet buffers of one NUMA socket
//!  └──── Device<'eal> ─configure─▶ Port<'pool> ─start─▶ RxQueue<'port>, TxQueue<'port>
//!                                                        Flows<'port> or FlowQueue<'port>
//! ```
//!
//! The one thing without a lifetime is [`Mbuf`], because packets cross threads in queues of all kinds;
//! [`Mempool`] says how it stays sound. In reading order: [`eal`], [`mempool`], [`mbuf`], [`device`],
//! [`configure`], [`port`], [`queue`], [`flow`], [`rss`], [`clock`], [`huge`]; and [`hash`], to be measured
//! against.

pub mod clock;
pub mod configure;
pub mod device;
pub mod eal;
mod errno;
pub mod flow;
pub mod hash;
pub mod huge;
pub mod mbuf;
pub mod mempool;
pub mod port;
pub mod queue;
pub mod rss;

pub use configure::{ConfigureError, Granted, HairpinPeer, PortConfig};
pub use device::{Device, ProbeError};
pub use eal::{Eal, EalError, ThreadGuard};
pub use errno::Errno;
pub use flow::{FlowError, FlowPort, FlowQueue, Flows};
pub use huge::HugePages;
pub use mbuf::Mbuf;
pub use mempool::{Mempool, MempoolError, PoolConfig};
pub use port::{ControlError, Link, Port, PortStats, StartError, StopError};
pub use queue::{QueueError, RxQueue, TxQueue};
pub use rss::{Rss, RssTable};
