//! The two real engines on real ports: those of the software eSwitch's driver, in this process.
//!
//! Each of its wires is a ring that returns what it is given, so a packet that leaves by a wire comes in by
//! it: to get a packet to the uplink's wire it is sent on the uplink's port, and what a rule has sent out of
//! the host's wire comes in there, hits no other rule, and is received on the host's port.

#[path = "engines/bed.rs"]
mod bed;
#[path = "engines/denials.rs"]
mod denials;
#[path = "engines/life.rs"]
mod life;
#[path = "engines/meters.rs"]
mod meters;
#[path = "engines/speed.rs"]
mod speed;
#[path = "engines/trouble.rs"]
mod trouble;
#[path = "engines/tunnels.rs"]
mod tunnels;

use bed::Bed;
use dataplane::config::EngineChoice;
use dpdk::{Mempool, Port};
use offload::engine::open::NoEngine;
use offload::engine::{FlowEngine, Kind, open};

/// One test, because a process has one EAL.
#[test]
fn engines_keep_their_promises_on_a_driver() {
    let eal = bed::eal(&[
        "profile=ideal,dv_flow_en=1",
        "profile=ideal,dv_flow_en=2",
        "profile=ideal,dv_flow_en=1,faults=[refuse=0.3]",
        "profile=ideal,dv_flow_en=2,faults=[refuse=0.1,fail=0.2,reorder=0.2]",
        "profile=ideal,dv_flow_en=1,faults=[full_at=400]",
        "profile=ideal,dv_flow_en=2,faults=[full_at=400]",
        "profile=ideal,dv_flow_en=2,faults=[lose_completions=0.05]",
        "profile=ideal,dv_flow_en=2",
    ]);
    let pool = bed::pool(&eal);
    let mut devices = eal.devices();
    let mut ports = |number| bed::ports(&mut devices, number, &pool);

    for (number, kind) in [(0, Kind::Sync), (1, Kind::Template)] {
        on(ports(number), &pool, kind, |mut bed| {
            life::keeps_its_promises(&mut bed);
            meters::limit_what_passes(&mut bed);
            denials::are_dropped_and_counted(&mut bed);
            trouble::a_fence_is_up_when_its_rules_are_out(&mut bed, number);
            trouble::a_flush_puts_right(&mut bed, number);
        });
    }
    on(ports(2), &pool, Kind::Sync, trouble::refusals_leave_nothing);
    on(ports(3), &pool, Kind::Template, trouble::refusals_leave_nothing);
    on(ports(4), &pool, Kind::Sync, trouble::a_full_device_takes_again);
    on(ports(5), &pool, Kind::Template, trouble::a_full_device_takes_again);
    on(ports(6), &pool, Kind::Template, trouble::a_flush_ends_the_waiting);
    without_an_engine(ports(7));
    bed::leave_nothing();
}

/// Worth reading from a release build: `cargo test --release -p offload --features dpdk --test engines --
/// --ignored --nocapture`.
#[test]
#[ignore = "prints how fast engines are"]
fn speed_on_a_driver() {
    let eal = bed::eal(&["profile=ideal,dv_flow_en=1", "profile=ideal,dv_flow_en=2"]);
    let pool = bed::pool(&eal);
    let mut devices = eal.devices();
    for (number, kind) in [Kind::Sync, Kind::Template].into_iter().enumerate() {
        let ports = bed::ports(&mut devices, number, &pool);
        on(ports, &pool, kind, |bed| speed::is_printed(bed, &eal, kind.name()));
    }
    bed::leave_nothing();
}

/// Under hardware steering a port without a flow queue receives nothing, whatever engine is wanted; and one
/// that was refused is the reason why there is no engine.
fn without_an_engine(mut ports: [Port<'_>; 2]) {
    for choice in [EngineChoice::None, EngineChoice::Sync] {
        let [uplink, host] = &mut ports;
        let prepared = open::prepare(choice, bed::RULES_MAX, &mut [host, uplink]);
        assert_eq!(prepared.proxy(), None, "it is not for an engine");
        ports.iter_mut().for_each(|port| port.start().expect("the port starts"));
        let [uplink, host] = &ports;
        assert!(uplink.flow_queue().is_ok(), "the proxy has one");
        let none = open::open(&prepared, &[uplink, host], Vec::new()).expect_err("no engine");
        assert!(matches!(none, NoEngine::NotWanted | NoEngine::Sync(_)), "{none}");
        ports.iter_mut().rev().for_each(|port| port.stop().expect("the port stops"));
    }
    let [uplink, host] = &mut ports;
    // Refused to ports that have started.
    uplink.start().expect("the port starts");
    let prepared = open::prepare(EngineChoice::Auto, bed::RULES_MAX, &mut [host, uplink]);
    let none = open::open(&prepared, &[&*uplink], Vec::new()).expect_err("no engine");
    assert!(matches!(&none, NoEngine::Template(why) if why.what == "setting up a flow queue"), "{none}");
}

/// Starts ports and tries something on them; nothing is left when the engine is gone.
fn on<'a>(mut ports: [Port<'a>; 2], pool: &'a Mempool<'a>, kind: Kind, tried: impl FnOnce(Bed<'_>)) {
    let prepared = {
        let [uplink, host] = &mut ports;
        open::prepare(EngineChoice::Auto, bed::RULES_MAX, &mut [host, uplink])
    };
    ports.iter_mut().for_each(|port| port.start().expect("the port starts"));
    let why = ports[0].granted().hairpins_refused.as_deref().expect("it does without hairpin queues");
    assert!(why.contains("starting it"), "{why}");
    let bed = Bed::new(&prepared, &ports, pool);
    assert_eq!(bed.engine.traits().kind, kind);
    tried(bed);
    assert_eq!(bed::device_rules(&ports), 0, "the engine takes everything with it");
    let [uplink, host] = &mut ports;
    host.stop().expect("the port stops");
    uplink.stop().expect("the proxy stops last");
}
