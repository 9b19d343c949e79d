//! SIGINT and SIGTERM, told to whoever waits, so that a run ends by returning.
//!
//! 1. Nothing is caught before [`arm`]. From then on the first signal only makes [`came`] true;
//!    loops and runs that ask end early, and what they own is dropped as after any failure:
//!    children, temporary folders, CPU groups.
//! 2. The second signal ends the process at once.
//!
//! Refuses to know what there is to tidy up.

use std::io;
use std::process;
use std::sync::LazyLock;
use std::thread;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

static CAME: LazyLock<watch::Sender<bool>> = LazyLock::new(|| watch::Sender::new(false));

/// What a shell says of a program that SIGINT ended.
const ENDED_AT_ONCE: i32 = 130;

/// Catches both signals for as long as this process lives.
pub fn arm() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let signals = {
        let _within = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let listener = thread::Builder::new().name("signals".to_owned());
    listener.spawn(move || runtime.block_on(listen(signals))).map(drop)
}

async fn listen((mut interrupt, mut terminate): (Signal, Signal)) {
    next(&mut interrupt, &mut terminate).await;
    CAME.send_replace(true);
    next(&mut interrupt, &mut terminate).await;
    process::exit(ENDED_AT_ONCE);
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => (),
        _ = terminate.recv() => (),
    }
}

pub fn came() -> bool {
    *CAME.borrow()
}

/// Ends when a signal came; never where none is caught.
pub async fn wait() {
    // The sender is static: the channel cannot close.
    let _ = CAME.subscribe().wait_for(|came| *came).await;
}
