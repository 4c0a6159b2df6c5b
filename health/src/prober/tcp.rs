//! One TCP connection to a backend, opened to see whether it answers.

use super::{Job, PACKET_MAX};
use crate::machine::{Cause, Outcome};
use dataplane::addr::Ip;
use dataplane::config::{Http, Probe};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Bytes of an answer that may be under way: its beginning is all that is read.
const RECEIVE_BYTES: usize = 1024;
/// Bytes of a request: its fixed parts, and a path and a host of 255 each.
const SEND_BYTES: usize = 1024;
/// Bytes of a status line as far as its code.
const STATUS_BYTES: usize = 12;

pub(super) struct Tcp {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    pipe: Pipe,
    /// The sequence number of the SYN.
    syn: Option<u32>,
    requested: bool,
    connected: bool,
    /// The beginning of the answer.
    heard: Vec<u8>,
}

impl Tcp {
    /// Begins to connect. `None` only if smoltcp refuses the addresses.
    pub(super) fn connect(now_ms: u64, job: &Job, local_port: u16, seed: u64) -> Option<Tcp> {
        let mut pipe = Pipe::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut pipe, instant(now_ms));
        let (local, remote) = (IpAddr::from(job.local), IpAddr::from(job.remote));
        let whole = if job.local.is_v4() { 32 } else { 128 };
        interface.update_ip_addrs(|addresses| _ = addresses.push(IpCidr::new(local.into(), whole)));
        // Any route will do: the way is not chosen here.
        match local {
            IpAddr::V4(address) => _ = interface.routes_mut().add_default_ipv4_route(address),
            IpAddr::V6(address) => _ = interface.routes_mut().add_default_ipv6_route(address),
        }
        let buffer = |bytes| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(RECEIVE_BYTES), buffer(SEND_BYTES));
        let (from, to) = ((IpAddress::from(local), local_port), (IpAddress::from(remote), job.port));
        socket.connect(interface.context(), to, from).ok()?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let (requested, connected, heard) = (false, false, Vec::new());
        Some(Tcp { interface, sockets, handle, pipe, syn: None, requested, connected, heard })
    }

    /// Takes a segment in.
    pub(super) fn take(&mut self, packet: &[u8]) {
        self.pipe.inward.push_back(packet.to_vec());
    }

    /// What is to be sent.
    pub(super) fn sent(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.pipe.outward.drain(..)
    }

    /// When something has to be sent again.
    pub(super) fn next_ms(&mut self, now_ms: u64) -> Option<u64> {
        let at = self.interface.poll_at(instant(now_ms), &self.sockets)?;
        Some(u64::try_from(at.total_millis()).unwrap_or(0).max(now_ms + 1))
    }

    /// Goes on; when it is known how the probe went, the connection is reset: there is nothing to wait for.
    pub(super) fn step(&mut self, now_ms: u64, job: &Job) -> Option<Outcome> {
        self.interface.poll(instant(now_ms), &mut self.pipe, &mut self.sockets);
        self.syn = self.syn.or_else(|| sequence(self.pipe.outward.front()?));
        let outcome = self.look(job);
        if outcome.is_some() {
            self.socket().abort();
        }
        self.interface.poll(instant(now_ms), &mut self.pipe, &mut self.sockets);
        outcome
    }

    /// The sequence number of the SYN, if it is all that was sent so far.
    pub(super) fn unanswered(&self) -> Option<u32> {
        self.syn.filter(|_| !self.connected)
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn look(&mut self, job: &Job) -> Option<Outcome> {
        self.connected |= self.socket().may_send();
        match &job.health.probe {
            Probe::Http(http) if self.connected => self.ask(http, job),
            _ if self.connected => Some(Outcome::Good),
            _ if self.socket().state() == State::Closed => Some(Outcome::Bad(Cause::Refused)),
            _ => None,
        }
    }

    fn ask(&mut self, http: &Http, job: &Job) -> Option<Outcome> {
        if !self.requested {
            let request = request(http, job.remote, job.port);
            self.requested = self.socket().send_slice(&request).is_ok();
        }
        let mut bytes = [0; STATUS_BYTES];
        while let Ok(count @ 1..) = self.sockets.get_mut::<Socket<'_>>(self.handle).recv_slice(&mut bytes) {
            let room = STATUS_BYTES - self.heard.len().min(STATUS_BYTES);
            self.heard.extend(bytes.iter().take(count.min(room)));
        }
        if self.heard.len() == STATUS_BYTES {
            let good = status(&self.heard).is_some_and(|status| http.expect.contains(&status));
            return Some(if good { Outcome::Good } else { Outcome::Bad(Cause::WrongAnswer) });
        }
        (!self.socket().may_recv()).then_some(Outcome::Bad(Cause::Closed))
    }
}

fn request(http: &Http, remote: Ip, port: u16) -> Vec<u8> {
    let address = || match IpAddr::from(remote) {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    };
    let host = http.host.clone().unwrap_or_else(address);
    format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: millrace\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        http.path
    )
    .into_bytes()
}

/// The code in `HTTP/1.1 200` (RFC 9112 §4).
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (minor, code) = rest.split_first()?;
    let code = std::str::from_utf8(code.strip_prefix(b" ")?).ok()?;
    (minor.is_ascii_digit() && code.bytes().all(|b| b.is_ascii_digit())).then(|| code.parse().ok())?
}

/// The sequence number of a segment of ours: there are no options between the headers.
fn sequence(packet: &[u8]) -> Option<u32> {
    let at = if packet.first()? >> 4 == 4 { 24 } else { 44 };
    let [a, b, c, d] = *packet.get(at..at + 4)? else { return None };
    Some(u32::from_be_bytes([a, b, c, d]))
}

fn instant(ms: u64) -> Instant {
    Instant::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// The link between smoltcp and the wire.
#[derive(Default)]
struct Pipe {
    inward: VecDeque<Vec<u8>>,
    outward: VecDeque<Vec<u8>>,
}

struct Inward(Vec<u8>);

struct Outward<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Inward {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outward<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Pipe {
    type RxToken<'a> = Inward;
    type TxToken<'a> = Outward<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Inward, Outward<'_>)> {
        let packet = self.inward.pop_front()?;
        Some((Inward(packet), Outward(&mut self.outward)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outward<'_>> {
        Some(Outward(&mut self.outward))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = PACKET_MAX;
        capabilities
    }
}
