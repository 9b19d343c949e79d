//! The simulator: callers, two sidecars and apps in memory on a clock that only the run moves.
//!
//! One number decides everything: what the calls are, how octets are cut and delayed, who stalls,
//! resets, closes, drains, and when the clock leaps. `oracle` says what must hold. A failing
//! number is printed with the command that runs it alone, with a trace.

mod ends;
mod oracle;
mod pipe;
mod policy;
mod run;
mod scenarios;
mod script;
mod seed;
mod world;

use run::Run;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Runs of the sweep, when RINGSIDE_SIM_SEEDS does not say.
const SEEDS_DEFAULT: u64 = 2000;
/// Real time that one run may take before it counts as hanging.
const RUN_MAX: Duration = Duration::from_secs(60);

fn number_in(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn run(number: u64, trace: bool) {
    let mut run = Run::new(number, Instant::now());
    run.world.trace = trace;
    run.all();
}

#[test]
fn seeds() {
    if let Some(number) = number_in("RINGSIDE_SIM_SEED") {
        return run(number, true);
    }
    let count = number_in("RINGSIDE_SIM_SEEDS").unwrap_or(SEEDS_DEFAULT);
    let from = number_in("RINGSIDE_SIM_FROM").unwrap_or(0);
    let next = Arc::new(AtomicU64::new(from));
    let (sender, results) = mpsc::channel();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(8));
    for _ in 0..threads {
        let (next, sender) = (Arc::clone(&next), sender.clone());
        std::thread::spawn(move || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= from + count {
                    return;
                }
                let _ = sender.send((number, None));
                let result = catch_unwind(AssertUnwindSafe(|| run(number, false)));
                let _ = sender.send((number, Some(result.is_ok())));
            }
        });
    }
    drop(sender);
    let (mut failed, mut running) = (Vec::new(), Vec::new());
    loop {
        match results.recv_timeout(RUN_MAX) {
            Ok((number, None)) => running.push(number),
            Ok((number, Some(fine))) => {
                running.retain(|other| *other != number);
                if !fine {
                    failed.push(number);
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                failed.append(&mut running);
                break;
            }
        }
    }
    for number in &failed {
        eprintln!("RINGSIDE_SIM_SEED={number} cargo test --test it sim::seeds -- --nocapture");
    }
    assert!(failed.is_empty(), "{} of {count} seeds fail: {failed:?}", failed.len());
}
