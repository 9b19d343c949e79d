//! The signals that end or restart the process, and the one that makes the log tell more.

use super::log::Log;
use crate::observe::log::Severity;
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

/// From its making on, none of them ends the process by itself.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
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
