//! What goes on for the log's sake while a sidecar runs.

use super::Log;
use crate::control::state::State;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::spawn_local;

/// How often the log's drops are carried to the metrics.
const DROPS_INTERVAL: Duration = Duration::from_secs(1);

/// Inside a `LocalSet`.
pub fn look_after(log: &Log, state: &Rc<State>) {
    spawn_local(carry_drops(log.clone(), Rc::clone(state)));
}

/// The log counts its drops for every thread; the metrics are this thread's.
async fn carry_drops(log: Log, state: Rc<State>) {
    loop {
        state.counters.log_drops.set(log.drops());
        tokio::time::sleep(DROPS_INTERVAL).await;
    }
}
