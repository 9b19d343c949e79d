//! The signals that end or restart the process.

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
