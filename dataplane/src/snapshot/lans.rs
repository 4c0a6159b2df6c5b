//! Which port a frame is for where several share a device.

use super::{Port, VlanTags};
use crate::ids::PortId;
use crate::wire::{ether, vlan};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// The ports on the devices of others, by that other's number and their own tags.
#[derive(Clone, Debug, Default)]
pub(super) struct Lans(HashMap<(PortId, VlanTags), PortId, FixedState>);

impl Lans {
    pub(super) fn new(ports: &[Port]) -> Lans {
        let numbered = ports.iter().zip(0u16..);
        let tagged = |(port, id): (&Port, u16)| Some(((port.parent?, port.vlan), PortId(id)));
        Lans(numbered.filter(|(port, _)| port.tunnel.is_none()).filter_map(tagged).collect())
    }

    /// The port for `frame`, which the device of `port` received; `None` if it is `port` itself, or nobody's.
    #[inline]
    pub(super) fn find(&self, port: PortId, frame: &[u8]) -> Option<PortId> {
        if self.0.is_empty() {
            return None;
        }
        let first = ether::Header::new(frame)?.ether_type();
        if !vlan::is_tpid(first) {
            return None;
        }
        let (tags, ..) = vlan::parse(frame, first).ok()?;
        self.0.get(&(port, tags)).copied()
    }
}
