//! The command line: what can be said to `millrace`, nothing of what it does.

use crate::api::{Limit, Transport};
use clap::{Args, Parser, Subcommand};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where the control socket is unless the configuration or `--socket` says otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/millrace/millrace.sock";

const EXAMPLES: &str = "\
Examples:
  millrace check /etc/millrace/millrace.toml        list every fault of a configuration
  millrace run --config /etc/millrace/millrace.toml forward packets until SIGINT or SIGTERM
  millrace show backends                            weights, states and live connections
  millrace show connections --client 198.51.100.7   what one client is connected to
  millrace show rules --service web                 what hardware forwards by itself
  millrace drain web 10.0.0.3:8080                  no new connections to that backend
  millrace reload --dry-run                         what the configuration file would change
  millrace trace '10.0.0.1:5555 -> 192.0.2.53:53/udp'  what becomes of a packet, and why
  millrace top                                      what flows right now
  millrace plan millrace.toml --profile bf3-hws     what hardware will take, and which limit comes first
  millrace capture -w web.pcapng service=web        packets as received and sent
  millrace reload                                   read the configuration again (so does SIGHUP)

Exit codes: 0 done, 1 failed, 2 wrong usage or a faulty configuration; of `plan`, 3 a limit is exceeded.";

const CAPTURES: &str = "\
Terms stand side by side, and all must hold; of values with commas between them, one:
  client=, vip=, backend=   an address, a prefix, or address:port
  service=, port=, tenant=  a name in the configuration
  protocol=                 tcp, udp, icmp, icmpv6, arp, or a number
  dropped, dropped=REASON   only what is dropped; `millrace show drops --all` lists the reasons

Examples:
  millrace capture -w web.pcapng service=web client=198.51.100.7
  millrace capture -w drops.pcapng --seconds 60 dropped
  millrace capture -w denied.pcapng dropped=policy_denied,policy_rejected port=front
  millrace capture -w - vip=192.0.2.80:443 protocol=tcp | tshark -r -";

const PLANS: &str = "\
Profiles: ideal, bf2-sws, bf3-hws, bf3-xenoflow, cx6dx, or a file (docs/eswitch.md). All are MODELs.

A mix is a TOML file of tables like this; of the first three, two give the third:
  [[service]]
  name = \"web\"
  connections = 200000          live ones
  new_per_second = 4000
  mean_life_s = 50
  packets_per_second = 80       of each connection, both directions
  frame_bytes = 512             without FCS
  handshake_ms = 50
  unanswered_per_second = 0     connections that never get beyond their first packet
  client = \"198.51.100.7\"     one that may connect, if the policy lets in only some

Examples:
  millrace plan millrace.toml --profile bf3-hws --connections 1000000 --new-per-second 20000
  millrace plan millrace.toml --profile bf2-sws --profile bf3-hws --mix friday.toml
  millrace plan millrace.toml --profile bf3-hws --live /run/millrace/millrace.sock
  millrace plan millrace.toml --profile ./mine.toml --snapshot metrics.prom";

/// Stateful L4 load balancer and network-policy dataplane on DPDK.
#[derive(Parser, Debug)]
#[command(name = "millrace", version = crate::version::SHORT, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    /// Control socket [default: /run/millrace/millrace.sock; for `run`, what the configuration says]
    #[arg(long, global = true, env = "MILLRACE_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Where a running Millrace is expected to listen.
    pub(crate) fn socket(&self) -> &Path {
        self.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET))
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start forwarding packets, and stay in the foreground
    Run(RunArgs),

    /// Validate a configuration file and list all its faults
    Check {
        /// The configuration file
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },

    /// Show what the running Millrace is doing
    Show {
        #[command(subcommand)]
        what: Show,
    },

    /// Stop giving a backend new connections; the ones it has go on
    ///
    /// Lasts until `undrain` or until Millrace stops; a reload does not end it.
    Drain(BackendArgs),

    /// End a `drain`
    Undrain(BackendArgs),

    /// Read the configuration file again; refused as a whole if it has a fault
    Reload {
        /// Only tell what would change, or why it would be refused
        #[arg(long)]
        dry_run: bool,
    },

    /// Put another configuration in force, as a reload would; refused as a whole if it has a fault
    ///
    /// Lasts until the next `reload` or SIGHUP, which read the file that Millrace was started with, or until
    /// Millrace stops: that file stays as it is.
    Apply {
        /// The configuration; `-` is standard input
        #[arg(value_name = "FILE")]
        config: PathBuf,
        /// Only tell what would change, or why it would be refused
        #[arg(long)]
        dry_run: bool,
    },

    /// Show the last changes of the configuration in force: when, by whom, and what
    History,

    /// Say what becomes of a packet, and why; nothing is sent
    ///
    /// The answer comes from the code that forwards, with the running configuration, connections and
    /// neighbours, or with --config of a Millrace that has just started with that file.
    Trace(TraceArgs),

    /// Watch what flows: rates of services and backends, drops, the share of hardware, workers
    ///
    /// `q` quits. Without a terminal, or with --json, it looks once.
    Top(TopArgs),

    /// Capture packets of chosen connections, as they are received and sent, into a pcapng file
    ///
    /// Connections in hardware that the filter chooses by client, VIP, backend, service, tenant or protocol
    /// come back to software for the time. Ends by itself, or with SIGINT.
    #[command(after_help = CAPTURES)]
    Capture(CaptureArgs),

    /// Say what a device will forward by itself, what that needs, and which limit is reached first
    ///
    /// Nothing is started: the code that offloads is run against a model of the device. Exit code 3 if the
    /// traffic exceeds a limit of a profile, or a service that hardware should take stays in software.
    #[command(after_help = PLANS)]
    Plan(PlanArgs),

    /// Say who has which partition of the services by source partition, and how even that is
    ///
    /// Nothing is started. With --addresses, how packets from these would be shared out.
    Partitions(PartitionsArgs),

    /// Print the version of this program and, if it runs, of the one behind the control socket
    Version,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = "/etc/millrace/millrace.toml")]
    pub(crate) config: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct PartitionsArgs {
    /// The configuration file
    #[arg(value_name = "CONFIG")]
    pub(crate) config: PathBuf,
    /// Addresses of clients, one a line, each with a count of packets behind it if that is not 1
    #[arg(long, value_name = "FILE")]
    pub(crate) addresses: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct TraceArgs {
    /// The packet: `10.0.0.1:5555 -> 192.0.2.53:53/udp` (tcp, udp, or icmp for a ping)
    #[arg(value_name = "FLOW")]
    pub(crate) flow: String,
    /// Port it comes in by [default: the one that leads back to its source]
    #[arg(long, value_name = "NAME")]
    pub(crate) port: Option<String>,
    /// TCP flags, letters of FSRPAU [default: S]
    #[arg(long, value_name = "FLAGS")]
    pub(crate) tcp_flags: Option<String>,
    /// Bytes of IP packet [default: no payload]
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: Option<u16>,
    /// TTL or hop limit [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) ttl: Option<u8>,
    /// By this configuration file, instead of the running Millrace
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct CaptureArgs {
    /// What to capture [default: all packets that come to software]
    #[arg(value_name = "TERM")]
    pub(crate) filter: Vec<String>,
    /// The file to write; `-` is standard output
    #[arg(long, short, value_name = "FILE")]
    pub(crate) write: PathBuf,
    /// End after so many packets [default: 10000]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) count: Option<u64>,
    /// End after so long [default: 30]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: Option<u32>,
    /// Bytes of each frame [default: all of them]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(14..=65_535))]
    pub(crate) snaplen: Option<u32>,
    /// Leave connections to hardware that it has
    #[arg(long)]
    pub(crate) leave_offloaded: bool,
}

#[derive(Args, Debug, Default)]
pub(crate) struct PlanArgs {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// A device: the name of a profile, or a file with one; several are compared
    #[arg(long, value_name = "PROFILE", required = true)]
    pub(crate) profile: Vec<String>,
    /// Live connections of all services that no mix speaks of, together [default: 10000]
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) connections: Option<f64>,
    /// New connections per second of these, together [default: 200]
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) new_per_second: Option<f64>,
    /// Packets per second of each connection, both directions [default: 100, or as observed]
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) packets_per_second: Option<f64>,
    /// Bytes of each frame, without FCS [default: 512]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(60..=9_216))]
    pub(crate) frame_bytes: Option<u32>,
    /// Traffic by service
    #[arg(long, value_name = "FILE", conflicts_with_all = ["snapshot", "live"])]
    pub(crate) mix: Option<PathBuf>,
    /// Traffic as a saved page of /metrics tells it, on average since the process started
    #[arg(long, value_name = "FILE", conflicts_with_all = ["live", "connections", "new_per_second"])]
    pub(crate) snapshot: Option<PathBuf>,
    /// Seconds that the page's counters cover [default: from the process' start to the file's time]
    #[arg(long, value_name = "N", requires = "snapshot", value_parser = amount)]
    pub(crate) snapshot_seconds: Option<f64>,
    /// Traffic of the running Millrace behind this control socket, looked at for two seconds
    #[arg(long, value_name = "SOCKET", conflicts_with_all = ["connections", "new_per_second"])]
    pub(crate) live: Option<PathBuf>,
}

/// A number of something.
fn amount(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let sane = value.is_finite() && (0.0..=1e12).contains(&value);
    sane.then_some(value).ok_or_else(|| "use a number from 0 to 1e12".to_owned())
}

#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    /// Look once and print it
    #[arg(long)]
    pub(crate) once: bool,
    /// Time over which rates are taken, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000,
          value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub(crate) interval_ms: u64,
}

#[derive(Args, Debug)]
pub(crate) struct BackendArgs {
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// The backend: its address, with `:port` where the configuration gives one
    #[arg(value_name = "BACKEND")]
    pub(crate) backend: String,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Show {
    /// Services: VIPs, modes and how much they carry
    Services,
    /// Policy rules: actions, and how often each has decided
    Policy,
    /// Tenants: connections, traffic and what was dropped of it
    Tenants,
    /// Backends: weights, states, live connections and traffic
    Backends {
        /// Only this service's
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
    },
    /// Connections, as the workers' tables hold them
    Connections(ConnectionArgs),
    /// Ports: link, MAC address, counters of the device
    Ports,
    /// Workers: cores, load, table use, conservation of packets
    Workers,
    /// Meters: limits of services and tenants, and what became of their packets by colour
    Meters,
    /// Packets that were not sent, by reason
    Drops {
        /// Also reasons that have not occurred
        #[arg(long)]
        all: bool,
    },
    /// The neighbour table (ARP and neighbour discovery)
    Neighbours,
    /// The offload engine: rules, budget, and what became of connections it was asked to take
    Offload,
    /// Rules in hardware, as testpmd would be told to make them
    Rules(RuleArgs),
}

#[derive(Args, Debug, Default)]
pub(crate) struct RuleArgs {
    /// Only of this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Only of this client's connections
    #[arg(long, value_name = "IP")]
    pub(crate) client: Option<IpAddr>,
    /// Only of connections to this backend address
    #[arg(long, value_name = "IP")]
    pub(crate) backend: Option<IpAddr>,
    /// At most so many
    #[arg(long, default_value_t, value_name = "N")]
    pub(crate) limit: Limit,
}

#[derive(Args, Debug, Default)]
pub(crate) struct ConnectionArgs {
    /// Only of this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Only from this client
    #[arg(long, value_name = "IP")]
    pub(crate) client: Option<IpAddr>,
    /// Only to this backend address
    #[arg(long, value_name = "IP")]
    pub(crate) backend: Option<IpAddr>,
    /// Only of this protocol
    #[arg(long)]
    pub(crate) protocol: Option<Transport>,
    /// At most so many
    #[arg(long, default_value_t, value_name = "N")]
    pub(crate) limit: Limit,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("millrace").chain(words.iter().copied()))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_default_socket_is_the_configuration_s() {
        let configured = dataplane::config::Control::default().socket;
        assert_eq!(configured, PathBuf::from(DEFAULT_SOCKET));
    }

    #[test]
    fn global_options_stand_anywhere() {
        for words in [["--json", "show", "drops"], ["show", "--json", "drops"], ["show", "drops", "--json"]] {
            assert!(parse(&words).expect("valid").json, "{words:?}");
        }
        let cli = parse(&["reload", "--socket", "/tmp/s"]).expect("valid");
        assert_eq!(cli.socket(), Path::new("/tmp/s"));
        assert_eq!(parse(&["reload"]).expect("valid").socket(), Path::new(DEFAULT_SOCKET));
    }

    #[test]
    fn filters_are_typed() {
        let words = ["show", "connections", "--client", "2001:db8::1", "--protocol", "udp", "--limit", "7"];
        let Command::Show { what: Show::Connections(args) } = parse(&words).expect("valid").command else {
            panic!("parsed as something else");
        };
        assert_eq!(args.client, Some("2001:db8::1".parse().expect("address")));
        assert_eq!((args.protocol, args.limit.rows()), (Some(Transport::Udp), 7));
        assert!(parse(&["show", "connections", "--limit", "100001"]).is_err());
        assert!(parse(&["show", "connections", "--client", "example"]).is_err());
    }

    #[test]
    fn wrong_usage_exits_with_two() {
        for words in [&["fly"][..], &["drain", "web"], &["show"], &["check"]] {
            assert_eq!(parse(words).expect_err("invalid").exit_code(), 2, "{words:?}");
        }
        assert_eq!(parse(&["--help"]).expect_err("help").exit_code(), 0);
    }
}
