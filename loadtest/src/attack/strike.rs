//! What an attack has in hand: where the sidecar listens, how long, how much.
//!
//! 1. An attack ends at its time, after [`OCTETS_MAX`] or [`CONNECTIONS_MAX`], whichever is first.
//! 2. Connections that the sidecar closes are made anew at once, as whoever means harm would.

use super::identity::Identity;
use super::line::{Line, SharedTally, Tally, now};
use super::wire::{self, Call};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Over all connections of one attack.
pub const OCTETS_MAX: u64 = 1 << 30;
pub const CONNECTIONS_MAX: u64 = 20_000;
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// Where an attack comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Plaintext: an app, or whoever reaches that port.
    Api,
    /// The internal port, as a sidecar of the mesh with a good certificate.
    Internal,
}

pub struct Strike<'a> {
    pub api: SocketAddr,
    pub internal: SocketAddr,
    /// The app to call from the API port, and the one behind the internal port.
    pub callee: &'static str,
    pub own_app: &'static str,
    pub identity: &'a Identity,
    pub until: Instant,
    pub tally: SharedTally,
    connections: u64,
}

impl<'a> Strike<'a> {
    pub fn new(
        (api, internal): (SocketAddr, SocketAddr),
        (callee, own_app): (&'static str, &'static str),
        identity: &'a Identity,
        until: Instant,
    ) -> Self {
        let tally = SharedTally::default();
        Self { api, internal, callee, own_app, identity, until, tally, connections: 0 }
    }

    pub fn goes_on(&self) -> bool {
        now() < self.until && self.connections < CONNECTIONS_MAX && self.octets() < OCTETS_MAX
    }

    fn octets(&self) -> u64 {
        self.tally().octets_sent
    }

    pub fn count(&self, units: u64) {
        self.tally().units += units;
    }

    /// How many of these the sidecar has closed.
    pub fn count_closed(&self, sockets: &[TcpStream]) {
        let is_closed = |socket: &&TcpStream| {
            let mut buffer = [0; 8 << 10];
            let nonblocking = socket.set_nonblocking(true);
            let mut socket = *socket;
            while nonblocking.is_ok() {
                match socket.read(&mut buffer) {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
                }
            }
            false
        };
        let closed = sockets.iter().filter(is_closed).count() as u64;
        self.tally().closed += closed;
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that has said nothing; `None` when the attack is over or nobody accepts.
    pub fn silent(&mut self, door: Door) -> Option<Line> {
        let stream = self.socket(door)?;
        let tls = match door {
            Door::Api => None,
            Door::Internal => Some(Box::new(self.identity.connection(self.internal)?)),
        };
        Line::new(stream, tls, self.until, self.tally.clone()).ok()
    }

    /// A bare socket, whose octets nobody counts.
    pub fn socket(&mut self, door: Door) -> Option<TcpStream> {
        let at = match door {
            Door::Api => self.api,
            Door::Internal => self.internal,
        };
        while self.goes_on() {
            self.connections += 1;
            match TcpStream::connect_timeout(&at, CONNECT_PATIENCE) {
                Ok(stream) => {
                    self.tally().connections += 1;
                    return Some(stream);
                }
                Err(_) => self.tally().refused += 1,
            }
        }
        None
    }

    /// A connection that has said the preface and these SETTINGS.
    pub fn greeted(&mut self, door: Door, settings: &[(u16, u32)]) -> Option<Line> {
        let mut line = self.silent(door)?;
        line.out.extend_from_slice(wire::PREFACE);
        wire::settings(&mut line.out, settings);
        Some(line)
    }

    pub fn call(&self, door: Door, path: &str) -> Call {
        let app = match door {
            Door::Api => self.callee,
            Door::Internal => self.own_app,
        };
        Call { path: path.as_bytes().to_vec(), app }
    }

    /// Until the end: greets, says what `first` says, then what `make` makes of turns 0, 1, …;
    /// each turn is a unit. When `make` says no, or the sidecar closes, a new connection begins.
    pub fn flood(
        &mut self,
        door: Door,
        mut first: impl FnMut(&mut Vec<u8>),
        mut make: impl FnMut(&mut Vec<u8>, u32) -> bool,
    ) {
        while let Some(mut line) = self.greeted(door, &[]) {
            first(&mut line.out);
            let mut turn = 0;
            while line.flush_batch() && make(&mut line.out, turn) {
                line.heard.units += 1;
                turn += 1;
                if line.heard.octets_sent > OCTETS_MAX {
                    break;
                }
            }
            line.flush();
        }
    }

    /// Holds `lines` until the end; `each` speaks on a line, in turns a tick apart.
    pub fn hold(
        &mut self,
        lines: &mut [Line],
        tick: Duration,
        mut each: impl FnMut(&mut Line, usize),
    ) {
        let mut next = now();
        let mut round = 0;
        while now() < self.until {
            for line in lines.iter_mut().filter(|line| !line.was_closed()) {
                each(line, round);
                line.turn();
            }
            round += 1;
            next += tick;
            let rest = next.min(self.until).saturating_duration_since(now());
            pause(rest);
        }
    }
}

/// An attacker's own pace.
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}
