//! Resiliency policies of a run: what they say, what apps do under them, what they allow.

use super::ends::Call;
use super::script::Whom;
use super::seed::Seed;
use ringside::config::resiliency::Document;
use ringside::http2::ErrorCode;
use ringside::policy::resiliency::{Builder, Targets};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What applies to calls to the callee.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub timeout: Option<Duration>,
    pub retry: Option<Retry>,
    pub breaker: Option<Breaker>,
    /// Retries in percent of calls.
    pub budget: Option<u32>,
    /// Nothing else can fail an attempt in this run: each must be what the policies say.
    pub strict: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Retry {
    pub wait: Duration,
    pub exponential: bool,
    pub most: usize,
    /// Empty: all.
    pub codes: &'static [u8],
}

#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    pub failures: u32,
    pub timeout: Duration,
    pub trials: u32,
}

/// What an app makes of an attempt that is not meant to be the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// At once, or behind a head; with `grpc-retry-pushback-ms`.
    Status {
        code: u8,
        apart: bool,
        pushback: Option<&'static str>,
    },
    Reset(ErrorCode),
    /// It reads and never says anything.
    Silent,
}

impl Fate {
    /// Of attempts of a plain call, `silent`: something ends those that get no answer.
    pub fn random(silent: bool, seed: &mut Seed) -> Self {
        let code = seed.pick(&[14, 14, 14, 13, 8, 5, 2]);
        match seed.below(10) {
            0 => Self::Reset(ErrorCode::INTERNAL_ERROR),
            1 => Self::Reset(ErrorCode::REFUSED_STREAM),
            2 | 3 if silent => Self::Silent,
            4 => {
                let pushback = Some(seed.pick(&["0", "7", "300", "-1", "soon"]));
                Self::Status { code, apart: false, pushback }
            }
            5 | 6 => Self::Status { code, apart: true, pushback: None },
            _ => Self::Status { code, apart: false, pushback: None },
        }
    }

    fn stops(self) -> bool {
        matches!(self, Self::Status { pushback: Some("-1" | "soon"), .. })
    }

    fn pushes_back(self) -> bool {
        matches!(self, Self::Status { pushback: Some(_), .. })
    }
}

impl Retry {
    fn matches(&self, code: u8) -> bool {
        self.codes.is_empty() || self.codes.contains(&code)
    }
}

impl Policy {
    pub fn random(quiet: bool, seed: &mut Seed) -> Self {
        let ms = Duration::from_millis;
        let retry = (!seed.one_in(4)).then(|| Retry {
            wait: seed.pick(&[ms(1), ms(10), ms(250)]),
            exponential: seed.one_in(4),
            most: seed.pick(&[0, 1, 3, 5]),
            codes: seed.pick(&[&[][..], &[], &[14], &[4, 13, 14]]),
        });
        let timeout = seed.one_in(3).then(|| seed.pick(&[ms(15), ms(200), ms(2000)]));
        let breaker = seed.one_in(3).then(|| Breaker {
            failures: seed.pick(&[1, 2, 5]),
            timeout: seed.pick(&[ms(20), ms(500), ms(5000)]),
            trials: seed.pick(&[1, 2, 3]),
        });
        let budget = seed.one_in(6).then(|| seed.pick(&[0, 20, 100]));
        Self { timeout, retry, breaker, budget, strict: quiet && timeout.is_none() }
    }

    /// As a file says it.
    pub fn build(&self, workers: usize, now: Instant) -> Arc<Targets> {
        let (mut policies, mut app) = (String::new(), String::new());
        if let Some(timeout) = self.timeout {
            let _ = write!(policies, "timeouts: {{t: {}ms}}, ", timeout.as_millis());
            app.push_str("timeout: t, ");
        }
        if let Some(Retry { wait, exponential, most, codes }) = self.retry {
            let kind = if exponential { "exponential" } else { "constant" };
            let codes: Vec<String> = codes.iter().map(u8::to_string).collect();
            let _ = write!(
                policies,
                "retries: {{r: {{policy: {kind}, duration: {}ms, maxRetries: {most}, \
                 matching: {{gRPCStatusCodes: \"{}\"}}}}}}, ",
                wait.as_millis(),
                codes.join(",")
            );
            app.push_str("retry: r, ");
        }
        if let Some(Breaker { failures, timeout, trials }) = self.breaker {
            let _ = write!(
                policies,
                "circuitBreakers: {{b: {{maxRequests: {trials}, timeout: {}ms, \
                 trip: consecutiveFailures >= {failures}}}}}",
                timeout.as_millis()
            );
            app.push_str("circuitBreaker: b");
        }
        let text = format!(
            "kind: Resiliency\nspec: {{policies: {{{policies}}}, targets: {{apps: {{beta: \
             {{{app}}}}}}}}}"
        );
        let document = Document::read(&text).expect(&text).expect("a resource");
        let mut builder = Builder::default();
        builder.add(document.decode().expect(&text)).expect(&text);
        Arc::new(builder.build(workers, now))
    }

    /// Are attempts of this call made again, whatever the app did with them?
    pub fn repeats(&self, call: &Call) -> bool {
        let plain = call.script.whom == Whom::Remote && !call.script.stream;
        plain && self.retry.is_some_and(|retry| retry.most > 0)
    }

    /// The time that an attempt of this call has.
    pub fn time(&self, call: &Call) -> Option<Duration> {
        let plain = call.script.whom == Whom::Remote && !call.script.stream;
        self.timeout.filter(|_| plain)
    }

    /// A call reaches an app after others of its attempts did.
    pub fn check_another(&self, call: &Call, now: Instant) {
        let id = call.script.id;
        let refused = |reset: Option<ErrorCode>| reset == Some(ErrorCode::REFUSED_STREAM);
        let taken = call.earlier.iter().filter(|side| !refused(side.reset)).count();
        let most = self.retry.map_or(0, |retry| retry.most);
        assert!(call.earlier.len() < 2 * (most + 1), "call {id}: {} attempts", call.earlier.len());
        if !self.repeats(call) {
            assert_eq!(taken, 0, "call {id} reaches an app twice");
            return;
        }
        assert!(taken <= most, "call {id}: {taken} retries of {most}");
        let (Some(retry), Some(before)) = (self.retry, call.earlier.last()) else { return };
        let fate = call.script.fates.get(call.earlier.len() - 1);
        if let (true, Some(fate @ Fate::Status { code, .. })) = (self.strict, fate) {
            assert!(retry.matches(*code) && !fate.stops(), "call {id} is tried again");
            let said = before.said_at.expect("a failure was told");
            let wait =
                if fate.pushes_back() || retry.exponential { Duration::ZERO } else { retry.wait };
            assert!(now >= said + wait, "call {id} is tried again too soon");
        }
    }

    /// A call ended with what its app made of this attempt: ought there to be another one?
    pub fn owes_another(&self, call: &Call, attempt: usize) -> bool {
        let free = self.breaker.is_none() && self.budget.is_none() && call.script.timeout.is_none();
        let (Some(retry), true, true) = (self.retry, self.strict && free, self.repeats(call))
        else {
            return false;
        };
        match call.script.fates.get(attempt) {
            Some(fate @ Fate::Status { code, .. }) => {
                retry.matches(*code) && !fate.stops() && attempt < retry.most
            }
            Some(Fate::Reset(_) | Fate::Silent) | None => false,
        }
    }

    /// A status that is a policy's.
    pub fn allows(&self, call: &Call, code: u8, message: &str) -> bool {
        let remote = call.script.whom == Whom::Remote;
        let broken = ["circuit breaker is open", "too many requests"].contains(&message);
        let late = message == "context deadline exceeded";
        let several = message.starts_with("cannot use resiliency policies with retries on stream");
        remote
            && ((code == 2 && broken && self.breaker.is_some())
                || (code == 4 && late && self.timeout.is_some())
                || (code == 9 && several && self.repeats(call) && call.script.requests > 1))
    }

    /// Retries that a budget lets be, in all workers together, within a time.
    pub fn retries_max(&self, calls: usize, workers: usize, time: Duration) -> Option<usize> {
        let paid = calls * self.budget? as usize / 100;
        Some(paid + workers * (11 + 10 * (time.as_secs() as usize + 1)))
    }
}

/// What the breaker's lines say, which all workers write together.
#[derive(Debug)]
pub struct BreakerLog {
    state: String,
    since: Instant,
    timeout: Duration,
}

impl BreakerLog {
    pub fn new(breaker: Breaker, now: Instant) -> Self {
        Self { state: "closed".to_owned(), since: now, timeout: breaker.timeout }
    }

    pub fn hear(&mut self, line: &str, now: Instant) {
        let Some((_, change)) = line.split_once(" changed state from ") else { return };
        let (from, to) = change.split_once(" to ").expect("a change");
        assert_eq!(from, self.state, "{line}");
        match (from, to) {
            ("open", "half-open") => {
                assert!(now > self.since + self.timeout, "{line} after {:?}", now - self.since);
            }
            ("closed" | "half-open", "open") | ("half-open", "closed") => {}
            _ => panic!("{line}"),
        }
        (self.state, self.since) = (to.to_owned(), now);
    }
}
