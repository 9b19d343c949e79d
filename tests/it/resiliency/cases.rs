//! What is asked: policies, and calls under them. No expectations: those come from a real daprd.

/// One call, or several of one caller one after the other.
pub struct Case {
    pub name: String,
    /// The namespace behind `server.`, by which its policy is found.
    pub target: &'static str,
    /// What the app does with each attempt (`app::play`).
    pub script: String,
    /// Of `probe call`.
    pub args: &'static [&'static str],
    pub stream: bool,
    /// Whether the first attempt reaches the app before what ends it comes is chance.
    pub by_chance: bool,
    /// Why ringside differs, with what it does instead: attempts seen by the app, and outcomes.
    pub differs: Option<Differs>,
}

pub struct Differs {
    pub why: &'static str,
    pub attempts: usize,
    pub outcomes: &'static [(&'static str, &'static str)],
}

/// One file for all: a target is `server.NAMESPACE`; what has no entry gets the defaults.
pub const POLICIES: &str = r#"
kind: Resiliency
metadata: {name: cases}
spec:
  policies:
    timeouts: {short: 1s, long: 20s, DefaultAppTimeoutPolicy: 20s}
    retries:
      two: {duration: 10ms, maxRetries: 2}
      three: {duration: "10", maxRetries: 3}
      never: {duration: 10ms, maxRetries: 0}
      once-growing: {policy: exponential, maxInterval: 20ms, maxRetries: 1}
      some: {duration: 10ms, maxRetries: 2, matching: {gRPCStatusCodes: "6,14"}}
      ranges: {duration: 10ms, maxRetries: 2, matching: {gRPCStatusCodes: "1-4,8", httpStatusCodes: "500"}}
      http: {duration: 10ms, maxRetries: 2, matching: {httpStatusCodes: "500"}}
      slow: {duration: 5s, maxRetries: 2}
      past-breaker: {duration: 700ms, maxRetries: 2}
      DefaultRetryPolicy: {duration: 10ms, maxRetries: 1}
    circuitBreakers:
      default: {}
      two-in-a-row: {trip: consecutiveFailures > 1}
      share: {trip: requests >= 4 && totalFailures * 2 >= requests}
      quick: {timeout: 200ms, trip: consecutiveFailures > 0}
      quick-two: {timeout: 200ms, maxRequests: 2, trip: consecutiveFailures > 0}
      never: {trip: failures > 0}
      no-answer: {trip: requests}
  targets:
    apps:
      server.none: {}
      server.two: {retry: two}
      server.three: {retry: three}
      server.never: {retry: never}
      server.growing: {retry: once-growing}
      server.some: {retry: some}
      server.ranges: {retry: ranges}
      server.http: {retry: http}
      server.slow: {retry: slow}
      server.short: {timeout: short}
      server.short-two: {timeout: short, retry: two}
      server.short-some: {timeout: short, retry: some}
      server.missing: {timeout: nothing, retry: nothing, circuitBreaker: nothing}
      server.breaker: {circuitBreaker: default}
      server.two-in-a-row: {circuitBreaker: two-in-a-row}
      server.share: {circuitBreaker: share}
      server.breaker-three: {retry: three, circuitBreaker: two-in-a-row}
      server.quick: {retry: past-breaker, circuitBreaker: quick}
      server.quick-two: {retry: past-breaker, circuitBreaker: quick-two}
      server.breaker-never: {circuitBreaker: never}
      server.no-answer: {circuitBreaker: no-answer}
      server.short-breaker: {timeout: short, circuitBreaker: two-in-a-row}
      dead.two: {retry: two}
      dead.some: {retry: some}
      dead.breaker: {circuitBreaker: two-in-a-row}
"#;

fn case(name: &str, target: &'static str, script: &str) -> Case {
    Case {
        name: name.to_owned(),
        target,
        script: script.to_owned(),
        args: &[],
        stream: false,
        by_chance: false,
        differs: None,
    }
}

fn with(args: &'static [&'static str], case: Case) -> Case {
    Case { args, ..case }
}

fn streaming(case: Case) -> Case {
    Case { stream: true, ..case }
}

pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for code in 1..=16 {
        cases.push(case(&format!("any status {code}"), "server.two", &code.to_string()));
        cases.push(case(&format!("named status {code}"), "server.some", &code.to_string()));
    }
    for code in [1, 4, 5, 8, 14] {
        cases.push(case(&format!("status {code} in a range"), "server.ranges", &code.to_string()));
    }
    cases.extend(retries());
    cases.extend(timeouts());
    cases.extend(breakers());
    cases.extend(streams());
    cases.extend(differing());
    cases
}

fn retries() -> Vec<Case> {
    vec![
        case("no policy for it", "server.none", "14,ok"),
        case("names of nothing", "server.missing", "14,ok"),
        case("the defaults", "server.anywhere", "14,14,ok"),
        case("success at once", "server.two", "ok"),
        case("success after one", "server.two", "14,ok"),
        case("success after two", "server.three", "5,13,ok"),
        case("one failure too many", "server.two", "14,14,14,ok"),
        case("no retries", "server.never", "14,ok"),
        case("growing waits", "server.growing", "14,ok"),
        case("only HTTP statuses named", "server.http", "14,ok"),
        case("a head before the status", "server.two", "h14,ok"),
        case("a head before each status", "server.two", "h14"),
        case("a reset", "server.two", "r2,ok"),
        case("a reset that is not named", "server.some", "r2,ok"),
        Case {
            by_chance: true,
            ..with(&["-messages", "2"], case("two messages", "server.two", "ok"))
        },
        with(&["-messages", "2"], case("two messages, no retries", "server.never", "ok")),
        with(&["-size", "100000"], case("a large message", "server.two", "14,ok")),
        with(&["-deadline", "500ms"], case("a deadline while waiting", "server.slow", "14,ok")),
        case("nobody listens", "dead.two", "ok"),
        case("nobody listens, other statuses named", "dead.some", "ok"),
    ]
}

fn timeouts() -> Vec<Case> {
    vec![
        case("a timeout", "server.short", "hang"),
        case("a timeout, then an answer", "server.short-two", "hang,ok"),
        case("timeouts only", "server.short-two", "hang"),
        case("an answer in time", "server.short", "ok"),
        with(
            &["-deadline", "200ms"],
            case("a deadline before the timeout", "server.short-two", "hang"),
        ),
    ]
}

fn breakers() -> Vec<Case> {
    vec![
        with(&["-times", "8"], case("the default breaker", "server.breaker", "5")),
        with(&["-times", "4"], case("two failures in a row", "server.two-in-a-row", "14")),
        with(&["-times", "5"], case("failures not in a row", "server.two-in-a-row", "14,ok,14,ok")),
        with(&["-times", "6"], case("a share of failures", "server.share", "ok,14,ok,14,ok")),
        with(&["-times", "2"], case("a breaker ends retries", "server.breaker-three", "14")),
        case("a trial succeeds", "server.quick", "14,ok"),
        case("trials fail", "server.quick", "14"),
        with(&["-times", "3"], case("two trials are wanted", "server.quick-two", "14,ok,14,ok")),
        with(&["-times", "9"], case("an unknown name in trip", "server.breaker-never", "14")),
        with(&["-times", "9"], case("trip is no truth", "server.no-answer", "14")),
        with(&["-times", "3"], case("timeouts are failures", "server.short-breaker", "hang")),
        with(&["-times", "4"], case("refused dials are failures", "dead.breaker", "ok")),
    ]
}

fn streams() -> Vec<Case> {
    vec![
        streaming(case("a stream's status", "server.two", "14,ok")),
        streaming(with(&["-messages", "3"], case("a stream's messages", "server.two", "ok"))),
        streaming(case("a stream outlives the timeout", "server.short", "late")),
        streaming(with(
            &["-times", "4"],
            case("streams that fail later", "server.two-in-a-row", "14"),
        )),
        streaming(case("a stream to nobody", "dead.two", "ok")),
        streaming(with(&["-times", "4"], case("streams to nobody", "dead.breaker", "ok"))),
    ]
}

fn differing() -> Vec<Case> {
    vec![
        Case {
            differs: Some(Differs {
                why: "nothing is sent again after the first octet of a response",
                attempts: 1,
                outcomes: &[("Unavailable", "attempt 1")],
            }),
            ..case("a message before the status", "server.two", "m14,ok")
        },
        Case {
            differs: Some(Differs {
                why: "grpc-retry-pushback-ms is heeded",
                attempts: 1,
                outcomes: &[("Unavailable", "attempt 1")],
            }),
            ..case("a pushback", "server.two", "p14,ok")
        },
    ]
}
