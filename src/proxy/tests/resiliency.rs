//! Calls under Resiliency policies.

use super::*;
use crate::config::resiliency::Document;
use crate::policy::resiliency::{Builder, Targets};

pub(super) const OK: &str = "grpc-status=0 END";
pub(super) const TO: [(&str, &str); 1] = [("dapr-app-id", "server")];
pub(super) const FAILED: [(&str, &str); 3] =
    [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "14")];
pub(super) const HEAD: [(&str, &str); 2] =
    [(":status", "200"), ("content-type", "application/grpc")];

/// Three retries, 100 ms apart, of a call that may take a second each time.
pub(super) const SPEC: &str = "policies: {timeouts: {t: 1s}, \
                    retries: {r: {duration: 100ms, maxRetries: 3}}}, \
                    targets: {apps: {server: {timeout: t, retry: r}}}";
pub(super) const BREAKER: &str = "policies: {circuitBreakers: \
                       {c: {timeout: 5s, trip: consecutiveFailures > 1}}}, \
                       targets: {apps: {server: {circuitBreaker: c}}}";

pub(super) fn policies(spec: &str, workers: usize, now: Instant) -> Arc<Targets> {
    let text = format!("kind: Resiliency\nspec: {{{spec}}}");
    let document = Document::read(&text).unwrap().unwrap();
    let mut builder = Builder::default();
    builder.add(document.decode().unwrap()).unwrap();
    Arc::new(builder.build(workers, now))
}

impl Bench {
    pub(super) fn with_policies(config: Config, policies: Arc<Targets>) -> Self {
        let mut bench = Self::new(config);
        bench.now_under(Some(policies));
        bench
    }

    fn now_under(&mut self, policies: Option<Arc<Targets>>) {
        let mut snapshot = Snapshot::clone(&self.proxy.snapshot);
        snapshot.epoch = Epoch(snapshot.epoch.0 + 1);
        snapshot.resiliency = policies;
        self.handle(Input::Snapshot(Arc::new(snapshot)));
    }

    #[allow(clippy::disallowed_methods)]
    pub(super) fn with_spec(spec: &str) -> Self {
        Self::with_policies(config(), policies(spec, 1, Instant::now()))
    }

    /// Caller and callee's sidecar, between them one call with its message.
    pub(super) fn begin(&mut self, more: &[(&str, &str)]) -> (ConnId, ConnId) {
        let caller = self.accept(Listener::Api);
        self.call(caller, &[&TO[..], more].concat(), Some(MESSAGE));
        self.resolve();
        (caller, self.dial_done())
    }

    /// Nobody listens where the target is, whenever it is asked for.
    pub(super) fn fail_dials(&mut self) {
        for _ in 0..9 {
            let (dials, resolves) = (self.dialed.len(), self.resolves.len());
            let (conn, ..) = *self.dialed.last().expect("a dial");
            self.handle(Input::DialFailed { conn, error: "connection refused".to_owned() });
            if self.resolves.len() > resolves {
                self.resolve();
            }
            if self.dialed.len() == dials {
                return;
            }
        }
    }

    pub(super) fn ms(&mut self, ms: u64) {
        self.wait(Duration::from_millis(ms));
    }

    pub(super) fn attempts(&self, callee: ConnId) -> usize {
        self.count(callee, "HEADERS :method=POST")
    }
}

#[test]
fn a_failed_call_is_tried_again() {
    let mut bench = Bench::with_spec(SPEC);
    let (caller, callee) = bench.begin(&[("x-mine", "1")]);
    for (attempt, stream) in [1, 3].into_iter().enumerate() {
        bench.say(callee, stream, &FAILED, true);
        assert_eq!(bench.attempts(callee), attempt + 1);
        assert_eq!(bench.last(caller), "");
        bench.ms(99);
        assert_eq!(bench.attempts(callee), attempt + 1, "the wait is not over");
        bench.ms(1);
        assert_eq!(bench.attempts(callee), attempt + 2);
        assert_eq!(bench.bodies[&(callee, stream + 2)], MESSAGE);
    }
    let heads: Vec<&String> =
        bench.seen[&callee].iter().filter(|seen| seen.contains("HEADERS")).collect();
    assert_eq!(heads[0][2..], heads[2][2..], "the same head each time");
    bench.answer(callee, 5, MESSAGE);
    let seen = &bench.seen[&caller];
    assert_eq!(seen[0], "1 HEADERS :status=200 content-type=application/grpc");
    assert_eq!(seen[1..], ["1 DATA 7".to_owned(), format!("1 HEADERS {OK}")]);
    assert_eq!((bench.proxy.calls(), bench.lines), (0, 2), "a warning, a recovery");
    assert!(bench.proxy.keeper.is_empty() && bench.proxy.guards.is_empty());
}

/// The last attempt's status is the call's.
#[test]
fn retries_are_counted() {
    let mut bench = Bench::with_spec(SPEC);
    let (caller, callee) = bench.begin(&[]);
    for stream in [1, 3, 5, 7] {
        let message = format!("attempt {stream}");
        bench.say(callee, stream, &[&FAILED[..], &[("grpc-message", &message)]].concat(), true);
        bench.ms(100);
    }
    assert_eq!(bench.attempts(callee), 4);
    assert!(
        bench.last(caller).contains("grpc-status=14 grpc-message=attempt 7"),
        "{:?}",
        bench.seen
    );
    assert!(bench.proxy.keeper.is_empty() && bench.proxy.guards.is_empty());
}

/// Only what the policy names, as far as the callee told a status.
#[test]
fn statuses_must_match() {
    let spec = SPEC.replace("maxRetries: 3", "maxRetries: 3, matching: {gRPCStatusCodes: 1-13}");
    let mut bench = Bench::with_spec(&spec);
    let (caller, callee) = bench.begin(&[]);
    bench.say(callee, 1, &FAILED, true);
    assert!(bench.last(caller).contains("grpc-status=14"));
    // No stream comes about: there is no status to look at.
    bench.handle(Input::Closed { conn: callee, reason: CloseReason::Eof });
    bench.call(caller, &TO, Some(MESSAGE));
    let mut attempts = 0;
    while bench.proxy.calls() > 0 && attempts < 9 {
        attempts += 1;
        bench.fail_dials();
        let resolves = bench.resolves.len();
        bench.ms(100);
        if bench.resolves.len() > resolves {
            bench.resolve();
        }
    }
    assert_eq!(attempts, 4);
    assert!(bench.last(caller).contains("grpc-message=connection refused"), "{:?}", bench.seen);
}

/// A head may come before the status: it waits for the first message, or for the end.
#[test]
fn a_head_alone_is_no_answer() {
    let mut bench = Bench::with_spec(SPEC);
    let (caller, callee) = bench.begin(&[]);
    bench.say(callee, 1, &[&HEAD[..], &[("x-head", "first")]].concat(), false);
    assert_eq!(bench.last(caller), "");
    bench.say(callee, 1, &[("grpc-status", "14")], true);
    bench.ms(100);
    bench.say(callee, 3, &[&HEAD[..], &[("x-head", "second")]].concat(), false);
    bench.say(callee, 3, &[("grpc-status", "0")], true);
    let head = "1 HEADERS :status=200 content-type=application/grpc x-head=second";
    assert_eq!(bench.seen[&caller], [head.to_owned(), format!("1 HEADERS {OK}")]);
    assert!(bench.proxy.keeper.is_empty());
}

#[test]
fn nothing_follows_the_first_octet() {
    let mut bench = Bench::with_spec(SPEC);
    let (caller, callee) = bench.begin(&[]);
    bench.say(callee, 1, &HEAD, false);
    bench.send(callee, StreamId(1), MESSAGE, false);
    assert_eq!(bench.seen[&caller].len(), 2);
    bench.say(callee, 1, &[("grpc-status", "14")], true);
    assert_eq!(bench.last(caller), "1 HEADERS grpc-status=14 END");
    assert_eq!(bench.attempts(callee), 1);
}

#[test]
fn an_attempt_has_its_own_time() {
    let mut bench = Bench::with_spec(SPEC);
    let (caller, callee) = bench.begin(&[]);
    assert!(bench.seen[&callee][0].ends_with("grpc-timeout=1000000u"), "{:?}", bench.seen);
    for stream in [1, 3, 5] {
        bench.ms(999);
        assert_eq!(bench.count(callee, "RESET"), stream as usize / 2);
        bench.ms(1);
        assert_eq!(bench.last(callee), format!("{stream} RESET CANCEL"));
        bench.ms(100);
    }
    // The callee may be the first to notice.
    bench.now += Duration::from_secs(1);
    bench.reset(callee, 7, 8);
    let status = "grpc-status=4 grpc-message=context deadline exceeded END";
    assert!(bench.last(caller).contains(status), "{:?}", bench.seen[&caller]);
    assert_eq!(bench.attempts(callee), 4);
}

/// The caller's deadline ends attempts and waits alike.
#[test]
fn the_callers_time_bounds_all_attempts() {
    for answered in [false, true] {
        let mut bench = Bench::with_spec(SPEC);
        let (caller, callee) = bench.begin(&[("grpc-timeout", "50m")]);
        if answered {
            bench.say(callee, 1, &FAILED, true);
        }
        bench.ms(50);
        let status = "grpc-status=4 grpc-message=context deadline exceeded END";
        assert!(bench.last(caller).contains(status), "{:?}", bench.seen[&caller]);
        bench.ms(100);
        assert_eq!((bench.attempts(callee), bench.proxy.calls()), (1, 0));
        assert!(bench.proxy.keeper.is_empty() && bench.proxy.guards.is_empty());
    }
}

/// What waits ends when its caller goes, and no drain is over before it is.
#[test]
fn waiting_calls_are_calls() {
    let mut bench = Bench::with_spec(SPEC);
    let (caller, callee) = bench.begin(&[]);
    bench.say(callee, 1, &FAILED, true);
    bench.handle(Input::Drain);
    assert!(!bench.drained);
    bench.reset(caller, 1, 8);
    assert_eq!(bench.proxy.calls(), 0);
    bench.ms(100);
    assert_eq!(bench.attempts(callee), 1);
    assert!(bench.proxy.keeper.is_empty());
    bench.handle(Input::Closed { conn: caller, reason: CloseReason::Eof });
    assert!(bench.drained);
}

/// daprd keeps one message.
#[test]
fn a_second_message_is_refused() {
    let mut bench = Bench::with_spec(SPEC);
    let caller = bench.accept(Listener::Api);
    let stream = bench.call(caller, &TO, None);
    bench.resolve();
    let callee = bench.dial_done();
    bench.send(caller, stream, MESSAGE, false);
    bench.send(caller, stream, MESSAGE, false);
    let status = "grpc-status=9 grpc-message=cannot use resiliency policies with retries on \
                  streaming RPCs END";
    assert!(bench.seen[&caller].join("\n").contains(status), "{:?}", bench.seen[&caller]);
    assert_eq!(bench.last(callee), "1 RESET CANCEL");
    // With `dapr-stream` no policy concerns it.
    let stream = bench.call(caller, &[TO[0], ("dapr-stream", "1")], None);
    bench.send(caller, stream, MESSAGE, false);
    bench.send(caller, stream, MESSAGE, true);
    assert!(bench.last(callee).ends_with("DATA 7 END"), "{:?}", bench.seen[&callee]);
}

/// The policy's time ends when the callee's sidecar has the stream.
#[test]
fn a_silent_stream_lives() {
    let mut bench = Bench::with_spec(SPEC);
    let caller = bench.accept(Listener::Api);
    let stream = bench.call(caller, &[TO[0], ("dapr-stream", "true")], None);
    bench.resolve();
    let callee = bench.dial_done();
    assert!(!bench.seen[&callee][0].contains("grpc-timeout"), "{:?}", bench.seen);
    bench.ms(3100);
    bench.send(caller, stream, MESSAGE, false);
    assert!(bench.last(callee).ends_with("DATA 7"), "{:?}", bench.seen[&callee]);
    bench.answer(callee, 1, MESSAGE);
    assert!(bench.seen[&caller].contains(&format!("1 HEADERS {OK}")), "{:?}", bench.seen[&caller]);
    // It does end when there is no stream by then; and is tried again.
    let mut bench = Bench::with_spec(SPEC);
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &[TO[0], ("dapr-stream", "true")], Some(MESSAGE));
    bench.resolve();
    for _ in 0..3 {
        bench.ms(1000);
        assert_eq!(bench.last(caller), "");
        bench.ms(100);
    }
    bench.ms(1000);
    let status = "grpc-status=4 grpc-message=context deadline exceeded END";
    assert!(bench.last(caller).contains(status), "{:?}", bench.seen);
}

/// gRFC A6.
#[test]
fn the_callee_may_say_when_to_come_again() {
    let pushback = |ms: &'static str| [&FAILED[..], &[("grpc-retry-pushback-ms", ms)]].concat();
    let mut bench = Bench::with_spec(SPEC);
    let (caller, callee) = bench.begin(&[]);
    bench.say(callee, 1, &pushback("700"), true);
    bench.ms(699);
    assert_eq!(bench.attempts(callee), 1);
    bench.ms(1);
    assert_eq!(bench.attempts(callee), 2);
    bench.say(callee, 3, &pushback("0"), true);
    bench.ms(0);
    assert_eq!(bench.attempts(callee), 3);
    bench.say(callee, 5, &pushback("-1"), true);
    assert!(bench.last(caller).contains("grpc-status=14"), "{:?}", bench.seen[&caller]);
    assert!(bench.last(caller).contains("grpc-retry-pushback-ms=-1"));
}

#[test]
fn a_breaker_opens_and_closes() {
    let mut bench = Bench::with_spec(BREAKER);
    let (caller, callee) = bench.begin(&[]);
    bench.say(callee, 1, &FAILED, true);
    bench.call(caller, &TO, Some(MESSAGE));
    bench.reset(callee, 3, 2);
    let open = "grpc-status=2 grpc-message=circuit breaker is open END";
    bench.call(caller, &TO, Some(MESSAGE));
    assert!(bench.last(caller).contains(open), "{:?}", bench.seen[&caller]);
    assert_eq!(bench.attempts(callee), 2);
    // Methods have their own.
    bench.ms(5001);
    bench.call(caller, &TO, Some(MESSAGE));
    bench.call(caller, &TO, Some(MESSAGE));
    let too_many = "grpc-status=2 grpc-message=too many requests END";
    assert!(bench.last(caller).contains(too_many), "{:?}", bench.seen[&caller]);
    bench.answer(callee, 5, MESSAGE);
    bench.call(caller, &TO, Some(MESSAGE));
    assert_eq!(bench.attempts(callee), 4, "it is closed");
    assert_eq!(bench.lines, 3, "each change is told");
}

/// A caller that gives up is a failure, as there; a trial's place is free again in any case.
#[test]
fn cancelled_calls_count() {
    let mut bench = Bench::with_spec(BREAKER);
    let (caller, callee) = bench.begin(&[]);
    bench.reset(caller, 1, 8);
    bench.call(caller, &TO, Some(MESSAGE));
    bench.reset(caller, 3, 8);
    bench.call(caller, &TO, Some(MESSAGE));
    assert!(bench.last(caller).contains("circuit breaker is open"), "{:?}", bench.seen[&caller]);
    bench.ms(5001);
    bench.call(caller, &TO, Some(MESSAGE));
    bench.reset(caller, 7, 8);
    bench.call(caller, &TO, Some(MESSAGE));
    assert!(bench.last(caller).contains("circuit breaker is open"));
    assert_eq!(bench.attempts(callee), 3);
}

/// An app that nobody knows has no policy, from the beginning.
#[test]
fn unknown_apps_are_not_tried_again() {
    let both = "policies: {retries: {DefaultRetryPolicy: {duration: 100ms}}, \
                circuitBreakers: {DefaultCircuitBreakerPolicy: {trip: totalFailures > 0}}}";
    let mut bench = Bench::with_spec(both);
    let caller = bench.accept(Listener::Api);
    for round in 1..=3 {
        bench.call(caller, &TO, Some(MESSAGE));
        assert_eq!(bench.resolves.len(), round);
        let target = bench.resolves[0].clone();
        let result = Err("couldn't find service: server".into());
        bench.handle(Input::Resolved(Resolution { target, result }));
        assert!(bench.last(caller).contains("grpc-message=couldn't find service: server"));
    }
}

/// The pool of a target that nobody uses is dropped; a call that waits comes back to it.
#[test]
fn a_dropped_pool_is_made_again() {
    let mut bench = Bench::with_spec(SPEC);
    let caller = bench.accept(Listener::Api);
    bench.call(caller, &TO, Some(MESSAGE));
    bench.resolve();
    bench.fail_dials();
    assert_eq!((bench.proxy.pools.pools.len(), bench.proxy.calls()), (1, 1), "the app's is left");
    bench.ms(100);
    assert_eq!(bench.resolves.len(), 2, "asked anew");
    bench.resolve();
    let callee = bench.dial_done();
    assert_eq!(bench.bodies[&(callee, 1)], MESSAGE);
    bench.answer(callee, 1, MESSAGE);
    assert!(bench.last(caller).ends_with(OK), "{:?}", bench.seen);
    let cells = counted(&mut bench);
    let (.., server) = cells.methods().find(|(app, ..)| *app == b"server").unwrap();
    assert_eq!((server.sent, server.completed.len()), ([2, 0], 1));
    let statuses: Vec<_> = server.received.iter().map(|(code, n)| (*code, n.count)).collect();
    assert_eq!(statuses, [(14, 1), (0, 1)]);
}

/// A breaker is the process's: each worker's calls count for all.
#[test]
#[allow(clippy::disallowed_methods)]
fn workers_share_breakers() {
    let policies = policies(BREAKER, 2, Instant::now());
    let mut workers = [0, 1].map(|_| Bench::with_policies(config(), Arc::clone(&policies)));
    let mut callers = Vec::new();
    for bench in &mut workers {
        let (caller, callee) = bench.begin(&[]);
        bench.say(callee, 1, &FAILED, true);
        callers.push(caller);
    }
    for (bench, caller) in workers.iter_mut().zip(callers) {
        bench.call(caller, &TO, Some(MESSAGE));
        assert!(bench.last(caller).contains("circuit breaker is open"), "{:?}", bench.seen);
    }
}

/// The rest of a request that comes while its call waits goes with the next attempt; a window
/// that was given back for what is sent again is not given back twice.
#[test]
fn a_request_may_end_while_it_waits() {
    let mut bench = Bench::with_spec(SPEC);
    let caller = bench.accept(Listener::Api);
    let stream = bench.call(caller, &TO, None);
    bench.resolve();
    let callee = bench.dial_done();
    let size = 60_000_u32;
    let message = [&[0][..], &size.to_be_bytes(), &vec![b'x'; size as usize]].concat();
    bench.send(caller, stream, &message[..20_000], false);
    bench.say(callee, 1, &FAILED, true);
    bench.send(caller, stream, &message[20_000..], false);
    bench.ms(100);
    bench.send(caller, stream, &[], true);
    assert_eq!(bench.bodies[&(callee, 3)], message);
    assert!(bench.last(callee).ends_with("END"), "{:?}", bench.seen[&callee]);
    bench.answer(callee, 3, MESSAGE);
    assert!(bench.last(caller).ends_with(OK), "{:?}", bench.seen[&caller]);
    let caller = bench.ends.get(&caller).unwrap();
    assert_eq!(caller.streams(), 0);
    assert!(bench.proxy.keeper.is_empty());
}

/// A call ends under the policies that it began with, whatever holds by then.
#[test]
#[allow(clippy::disallowed_methods)]
fn running_calls_keep_their_policies() {
    let mut bench = Bench::with_spec(SPEC);
    let (caller, callee) = bench.begin(&[]);
    bench.now_under(None);
    bench.say(callee, 1, &FAILED, true);
    bench.ms(100);
    assert_eq!(bench.attempts(callee), 2, "tried again");
    bench.answer(callee, 3, MESSAGE);
    assert!(bench.last(caller).ends_with(OK));
    bench.call(caller, &TO, Some(MESSAGE));
    bench.say(callee, 5, &FAILED, true);
    assert!(bench.last(caller).contains("grpc-status=14"), "nobody tries the new one again");
    let running = bench.call(caller, &TO, Some(MESSAGE)).0;
    bench.now_under(Some(policies(SPEC, 1, Instant::now())));
    bench.ms(5000);
    assert_eq!(bench.attempts(callee), 4, "nor does the time of those that ran already end");
    bench.answer(callee, 7, MESSAGE);
    assert_eq!(*bench.last(caller), format!("{running} HEADERS {OK}"));
    bench.call(caller, &TO, Some(MESSAGE));
    bench.ms(1000);
    bench.ms(100);
    assert_eq!(bench.attempts(callee), 6, "the next call's does");
}

/// What comes of a call that a breaker let through counts for that one, not for its successor;
/// nor does it matter that workers have other numbers by then.
#[test]
#[allow(clippy::disallowed_methods)]
fn new_breakers_begin_anew() {
    let first = policies(BREAKER, 2, Instant::now());
    let mut workers = [0, 1].map(|_| Bench::with_policies(config(), Arc::clone(&first)));
    let calls = workers.each_mut().map(|bench| bench.begin(&[]));
    let second = policies(BREAKER, 2, Instant::now());
    for bench in workers.iter_mut().rev() {
        bench.now_under(Some(Arc::clone(&second)));
    }
    for (bench, (caller, callee)) in workers.iter_mut().zip(calls) {
        bench.say(callee, 1, &FAILED, true);
        bench.call(caller, &TO, Some(MESSAGE));
        assert_eq!(bench.attempts(callee), 2, "let through: {:?}", bench.seen[&caller]);
        bench.say(callee, 3, &FAILED, true);
    }
    let (bench, (caller, _)) = (&mut workers[0], calls[0]);
    bench.call(caller, &TO, Some(MESSAGE));
    assert!(bench.last(caller).contains("circuit breaker is open"), "{:?}", bench.seen[&caller]);
}
