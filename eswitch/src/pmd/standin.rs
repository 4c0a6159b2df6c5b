//! In the model's place until it is there: a device without rules, where everything misses.

use dataplane::packet::{Burst, PacketBuf};

use crate::model::refusal::Refusal;
use crate::model::switch::{DropReason, Statistics};
use crate::model::types::{Tick, Vport};

/// How a representor receives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct RxConfig {
    pub(super) mac: [u8; 6],
    pub(super) promiscuous: bool,
    pub(super) all_multicast: bool,
    pub(super) isolated: bool,
    pub(super) queues: u16,
    pub(super) hairpin: Vec<(u16, Vport)>,
}

/// What comes with a packet to a receive queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RxMeta {
    pub(super) queue: u16,
    pub(super) mark: Option<u32>,
    pub(super) meta: u32,
}

/// What the application is to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    FlowAged(Vport),
}

/// Where packets leave the device.
pub(super) trait Fabric<B> {
    fn transmit(&mut self, to: Vport, packet: B);
    fn receive(&mut self, at: Vport, meta: RxMeta, packet: B);
    fn copy(&mut self, packet: &B) -> Option<B>;
    fn discard(&mut self, reason: DropReason, packet: B);
}

/// The device.
pub(super) struct Eswitch {
    started: Vec<Option<RxConfig>>,
    statistics: Statistics,
}

impl Eswitch {
    pub(super) fn new(vports: usize) -> Eswitch {
        Eswitch { started: vec![None; vports], statistics: Statistics::new(vports) }
    }

    pub(super) fn start(&mut self, _now: Tick, port: Vport, rx: RxConfig) -> Result<(), Refusal> {
        self.configure_rx(port, rx);
        Ok(())
    }

    pub(super) fn configure_rx(&mut self, port: Vport, rx: RxConfig) {
        self.started[usize::from(port.0)] = Some(rx);
    }

    pub(super) fn stop(&mut self, _now: Tick, port: Vport) -> Result<(), Refusal> {
        self.started[usize::from(port.0)] = None;
        Ok(())
    }

    pub(super) fn forward<B: PacketBuf, F: Fabric<B>>(
        &mut self,
        _now: Tick,
        source: Vport,
        from_manager: bool,
        packets: &mut Burst<B>,
        fabric: &mut F,
    ) {
        for packet in packets.drain(..) {
            let vport = &mut self.statistics.vports[usize::from(source.0)];
            if from_manager {
                vport.manager_packets += 1;
                fabric.transmit(source, packet);
            } else if self.started[usize::from(source.0)].is_some() {
                vport.in_packets += 1;
                vport.received_packets += 1;
                fabric.receive(source, RxMeta { queue: 0, mark: None, meta: 0 }, packet);
            } else {
                vport.in_packets += 1;
                self.statistics.dropped(DropReason::RxStopped);
                fabric.discard(DropReason::RxStopped, packet);
            }
        }
    }

    pub(super) fn admit(&mut self, _now: Tick, want: usize) -> usize {
        want
    }

    pub(super) fn advance(&mut self, _now: Tick) -> bool {
        false
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        Vec::new()
    }

    pub(super) fn statistics(&self) -> &Statistics {
        &self.statistics
    }
}
