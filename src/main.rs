//! Millrace: a stateful L4 load balancer on DPDK.
//!
//! This page has the order of things: which command does what, and how `run` starts and stops. The packets'
//! way is in [`dataplane::worker`]; the threads that walk it are in [`runtime`]; everything else happens in
//! the [`manager`], which [`control`] asks.

mod access;
mod api;
mod beside;
mod capacity;
mod capture;
mod cli;
mod client;
mod clock;
mod commands;
mod control;
mod denials;
mod devices;
mod eal;
mod engine;
mod failure;
mod hairpins;
mod health;
mod history;
mod http;
mod inbox;
mod lobby;
mod logging;
mod manager;
mod memory;
mod meters;
mod metrics;
mod offloading;
mod output;
mod pages;
mod panics;
mod partitions;
mod plan;
mod policy;
mod ports;
mod reload;
mod rows;
mod runtime;
mod server;
mod socket;
mod tenants;
mod top;
mod totals;
mod trace;
mod verdicts;
mod version;
mod watch;

use clap::Parser;
use cli::{Cli, Command};
use clock::Clock;
use control::Listeners;
use dataplane::snapshot::{Overrides, Snapshot};
use dpdk::Eal;
use failure::Failure;
use health::Checker;
use manager::{Manager, Running};
use offloading::Offloading;
use runtime::crew::{Crew, Equipment};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

#[global_allocator]
static ALLOCATOR: dpdk::HugePages = dpdk::HugePages;

fn main() -> ExitCode {
    panics::install();
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Run(args) => run(&args.config, cli.socket.as_deref()),
        Command::Check { config } => commands::check(config, cli.json),
        Command::Show { what } => commands::show(&cli, what),
        Command::Drain(backend) => commands::change_backend(&cli, "/v1/drain", backend),
        Command::Undrain(backend) => commands::change_backend(&cli, "/v1/undrain", backend),
        Command::Reload { dry_run } => commands::reload(&cli, *dry_run),
        Command::Apply { config, dry_run } => commands::apply(&cli, config, *dry_run),
        Command::History => commands::history(&cli),
        Command::Trace(args) => commands::trace(&cli, args),
        Command::Top(args) => top::top(&cli, args),
        Command::Capture(args) => capture::capture(&cli, args),
        Command::Plan(args) => capacity::plan(&cli, args),
        Command::Partitions(args) => partitions::partitions(&cli, args),
        Command::Version => commands::version(&cli),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Starts everything in order, lets packets flow until a signal, and stops everything in reverse.
fn run(file: &Path, socket: Option<&Path>) -> Result<(), Failure> {
    let (config, text) = commands::read(file)?;
    logging::init(config.log);
    tracing::info!(config = %file.display(), "millrace {}", version::SHORT);
    commands::log_faults(&config.warnings);
    let cores = runtime::crew::cores(&config.workers)?;
    let main_core = eal::leave_workers_cores(&cores, &config.workers.cores);

    // Anything another process may hold comes first, while failing is cheap.
    let listeners = Listeners::bind(&config, socket)?;
    let (events, inbox) = mpsc::channel();
    server::watch_signals(events.clone())?;
    let eal = Eal::init(&eal::arguments(&config, main_core, ports::pools_bytes(&config)))?;
    let clock = Clock::new(dpdk::clock::rdtsc(), dpdk::clock::tsc_hz(&eal));
    let devices = devices::find(&eal, &config)?;
    let pools = ports::pools(&eal, &config, &devices)?;
    let mut ports = ports::open(&config, devices, &pools)?;
    let prepared = engine::prepare(&config, &mut ports);
    ports::start(&mut ports, &prepared)?;
    let owners = ports::steer(&mut ports, config.workers.cores.len() as u16)?;
    ports.iter().for_each(ports::OpenPort::log);
    let facts = ports::facts(&config, &ports);
    let snapshot = Arc::new(Snapshot::build(&config, &facts, &Overrides::default(), None, &|_| 0)?);
    let crew = Crew::new(&config, &snapshot);
    let (unit, engine) = engine::start(&config, &prepared, &ports, &snapshot, clock, main_core)
        .map_or_else(|why| (None, Err(why)), |(unit, engine)| (Some(unit), Ok(engine)));
    let checker = Checker::new(&ports, crew.counters(), clock, events.clone());
    let equipment = Equipment {
        eal: &eal,
        owners: &owners,
        ports: &ports,
        pools: &pools,
        snapshot: Arc::clone(&snapshot),
        offload: unit.as_ref().map(|unit| Arc::clone(&unit.shared().rings)),
        probes: checker.rings(),
        clock,
    };
    let running = Running {
        file: file.to_owned(),
        text,
        workers: crew.handles(),
        verdicts: crew.verdicts(),
        dpdk: dpdk::eal::version(),
        ports: &ports,
        pools: &pools,
        offloading: Offloading::new(engine, config.offload.engine),
        health: checker.shared(),
        config,
        facts,
        snapshot,
        owners: owners.clone(),
        clock,
    };
    let mut manager = Manager::new(running, inbox);
    let forward = || {
        crew.run(&equipment, || {
            let server = server::start(listeners, events)?;
            memory::log_tables();
            health::beside(checker, || manager.run());
            tracing::info!("stopping");
            server.stop();
            Ok(())
        })
    };
    let served = runtime::offload::beside(unit, &eal, forward);
    manager.log_totals();
    drop(manager);
    ports::stop(ports);
    served
}
