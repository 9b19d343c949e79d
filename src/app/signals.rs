//! The signals that end or restart the process, and the one that makes the log tell more.
//!
//! 1. What asks for something else than an end never is one, however early it comes, or while the
//!    process executes itself: until somebody heeds it, it waits.

use super::log::Log;
use crate::observe::log::Severity;
use nix::sys::signal::{SigSet, Signal as Number};
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What came, by Go's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caught {
    Interrupt,
    Terminated,
    Hangup,
}

impl Caught {
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupt",
            Self::Terminated => "terminated",
            Self::Hangup => "hangup",
        }
    }
}

/// Invariant 1; of threads that begin later, too. Whoever catches them lets them come.
pub fn hold() {
    let held: SigSet = [Number::SIGHUP, Number::SIGUSR1].into_iter().collect();
    let blocked = held.thread_block();
    debug_assert!(blocked.is_ok(), "{blocked:?}");
}

fn let_come(signal: Number) {
    let let_through = SigSet::from(signal).thread_unblock();
    debug_assert!(let_through.is_ok(), "{let_through:?}");
}

/// From its making on, none of them ends the process by itself.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub fn catch() -> io::Result<Self> {
        let caught = Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        };
        let_come(Number::SIGHUP);
        Ok(caught)
    }

    pub async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.interrupt.recv() => Caught::Interrupt,
            _ = self.terminate.recv() => Caught::Terminated,
            _ = self.hangup.recv() => Caught::Hangup,
        }
    }

    /// The next one that asks for an end.
    pub async fn next_end(&mut self) -> Caught {
        loop {
            match self.next().await {
                caught @ (Caught::Interrupt | Caught::Terminated) => return caught,
                Caught::Hangup => {}
            }
        }
    }
}

/// SIGUSR1: the log's level becomes debug, and at the next one what it was.
pub async fn follow_level(log: Log) {
    let mut signals = match signal(SignalKind::user_defined1()) {
        Ok(signals) => signals,
        Err(error) => return tracing::warn!("cannot catch SIGUSR1: {error}"),
    };
    let_come(Number::SIGUSR1);
    let mut before = Severity::Info;
    while signals.recv().await.is_some() {
        let now = log.level();
        let next = if now == Severity::Debug { before } else { Severity::Debug };
        if now != Severity::Debug {
            before = now;
        }
        log.set_level(next);
    }
}
