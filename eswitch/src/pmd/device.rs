//! One device: what its ports share, how it comes and how it goes.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crossbeam::utils::CachePadded;

use super::clock::Clock;
use super::devargs::Devargs;
use super::drive::{Drive, End, RingStats, Rings};
use super::flow::{DeviceFlows, PortFlows};
use super::lock::Fair;
use super::log;
use super::pulse::Pulse;
use super::requests::{Presence, Requests};
use super::service::Service;
use super::wire::{self, State, Wire};
use super::{border, copy_name, ffi, port, telemetry};
use crate::model::faults::Faults;
use crate::model::profile::Profile;
use crate::model::switch::Eswitch;
use crate::model::types::{Role, Steering, Topology, Vport, VportInfo};
use crate::model::validate::Context;

/// Linux's errnos that probing answers with.
pub(super) const EINVAL: i32 = 22;
pub(super) const ENOMEM: i32 = 12;

/// Bytes of a wire's buffers behind the headroom: a frame of 2 KiB, and what an encapsulation may need
/// beyond the headroom (see `Packet::grow_front`).
const DATA_ROOM: u16 = 128 + 2048 + 128;

/// The longest frame that is sure to fit a wire's buffer after the longest encapsulation.
pub(super) const FRAME_MAX: u16 = 2048;

/// Buffers in a core's cache of the pool.
const CACHE: u32 = 256;

/// Vain attempts to drive after which a packet thread yields its core once.
const REFUSALS: u32 = 256;

/// Not a port number.
const NO_PORT: u16 = u16::MAX;

/// All devices of this process.
static DEVICES: Mutex<Vec<Arc<Switch>>> = Mutex::new(Vec::new());

/// What is known of a port without a lock.
pub(super) struct PortShared {
    pub(super) port_id: u16,
    pub(super) started: AtomicBool,
    /// The wire's ethdev while it runs; [`NO_PORT`] otherwise.
    wire: AtomicU16,
    /// A rule has aged, and the application was not told yet.
    pub(super) aged: AtomicBool,
    /// A fault holds its link down, until it is started again.
    pub(super) cut: AtomicBool,
    /// The application was told so.
    pub(super) cut_told: AtomicBool,
    /// The link has changed, and the application was not told yet.
    pub(super) turned: AtomicBool,
    /// The ethdev; null once it is closed.
    device: AtomicPtr<ffi::rte_eth_dev>,
}

impl PortShared {
    /// A port that is not started, whose wire has not appeared.
    fn new(device: *mut ffi::rte_eth_dev, port_id: u16) -> PortShared {
        PortShared {
            port_id,
            started: AtomicBool::new(false),
            wire: AtomicU16::new(NO_PORT),
            aged: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            cut_told: AtomicBool::new(false),
            turned: AtomicBool::new(false),
            device: AtomicPtr::new(device),
        }
    }
}

/// A device.
pub(super) struct Switch {
    /// The vdev's name.
    pub(super) name: String,
    pub(super) args: Devargs,
    pub(super) steering: Steering,
    pub(super) topology: Topology,
    /// What requests are judged by, without the model's lock.
    pub(super) context: Arc<Context>,
    pub(super) profile: Profile,
    pub(super) clock: Clock,
    /// What flow operations keep beside the model.
    pub(super) flow: DeviceFlows,
    /// The model. Control threads `lock` it, for short; what takes longer or is frequent they ask for.
    pub(super) eswitch: CachePadded<Fair<Eswitch>>,
    /// What they ask for.
    pub(super) requests: CachePadded<Requests<Eswitch>>,
    /// What moves packets.
    pub(super) plumbing: CachePadded<Fair<Drive>>,
    /// What is asked of it.
    pub(super) plumbing_requests: CachePadded<Requests<Drive>>,
    /// Who moves packets.
    pub(super) presence: CachePadded<Presence>,
    /// By vport.
    pub(super) ports: Vec<PortShared>,
    /// Runs of the service so far; 0: there is none.
    pub(super) beats: CachePadded<AtomicU64>,
    pub(super) domain_id: u16,
    /// Times that a packet thread found another one driving.
    refused: CachePadded<AtomicU32>,
    pool: AtomicPtr<ffi::rte_mempool>,
    owner: ffi::rte_eth_dev_owner,
    service: Service,
    pub(super) pulse: Pulse,
    /// Itself, for whoever comes with nothing but its address.
    pub(super) this: Weak<Switch>,
}

/// A port's private data (`dev_private`).
pub(super) struct PortPrivate {
    pub(super) switch: Arc<Switch>,
    pub(super) vport: Vport,
    pub(super) port_id: u16,
    /// Isolated mode: no default receive rules. Changes only while stopped.
    pub(super) isolated: AtomicBool,
    pub(super) promiscuous: AtomicBool,
    pub(super) all_multicast: AtomicBool,
    /// Values to subtract from the statistics: those at the last reset.
    pub(super) baseline: Mutex<Vec<u64>>,
    pub(super) rss: Mutex<port::Rss>,
    /// Templates and flow queues.
    pub(super) flow: PortFlows,
}

/// What an ethdev of this driver stands for.
///
/// # Safety
/// A live ethdev of this driver: one that ethdev passed to an operation of it.
pub(super) unsafe fn port_of<'a>(device: *mut ffi::rte_eth_dev) -> &'a PortPrivate {
    // SAFETY: the caller's promise; the private data is set before the port is announced, and goes with it.
    unsafe { &*(*(*device).data).dev_private.cast::<PortPrivate>() }
}

impl PortPrivate {
    /// What is known of this port without a lock.
    pub(super) fn shared(&self) -> &PortShared {
        &self.switch.ports[usize::from(self.vport.0)]
    }

    /// Receive queues that are configured, hairpin ones included; `None` for a port that is closed.
    pub(super) fn receive_queues(&self) -> Option<u16> {
        let device = self.shared().device();
        // SAFETY: an ethdev of this driver that is not closed has data.
        (!device.is_null()).then(|| unsafe { (*(*device).data).nb_rx_queues })
    }

    /// Whether it is started.
    pub(super) fn is_started(&self) -> bool {
        self.shared().started.load(Ordering::Acquire)
    }
}

impl PortShared {
    /// The ethdev of its wire, while that runs.
    pub(super) fn wire(&self) -> Option<u16> {
        Some(self.wire.load(Ordering::Acquire)).filter(|port| *port != NO_PORT)
    }

    /// The ethdev; null once it is closed.
    pub(super) fn device(&self) -> *mut ffi::rte_eth_dev {
        self.device.load(Ordering::Acquire)
    }
}

impl Switch {
    /// Whether this is the port through which transfer rules are made.
    pub(super) fn is_proxy(vport: Vport) -> bool {
        vport.0 == 0
    }

    /// Changes the faults in force.
    pub(super) fn set_faults(&self, faults: Faults) {
        let reset = faults.reset;
        let mut eswitch = self.eswitch.lock();
        eswitch.set_faults(self.clock.now(), faults);
        if reset {
            // Before anyone else gets a counter with the number of one that is gone.
            self.flow.forget();
        }
    }

    /// The seed of everything random.
    pub(super) fn seed(&self) -> u64 {
        self.args.seed
    }

    /// The pool that wires receive into.
    pub(super) fn pool(&self) -> *mut ffi::rte_mempool {
        self.pool.load(Ordering::Relaxed)
    }

    /// Moves packets, unless another thread does so already. True if something moved.
    #[inline]
    pub(super) fn drive(&self) -> bool {
        let Some(mut plumbing) = self.plumbing.try_lock() else {
            // Whoever drives may be waiting for this very core.
            if self.refused.fetch_add(1, Ordering::Relaxed) % REFUSALS == REFUSALS - 1 {
                std::thread::yield_now();
            }
            return false;
        };
        self.presence.enter(self.clock.now());
        let (moved, events) = plumbing.rounds(self);
        self.plumbing_requests.visit(&mut plumbing);
        self.presence.leave(self.clock.now());
        drop(plumbing);
        if !events.is_empty() {
            self.announce(&events);
        }
        moved
    }

    /// Has something done with the model: see [`Requests`].
    pub(super) fn ask<R: Send>(&self, body: impl FnOnce(&mut Eswitch) -> R + Send) -> R {
        self.requests.ask(&self.eswitch, &self.presence, &self.clock, body)
    }

    /// Has something done with what moves packets.
    pub(super) fn ask_plumbing<R: Send>(&self, body: impl FnOnce(&mut Drive) -> R + Send) -> R {
        self.plumbing_requests.ask(&self.plumbing, &self.presence, &self.clock, body)
    }

    /// Takes the wires that have appeared into service.
    pub(super) fn attend(&self) {
        let mut plumbing = self.plumbing.lock();
        for (end, port) in plumbing.ends.iter_mut().zip(&self.ports) {
            let State::Owned(wire) = end.wire.state else { continue };
            end.wire.state = match wire::start(wire, self.pool()) {
                Ok(state) => {
                    log::info(&format!("{}: wire {} runs", self.name, end.wire.name));
                    port.wire.store(wire, Ordering::Release);
                    state
                }
                Err((call, errno)) => {
                    let name = &end.wire.name;
                    log::error(&format!("{}: wire {name} does not start: {call}: errno {errno}", self.name));
                    State::Failed(wire)
                }
            };
        }
    }

    /// Makes an ethdev ours if it is one of our wires.
    fn adopt(&self, wire: u16) {
        let Some(name) = wire::name_of(wire) else { return };
        let mut plumbing = self.plumbing.lock();
        let Some(at) = plumbing.ends.iter().position(|end| end.wire.name == name) else { return };
        let end = &mut plumbing.ends[at];
        if end.wire.state != State::Missing {
            return;
        }
        if port::is_ours(wire) {
            // A ring of devices would wait for itself.
            let why = "a representor is no wire; join two devices with net_ring";
            log::error(&format!("{}: bad argument {name}: {why}", self.name));
            end.wire.state = State::Foreign(wire);
            return;
        }
        // SAFETY: checks the number; the owner is ours and is copied.
        let status = unsafe { ffi::rte_eth_dev_owner_set(wire, &raw const self.owner) };
        if status != 0 {
            log::error(&format!("{}: wire {name} belongs to someone else (errno {})", self.name, -status));
            end.wire.state = State::Foreign(wire);
            return;
        }
        end.wire.state = State::Owned(wire);
        // The uplink's representor has the address of the physical port, as on the hardware.
        if self.topology.is_uplink(Vport(at as u16)) {
            port::copy_address(wire, self.ports[at].device());
        }
    }

    /// Forgets a wire that goes away.
    fn lose(&self, wire: u16) {
        let mut plumbing = self.plumbing.lock();
        for (end, port) in plumbing.ends.iter_mut().zip(&self.ports) {
            if end.wire.state.port() == Some(wire) {
                log::warning(&format!("{}: wire {} is gone", self.name, end.wire.name));
                end.wire.clear();
                end.wire.state = State::Missing;
                port.wire.store(NO_PORT, Ordering::Release);
            }
        }
    }

    /// A port's ethdev is about to be closed: nobody reaches it from the side any more.
    pub(super) fn forget(&self, vport: Vport) {
        self.ports[usize::from(vport.0)].device.store(std::ptr::null_mut(), Ordering::Release);
        self.pulse.pause(self);
    }

    /// Ends everything that reaches the switch from outside its ports, and gives the wires back.
    fn retire(&self) {
        self.service.stop(self);
        self.pulse.end(self);
        let argument: *mut c_void = std::ptr::from_ref(self).cast_mut().cast();
        // SAFETY: our own callbacks; -EAGAIN says that one is running, so it is asked again.
        unsafe {
            for (event, callback) in EVENTS {
                let all = ffi::RTE_ETH_ALL as u16;
                while ffi::rte_eth_dev_callback_unregister(all, event, Some(callback), argument) == -11 {
                    std::thread::yield_now();
                }
            }
        }
        let mut plumbing = self.plumbing.lock();
        for end in &mut plumbing.ends {
            end.wire.clear();
            if let Some(wire) = end.wire.state.owned() {
                // SAFETY: the wire is ours; nobody polls it once the drive lock is held.
                unsafe {
                    ffi::rte_eth_dev_stop(wire);
                    ffi::rte_eth_dev_owner_unset(wire, self.owner.id);
                }
            }
            end.wire.state = State::Missing;
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let pool = self.pool();
        // SAFETY: the switch was the pool's only user but for packets still out; with any of these the pool
        // stays, and a device that comes later takes it over.
        unsafe {
            ffi::rte_eth_switch_domain_free(self.domain_id);
            if ffi::eswitch_pool_is_full(pool) != 0 {
                ffi::rte_mempool_free(pool);
            } else {
                log::info(&format!("{}: packets are still out, their pool stays", self.name));
            }
        }
    }
}

/// What a switch listens for on all ethdevs.
const EVENTS: [(ffi::rte_eth_event_type, unsafe extern "C" fn(u16, u32, *mut c_void, *mut c_void) -> i32);
    2] = [(ffi::RTE_ETH_EVENT_NEW, on_new), (ffi::RTE_ETH_EVENT_DESTROY, on_destroy)];

unsafe extern "C" fn on_new(port: u16, _event: u32, argument: *mut c_void, _result: *mut c_void) -> i32 {
    border::guard("new port", 0, || {
        // SAFETY: the switch outlives its callbacks, see `retire`.
        unsafe { &*argument.cast::<Switch>() }.adopt(port);
        0
    })
}

unsafe extern "C" fn on_destroy(port: u16, _event: u32, argument: *mut c_void, _result: *mut c_void) -> i32 {
    border::guard("port gone", 0, || {
        // SAFETY: the switch outlives its callbacks, see `retire`.
        unsafe { &*argument.cast::<Switch>() }.lose(port);
        0
    })
}

/// Makes a device and its ports.
///
/// # Errors
/// A positive errno; why is in the log.
pub(super) fn probe(vdev: *mut ffi::rte_vdev_device, name: &str, text: &str) -> Result<(), i32> {
    let args = Devargs::parse(text).map_err(|error| {
        log::error(&format!("{name}: {error}"));
        EINVAL
    })?;
    let roles = roles(&args);
    let (profile, faults) = resolve(name, &args)?;
    let devices = port::allocate(name, &roles)?;
    let switch = match assemble(name, args, profile, &roles, &devices) {
        Ok(switch) => switch,
        Err(errno) => {
            port::release(&devices);
            return Err(errno);
        }
    };
    if let Err(errno) = port::fill(vdev, &switch, &devices) {
        port::release(&devices);
        return Err(errno);
    }
    switch.set_faults(faults);
    introduce(&switch);
    port::announce(&devices);
    telemetry::register();
    log::notice(&format!(
        "{name}: a software model of a BlueField eSwitch, {} steering, ports {}",
        if switch.steering == Steering::Software { "software" } else { "hardware" },
        switch.ports.iter().map(|port| port.port_id.to_string()).collect::<Vec<_>>().join(", "),
    ));
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner).push(switch);
    Ok(())
}

/// The profile that was asked for, or the one that suits the steering, and the faults.
fn resolve(name: &str, args: &Devargs) -> Result<(Profile, Faults), i32> {
    let default = if args.steering == Some(Steering::Hardware) { "bf3-hws" } else { "bf2-sws" };
    let wanted = args.profile.as_deref().unwrap_or(default);
    let profile = load(wanted).map_err(|error| {
        log::error(&format!("{name}: bad argument profile={wanted}: {error}"));
        EINVAL
    })?;
    let faults = Faults::parse(args.faults.as_deref().unwrap_or_default()).map_err(|error| {
        log::error(&format!("{name}: bad argument faults: {error}"));
        EINVAL
    })?;
    Ok((profile, faults))
}

/// A built-in profile; with a slash in its name, the user's own.
fn load(wanted: &str) -> Result<Profile, String> {
    if wanted.contains('/') {
        let text = std::fs::read_to_string(wanted).map_err(|error| error.to_string())?;
        return Profile::parse(&text).map_err(|error| error.to_string());
    }
    Profile::named(wanted).ok_or_else(|| {
        let names = Profile::names().collect::<Vec<_>>().join(", ");
        format!("no such profile; there are {names}, and the path of one's own, with a slash in it")
    })
}

/// Rules that a device has memory for from the beginning; more of them take a packet thread's time.
const RESERVED_RULES: u32 = 16_384;

/// By what requests are judged: the profile, and what the user said.
fn judge(args: &Devargs, profile: &Profile, topology: Topology) -> Context {
    let mut context = profile.context(topology);
    context.steering = args.steering.unwrap_or(profile.steering);
    context.options.fdb_def_rule = args.fdb_def_rule;
    context.options.allow_duplicate_pattern = args.allow_duplicate_pattern;
    context.options.xmeta = args.xmeta;
    context.options.wire_to_wire = args.wire_to_wire.unwrap_or(context.options.wire_to_wire);
    context
}

/// Uplinks first, then the host's functions.
fn roles(args: &Devargs) -> Vec<Role> {
    let uplinks = (0..args.uplinks.len()).map(|number| Role::Uplink(number as u16));
    uplinks.chain((0..args.hosts.len()).map(|number| Role::Host(number as u16))).collect()
}

fn assemble(
    name: &str,
    args: Devargs,
    profile: Profile,
    roles: &[Role],
    devices: &[*mut ffi::rte_eth_dev],
) -> Result<Arc<Switch>, i32> {
    // SAFETY: the devices were allocated just now, so they have data.
    let port_ids: Vec<u16> = devices.iter().map(|device| unsafe { (*(**device).data).port_id }).collect();
    let vports =
        roles.iter().zip(&port_ids).map(|(role, port_id)| VportInfo { role: *role, port_id: *port_id });
    let topology = Topology::new(vports.collect());
    let (mut domain_id, mut owner) = (0, ffi::rte_eth_dev_owner::default());
    // SAFETY: both fill in the places given.
    if unsafe {
        ffi::rte_eth_switch_domain_alloc(&raw mut domain_id) != 0
            || ffi::rte_eth_dev_owner_new(&raw mut owner.id) != 0
    } {
        log::error(&format!("{name}: no switch domain or port owner left"));
        return Err(ENOMEM);
    }
    copy_name(&mut owner.name, name);
    let Some(pool) = make_pool(name, domain_id, args.mbufs) else {
        // SAFETY: allocated above.
        unsafe { ffi::rte_eth_switch_domain_free(domain_id) };
        return Err(ENOMEM);
    };
    let wires = args.uplinks.iter().chain(&args.hosts);
    let ends = wires.zip(&port_ids).map(|(wire, port_id)| End {
        wire: Wire::new(wire),
        rings: Rings::default(),
        stats: RingStats::default(),
        port_id: *port_id,
    });
    let plumbing = Fair::new(Drive::new(ends.collect(), pool));
    let ports = devices.iter().zip(&port_ids).map(|(device, port_id)| PortShared::new(*device, *port_id));
    let context = Arc::new(judge(&args, &profile, topology.clone()));
    let mut eswitch = Eswitch::new(Arc::clone(&context), &profile, args.seed);
    eswitch.reserve(RESERVED_RULES);
    Ok(Arc::new_cyclic(|this| Switch {
        name: name.to_owned(),
        steering: context.steering,
        topology,
        context,
        profile,
        clock: Clock::start(),
        flow: DeviceFlows::new(),
        eswitch: CachePadded::new(Fair::new(eswitch)),
        requests: CachePadded::new(Requests::new()),
        plumbing: CachePadded::new(plumbing),
        plumbing_requests: CachePadded::new(Requests::new()),
        presence: CachePadded::new(Presence::new()),
        ports: ports.collect(),
        beats: CachePadded::new(AtomicU64::new(0)),
        domain_id,
        refused: CachePadded::new(AtomicU32::new(0)),
        pool: AtomicPtr::new(pool),
        owner,
        service: Service::default(),
        pulse: Pulse::default(),
        this: Weak::clone(this),
        args,
    }))
}

/// Finds the wires that are there, waits for the others, and offers itself to service cores.
fn introduce(switch: &Arc<Switch>) {
    let argument: *mut c_void = Arc::as_ptr(switch).cast_mut().cast();
    for (event, callback) in EVENTS {
        // SAFETY: the switch outlives its callbacks, see `retire`.
        unsafe {
            ffi::rte_eth_dev_callback_register(ffi::RTE_ETH_ALL as u16, event, Some(callback), argument);
        }
    }
    for name in switch.args.uplinks.iter().chain(&switch.args.hosts) {
        if let Some(port) = wire::find(name) {
            switch.adopt(port);
        }
    }
    switch.attend();
    switch.service.start(switch);
    switch.pulse.start(switch);
}

/// The wires' buffers. A pool that an earlier device had to leave behind is taken over.
fn make_pool(name: &str, domain_id: u16, mbufs: u32) -> Option<*mut ffi::rte_mempool> {
    let pool_name = std::ffi::CString::new(format!("eswitch{domain_id}_{mbufs}")).ok()?;
    // SAFETY: a terminated name; the functions check everything else.
    let pool = unsafe {
        let old = ffi::rte_mempool_lookup(pool_name.as_ptr());
        if old.is_null() {
            let socket = ffi::rte_socket_id() as i32;
            ffi::rte_pktmbuf_pool_create(pool_name.as_ptr(), mbufs, CACHE, 0, DATA_ROOM, socket)
        } else {
            old
        }
    };
    if pool.is_null() {
        // SAFETY: reads the thread's errno.
        let errno = unsafe { ffi::eswitch_errno() };
        let mib = (u64::from(mbufs) * (u64::from(DATA_ROOM) + 192)) >> 20;
        log::error(&format!(
            "{name}: no memory for {mbufs} buffers, {mib} MiB (errno {errno}): give the EAL more memory, or \
             mbufs=N fewer"
        ));
        return None;
    }
    Some(pool)
}

/// All devices.
pub(super) fn all() -> Vec<Arc<Switch>> {
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Takes a device away.
pub(super) fn remove(name: &str) -> Result<(), i32> {
    let switch = {
        let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        let at = devices.iter().position(|switch| switch.name == name).ok_or(19)?;
        devices.remove(at)
    };
    switch.retire();
    let devices = switch.ports.iter().map(PortShared::device);
    let open: Vec<_> = devices.filter(|device| !device.is_null()).collect();
    port::close_all(&open);
    Ok(())
}
