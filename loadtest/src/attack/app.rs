//! An app of the attack's own: polite until it is armed, then whatever its act is.
//!
//! 1. Before it is armed, and after, every call is answered OK: sidecars ask their app things at
//!    their start.
//! 2. It counts the requests that reach it.

use super::line::{Line, Manners, SharedTally, now};
use super::strike::pause;
use super::wire::{self, END_HEADERS, END_STREAM, HEADERS};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::Duration;

/// What it does with a request on this stream.
pub type Act = fn(&mut Line, u32, &State);

/// Longer than any attack with all that is around it.
const LIFE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub struct State {
    armed: AtomicBool,
    stopped: AtomicBool,
    requests: AtomicU64,
    octets: AtomicU64,
    tally: SharedTally,
}

impl State {
    /// From now on it acts, or no longer.
    pub fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::Relaxed);
    }

    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed) && !self.is_stopped()
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// That reached it so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Of all frames that reached it so far.
    pub fn octets(&self) -> u64 {
        self.octets.load(Ordering::Relaxed)
    }
}

pub fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}

/// Until it is stopped; a thread for each connection.
pub fn serve<'scope>(
    listener: TcpListener,
    act: Act,
    state: &'scope State,
    scope: &'scope Scope<'scope, '_>,
) {
    while !state.is_stopped() {
        match listener.accept() {
            Ok((stream, _)) => drop(scope.spawn(move || connection(stream, act, state))),
            // Nobody there, or gone already.
            Err(_) => pause(LOOK),
        }
    }
}

fn connection(stream: TcpStream, act: Act, state: &State) {
    let Ok(mut line) = Line::accepted(stream, now() + LIFE, state.tally.clone()) else { return };
    wire::settings(&mut line.out, &[]);
    let mut counted = 0;
    while !state.is_stopped() && line.listen(LOOK) {
        state.octets.fetch_add(line.heard.request_octets - counted, Ordering::Relaxed);
        counted = line.heard.request_octets;
        while let Some(stream) = line.heads.pop_front() {
            state.requests.fetch_add(1, Ordering::Relaxed);
            if state.is_armed() {
                act(&mut line, stream, state);
            } else {
                line.manners = Manners::Polite;
                answer(&mut line, stream);
            }
            if !line.flush_batch() {
                break;
            }
        }
    }
}

/// A right answer without a message.
pub fn answer(line: &mut Line, stream: u32) {
    wire::frame(&mut line.out, HEADERS, END_HEADERS, stream, &wire::answer_block());
    wire::frame(&mut line.out, HEADERS, END_HEADERS | END_STREAM, stream, &wire::ok_block());
}

pub fn polite(line: &mut Line, stream: u32, _: &State) {
    answer(line, stream);
}
