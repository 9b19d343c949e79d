//! A sidecar's life: start in daprd's order, run, drain, stop.
//!
//! ```text
//! identity -> internal port -> names -> listeners -> workers -> wait for the app -> running
//! signal or API -> (block) -> drain workers -> grace: HTTP ports, names -> end
//! ```
//!
//! 1. Everything but the workers runs on this thread's `LocalSet`.
//! 2. A worker that ends before it is told to ends the sidecar.
//! 3. The drain has no limit of its own but `--ringside-drain-max`, as in daprd; what follows it
//!    has the grace period.
//!
//! Source: `pkg/runtime/runtime.go` and `cmd/daprd/app/app.go` of Dapr.

use super::log::Log;
use super::rest::keep_small;
use super::signals::{Caught, Signals, follow_level};
use super::start::{Ended, RUNTIME, SERVERS, Sidecar, start};
use super::{Ending, Plan};
use crate::control::app_channel;
use crate::control::spans::Spans;
use crate::io::FilePages;
use crate::mailbox::ToWorker;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

/// What the HTTP ports get to finish requests, within the grace period.
const HTTP_CLOSE_TIME_MAX: Duration = Duration::from_secs(10);
/// What collectors get to take the last spans, within it too.
const SPANS_CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// How much longer than `--ringside-drain-max` the workers are waited for.
const DRAIN_SLACK: Duration = Duration::from_secs(2);
const FORCED_PAUSE: Duration = Duration::from_millis(100);

const SIGNALS: &str = "dapr.signals";
const HTTP: &str = "dapr.runtime.http";

pub fn run(plan: Plan, pages: FilePages, log: &Log) -> Ending {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .thread_name("control-helper")
        .build();
    match runtime {
        Ok(runtime) => {
            let ending = LocalSet::new().block_on(&runtime, live(plan, pages, log));
            // A helper that hangs in a lookup must not keep us.
            runtime.shutdown_background();
            ending
        }
        Err(error) => Ending::Failed(format!("cannot start the control thread: {error}")),
    }
}

#[allow(clippy::disallowed_methods, reason = "the start is timed, as in daprd")]
async fn live(plan: Plan, pages: FilePages, log: &Log) -> Ending {
    let begun = Instant::now();
    let mut signals = match Signals::catch() {
        Ok(signals) => signals,
        Err(error) => return Ending::Failed(format!("cannot catch signals: {error}")),
    };
    // From the beginning: the first SIGUSR1 may come while Sentry is waited for.
    tokio::task::spawn_local(follow_level(log.clone()));
    let started = tokio::select! {
        started = start(plan, begun, log) => started,
        caught = signals.next() => return told(caught),
    };
    let (mut sidecar, mut ended) = match started {
        Ok(started) => started,
        Err(error) => return Ending::Failed(error),
    };
    tokio::task::spawn_local(keep_small(pages));
    let ending = loop {
        tokio::select! {
            caught = signals.next() => match caught {
                Caught::Hangup => {
                    tracing::info!(scope = SIGNALS, "Received signal 'hangup'; reading files anew");
                    sidecar.reloader.ask();
                }
                Caught::Interrupt | Caught::Terminated => break told(caught),
            },
            () = sidecar.reloader.restart_wanted() => break told(Caught::Hangup),
            asked = sidecar.state.shutdown_requested() => match asked.force {
                false => break Ending::Clean,
                true => return forced().await,
            },
            Some(error) = ended.recv() => return Ending::Failed(error),
        }
    };
    stop_for(ending, &mut sidecar, &mut signals, &mut ended).await
}

/// Stops, and says what came of it: who asks for an end while all that was asked for is a restart
/// gets it; after that, whoever asks once more does not want to wait.
async fn stop_for(
    mut ending: Ending,
    sidecar: &mut Sidecar,
    signals: &mut Signals,
    ended: &mut Ended,
) -> Ending {
    let state = Rc::clone(&sidecar.state);
    let mut stopping = pin!(stop(sidecar));
    loop {
        tokio::select! {
            done = &mut stopping => return done.err().unwrap_or(ending),
            caught = signals.next_end() => match ending {
                Ending::Restart => ending = told(caught),
                Ending::Clean | Ending::Failed(_) | Ending::AtOnce(_) => {
                    let name = caught.name();
                    return Ending::AtOnce(format!(
                        "Received signal '{name}' during shutdown; exiting immediately"
                    ));
                }
            },
            Some(error) = ended.recv() => return Ending::Failed(error),
            asked = state.shutdown_requested() => match asked.force {
                false => ending = Ending::Clean,
                true => return forced().await,
            },
        }
    }
}

fn told(caught: Caught) -> Ending {
    match caught {
        Caught::Hangup => {
            tracing::info!(scope = SIGNALS, "Received signal 'hangup'; restarting");
            Ending::Restart
        }
        Caught::Interrupt | Caught::Terminated => {
            let name = caught.name();
            tracing::info!(scope = SIGNALS, "Received signal '{name}'; beginning shutdown");
            Ending::Clean
        }
    }
}

async fn forced() -> Ending {
    tokio::time::sleep(FORCED_PAUSE).await;
    Ending::AtOnce("Forced shutdown requested via API".to_owned())
}

/// In daprd's order: calls end first, everything else after them.
async fn stop(sidecar: &mut Sidecar) -> Result<(), Ending> {
    block(sidecar).await;
    for target in SERVERS {
        sidecar.state.require(target);
    }
    sidecar.workers.tell(|| ToWorker::Drain);
    let drain = sidecar.workers.all_drained();
    match sidecar.plan.settings.config.drain_max {
        None => drain.await,
        // The workers end what is left by then; this is for one that does not.
        Some(max) => {
            if tokio::time::timeout(max + DRAIN_SLACK, drain).await.is_err() {
                tracing::warn!("a worker did not drain in time; its calls are cut");
            }
        }
    }
    let grace = sidecar.plan.settings.shutdown.grace;
    let closing = close(sidecar);
    match grace {
        None => closing.await,
        Some(grace) => {
            if tokio::time::timeout(grace, closing).await.is_err() {
                let text = "Graceful shutdown timeout exceeded, forcing shutdown";
                return Err(Ending::AtOnce(text.to_owned()));
            }
        }
    }
    Ok(())
}

/// `--dapr-block-shutdown-duration`: everything goes on for that long.
async fn block(sidecar: &Sidecar) {
    let Some(duration) = sidecar.plan.settings.shutdown.block else { return };
    let shown = go_duration(duration);
    tracing::info!("Blocking graceful shutdown for {shown} or until app reports unhealthy...");
    // With probes or without, an app that does not listen is unhealthy. Calls must not be taken
    // for it any longer: who else serves them is for their callers to find.
    let has_app = sidecar.plan.settings.config.app.is_some();
    let is_probed = has_app && sidecar.plan.settings.app_health.is_some();
    let gone = async {
        if sidecar.app_found.get() {
            app_channel::gone(&sidecar.workers).await;
        }
    };
    tokio::select! {
        () = tokio::time::sleep(duration) => {
            tracing::info!("Block shutdown period expired, entering shutdown...");
        }
        () = gone, if has_app => tracing::info!("App reported unhealthy, entering shutdown..."),
        () = sidecar.state.app_unhealthy(), if is_probed => {
            tracing::info!("App reported unhealthy, entering shutdown...");
        }
    }
}

async fn close(sidecar: &mut Sidecar) {
    tracing::info!("Dapr is shutting down");
    sidecar.state.require(RUNTIME);
    sidecar.state.close_http();
    for address in &sidecar.http_addresses {
        tracing::info!(scope = HTTP, "Closing HTTP server {address}…");
    }
    let surfaces = async { while sidecar.surfaces.join_next().await.is_some() {} };
    let surfaces = tokio::time::timeout(HTTP_CLOSE_TIME_MAX, surfaces);
    let (surfaces, (), ()) =
        tokio::join!(surfaces, sidecar.resolver.close(), close_spans(&sidecar.spans));
    if surfaces.is_err() {
        tracing::warn!("HTTP requests did not end in {HTTP_CLOSE_TIME_MAX:?}; they are cut");
    }
    tracing::info!("Dapr runtime stopped");
}

/// A collector that is gone does not hold up the end.
async fn close_spans(spans: &Spans) {
    if tokio::time::timeout(SPANS_CLOSE_TIME_MAX, spans.close()).await.is_err() {
        tracing::warn!("Error flushing tracing provider: no answer in {SPANS_CLOSE_TIME_MAX:?}");
    }
}

/// `1m0s`, `1.5s`, `300ms`, as Go shows it.
fn go_duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    let (minutes, nanos) = (duration.as_secs() / 60, duration.subsec_nanos());
    let mut seconds = (duration.as_secs() % 60).to_string();
    if nanos > 0 {
        seconds.push_str(format!(".{nanos:09}").trim_end_matches('0'));
    }
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        for (millis, text) in [
            (300, "300ms"),
            (1_000, "1s"),
            (1_500, "1.5s"),
            (60_000, "1m0s"),
            (3_723_500, "1h2m3.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
