//! The load: one call to try, runs in alternation, and what each cost.
//!
//! 1. All ways get the same load, one after another; every second round goes backwards, so that
//!    none always runs on a machine that the same other one has warmed.
//! 2. CPU is that of both sidecars' threads by the scheduler's accounting, over the measured part.

use super::BenchError;
use super::options::{Load, Options};
use super::pairs::Pair;
use super::report::{PERCENTILES, Report, Run, Topology, Whole};
use super::schema::{Kind, Method};
use super::story::Progress;
use bytes::Bytes;
use loadtest::outcome::{Latencies, Outcome};
use loadtest::plan::{End, Expect, Plan, Schedule, Segment, Shape};
use loadtest::{account, generate};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::oneshot;

/// Of each way before the first round.
const WARMUP: Duration = Duration::from_secs(1);
/// Of each run, whose connections are new.
const RUN_WARMUP: Duration = Duration::from_millis(300);
/// A first call may find names not yet published; each of these takes its own time to fail.
const TRIALS: usize = 20;
const TRIAL_PAUSE: Duration = Duration::from_millis(250);
const TRIAL_LIMIT: Duration = Duration::from_secs(10);

/// What is sent, whichever way.
#[derive(Clone, Debug)]
pub struct Work {
    path: String,
    messages: Vec<Bytes>,
    shape: Shape,
    metadata: Vec<(String, Vec<u8>)>,
    load: Load,
}

/// One way to the service.
#[derive(Clone, Debug)]
pub struct Way {
    pub name: &'static str,
    address: SocketAddr,
    authority: String,
    metadata: Vec<(String, Vec<u8>)>,
    pids: Vec<u32>,
}

impl Way {
    pub fn direct(address: SocketAddr, options: &Options) -> Self {
        let authority = options.authority.clone().unwrap_or_else(|| options.address.clone());
        Self {
            name: super::report::DIRECT,
            address,
            authority,
            metadata: Vec::new(),
            pids: Vec::new(),
        }
    }

    pub fn through(name: &'static str, pair: &Pair, options: &Options) -> Self {
        let address = pair.address();
        let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        Self {
            name,
            address,
            authority: address.to_string(),
            metadata: vec![field("dapr-app-id", &options.app)],
            pids: pair.pids().to_vec(),
        }
    }
}

impl Work {
    pub fn new(
        options: &Options,
        method: &Method,
        messages: Vec<Bytes>,
        metadata: Vec<(String, Vec<u8>)>,
    ) -> Result<Self, BenchError> {
        let many = options.load.messages.unwrap_or(messages.len() as u64);
        let shape = match method.kind {
            Kind::Unary => Shape::Unary,
            Kind::ClientStream => Shape::ClientStream { messages: many },
            Kind::ServerStream => Shape::ServerStream,
            Kind::Bidi => Shape::PingPong { round_trips: many },
        };
        let path = method.path.clone();
        Ok(Self { path, messages, shape, metadata, load: options.load.clone() })
    }

    /// As many on each connection.
    fn streams(&self) -> usize {
        self.load.concurrency.div_ceil(self.load.connections)
    }

    pub fn calls_in_flight(&self) -> usize {
        self.streams() * self.load.connections
    }

    /// The request in words.
    pub fn request(&self) -> String {
        let (lengths, many) = (self.messages.iter().map(Bytes::len), self.messages.len());
        let (least, most) = (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0));
        let octets = match least == most {
            true => least.to_string(),
            false => format!("{least} to {most}"),
        };
        match self.shape {
            Shape::Unary | Shape::ServerStream if many > 1 => {
                format!("one of {many} messages in turn, of {octets} octets")
            }
            Shape::Unary | Shape::ServerStream => format!("a message of {octets} octets"),
            Shape::ClientStream { messages } => format!("{messages} messages of {octets} octets"),
            Shape::PingPong { round_trips } => {
                format!(
                    "{round_trips} messages of {octets} octets, each after an answer to the last"
                )
            }
        }
    }

    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if cfg!(debug_assertions) {
            notes.push(
                "This ringside is a debug build, several times slower than a release build."
                    .to_owned(),
            );
        }
        if self.calls_in_flight() != self.load.concurrency {
            notes.push(format!(
                "{} calls in flight do not divide by {} connections: each has {}.",
                self.load.concurrency,
                self.load.connections,
                self.streams()
            ));
        }
        notes
    }

    fn plan(&self, way: &Way, end: End) -> Plan {
        let mut metadata: Vec<_> = self.metadata.iter().chain(&way.metadata).cloned().collect();
        // Dapr asks for it on streams.
        if self.shape != Shape::Unary && !way.metadata.is_empty() {
            metadata.push(("dapr-stream".to_owned(), b"true".to_vec()));
        }
        let schedule = match (self.load.rate, end) {
            (Some(rate), End::After(length)) => {
                Schedule::Open(vec![Segment { from: rate, to: rate, length }])
            }
            (Some(rate), End::Calls(calls)) => {
                let length = Duration::from_secs_f64((calls as f64 / rate).min(1e6));
                Schedule::Open(vec![Segment { from: rate, to: rate, length }])
            }
            (None, _) => Schedule::Closed,
        };
        Plan {
            target: way.address,
            authority: way.authority.clone(),
            path: self.path.clone(),
            metadata,
            unique: Vec::new(),
            shape: self.shape,
            request: self.messages.first().cloned().unwrap_or_default(),
            expect: Expect::Anything,
            connections: self.load.connections,
            streams: self.streams(),
            schedule,
            warmup: Duration::ZERO,
            end,
            timeout: self.load.timeout,
        }
    }
}

/// One call, so that what is wrong is said before anything is measured. A direct one gets one
/// chance; sidecars may need a moment to find each other.
pub async fn trial(work: &Work, way: &Way) -> Result<(), String> {
    let mut plan = work.plan(way, End::Calls(1));
    (plan.connections, plan.streams, plan.schedule) = (1, 1, Schedule::Closed);
    plan.timeout = Some(plan.timeout.map_or(TRIAL_LIMIT, |timeout| timeout.min(TRIAL_LIMIT)));
    let trials = if way.pids.is_empty() { 1 } else { TRIALS };
    let mut last = String::new();
    for trial in 0..trials {
        if trial > 0 {
            tokio::time::sleep(TRIAL_PAUSE).await;
        }
        match load(work, plan.clone(), &[]).await.map(|(outcome, _)| outcome) {
            Ok(outcome) if outcome.failed() == 0 => return Ok(()),
            Ok(outcome) => last = outcome.errors.into_keys().next().unwrap_or_default(),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// Every way in every round.
pub async fn run(
    work: &Work,
    ways: &[Way],
    rounds: usize,
    report: &mut Report,
    progress: &Progress,
) -> Result<(), BenchError> {
    let end = match work.load.total {
        Some(total) => End::Calls(total),
        None => End::After(work.load.duration),
    };
    for way in ways {
        progress.say(&format!("warming up: {}", way.name));
        let short = WARMUP.min(work.load.duration);
        load(work, work.plan(way, End::After(short)), &[]).await?;
    }
    let mut runs_left = rounds * ways.len();
    for round in 0..rounds {
        let mut order: Vec<&Way> = ways.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for way in order {
            let runs = u32::try_from(runs_left).unwrap_or(u32::MAX);
            let left = work.load.duration.saturating_mul(runs);
            runs_left -= 1;
            let left = match work.load.total {
                Some(_) => String::new(),
                None => format!(", {} s to go", left.as_secs()),
            };
            progress.say(&format!("round {} of {rounds}: {}{left}", round + 1, way.name));
            let topology = report.topologies.entry(way.name.to_owned()).or_default();
            measure(work, way, end, topology).await?;
        }
    }
    Ok(())
}

async fn measure(
    work: &Work,
    way: &Way,
    end: End,
    topology: &mut Topology,
) -> Result<(), BenchError> {
    let plan = Plan { warmup: RUN_WARMUP.min(work.load.duration), ..work.plan(way, end) };
    let (outcome, cpu_ns) = load(work, plan.clone(), &way.pids).await?;
    let cpu = cpu_ns as f64 / 1000.0 / outcome.calls.max(1) as f64;
    let at = |latencies: &Latencies, percentile: f64| {
        latencies.value_at_percentile(percentile) as f64 / 1000.0
    };
    topology.runs.push(Run {
        calls: outcome.calls,
        seconds: outcome.elapsed.as_secs_f64(),
        rate: outcome.rate(),
        cpu_us_per_call: (!way.pids.is_empty() && outcome.calls > 0).then_some(cpu),
        latency_us: match outcome.latency.is_empty() {
            true => Vec::new(),
            false => PERCENTILES.map(|percentile| at(&outcome.latency, percentile)).to_vec(),
        },
        generator_late_us_p99: work.load.rate.map(|_| at(&outcome.lateness, 99.0)),
        statuses: outcome.statuses.clone(),
        errors: outcome.errors.clone(),
    });
    match &mut topology.whole {
        Some(whole) => join(&mut whole.outcome, &outcome)?,
        None => topology.whole = Some(Whole { plan, outcome }),
    }
    Ok(())
}

/// One run after another, as if they were one.
fn join(sum: &mut Outcome, run: &Outcome) -> Result<(), BenchError> {
    sum.elapsed += run.elapsed;
    sum.calls += run.calls;
    sum.messages += run.messages;
    sum.request_octets += run.request_octets;
    sum.response_octets += run.response_octets;
    for (code, count) in &run.statuses {
        *sum.statuses.entry(*code).or_default() += count;
    }
    for (text, count) in &run.errors {
        *sum.errors.entry(text.clone()).or_default() += count;
    }
    for (sum, run) in [
        (&mut sum.latency, &run.latency),
        (&mut sum.service, &run.service),
        (&mut sum.lateness, &run.lateness),
    ] {
        sum.add(run).map_err(|error| BenchError::new(error.to_string()))?;
    }
    Ok(())
}

/// With the CPU that `pids` spent meanwhile. On a thread of its own, as the generator blocks and
/// the authority must go on answering.
async fn load(work: &Work, plan: Plan, pids: &[u32]) -> Result<(Outcome, u64), BenchError> {
    let (tell, told) = oneshot::channel();
    let (more, pids) = (work.messages.get(1..).unwrap_or_default().to_vec(), pids.to_vec());
    let body = move || {
        let spent = || pids.iter().map(|pid| account::cpu_ns(*pid)).sum::<io::Result<u64>>();
        let mut marks = Vec::new();
        let mark = &mut |_| marks.push(spent());
        let outcome = generate::run_sequence_blocking_marked(&plan, &more, mark);
        // Nobody is there to be told when it was interrupted.
        let _ = tell.send((outcome, marks));
    };
    std::thread::Builder::new().name("bench-load".to_owned()).spawn(body)?;
    let (outcome, marks) =
        told.await.map_err(|_| BenchError::new("the load generator broke off"))?;
    let outcome = outcome.map_err(|error| BenchError::new(error.to_string()))?;
    let [begin, end] = <[io::Result<u64>; 2]>::try_from(marks)
        .map_err(|_| BenchError::new("the load generator did not say when it measured"))?;
    let lost = |error| BenchError::new(format!("a sidecar ended amid the measurement: {error}"));
    Ok((outcome, end.map_err(lost)?.saturating_sub(begin.map_err(lost)?)))
}
