//! Circuit breakers as they are now: for the admin socket and for the page.
//!
//! 1. Read where they are (`policy::breaker`), so no worker is asked and none waits.
//! 2. Names of methods are those that the metrics tell apart; a breaker of another one is told
//!    without.
//! 3. [`ROWS_MAX`] are told one by one, open ones first; of the rest, how many they are.

use crate::observe::cells::Cells;
use crate::policy::breaker::{Look, State};
use crate::policy::resiliency::{Owned, Targets};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const ROWS_MAX: usize = 500;

/// `cells`: the workers' together.
pub fn told(targets: Option<&Targets>, cells: &Cells, now: Instant) -> Value {
    let text = |octets| String::from_utf8_lossy(octets);
    let names: Vec<_> = cells.pairs().map(|(app, path)| (text(app), text(path))).collect();
    let mut looks: Vec<(&Owned, Look)> = Vec::new();
    for owned in targets.map(Targets::breakers).unwrap_or_default() {
        let methods = names.iter().map(|(app, path)| (&**app, &**path));
        let methods = methods.filter(|(app, _)| match &owned.app {
            Some(owner) => owner == app,
            None => targets.is_some_and(|targets| !targets.is_named(app)),
        });
        looks.extend(owned.breakers.look(methods, now).into_iter().map(|look| (owned, look)));
    }
    looks.sort_by_cached_key(|(owned, look)| {
        let quiet = look.counts.consecutive_failures == 0;
        (rank(look.state), quiet, owned.app.clone(), look.method.clone())
    });
    let left_out = looks.len().saturating_sub(ROWS_MAX);
    looks.truncate(ROWS_MAX);
    let rows: Vec<Value> = looks.iter().map(|(owned, look)| row(owned, look)).collect();
    json!({ "breakers": rows, "leftOut": left_out })
}

fn rank(state: State) -> u8 {
    match state {
        State::Open => 0,
        State::HalfOpen => 1,
        State::Closed => 2,
    }
}

fn row(owned: &Owned, look: &Look) -> Value {
    let (app, path) = look.method.as_ref().map(|(app, path)| (app, path)).unzip();
    let mut row = json!({
        "target": owned.app.as_ref().or(app),
        "method": path,
        "policy": owned.policy,
        "state": look.state.name(),
        "leftMs": look.left.map(millis),
    });
    let counts = &look.counts;
    match look.state {
        State::Open => {}
        State::HalfOpen => {
            row["trials"] = counts.requests.into();
            row["trialsSucceeded"] = counts.total_successes.into();
        }
        State::Closed => {
            row["requests"] = counts.requests.into();
            row["failures"] = counts.total_failures.into();
            row["failuresInRow"] = counts.consecutive_failures.into();
        }
    }
    row
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::config::resiliency::Document;
    use crate::observe::cells::Cells;
    use crate::policy::breaker;
    use crate::policy::resiliency::Builder;

    fn targets(now: Instant) -> Targets {
        let text = "kind: Resiliency\nmetadata: {name: r}\nspec:\n  policies:\n    \
                    circuitBreakers:\n      \
                    fast: {maxRequests: 2, timeout: 5s, trip: consecutiveFailures > 1}\n      \
                    DefaultCircuitBreakerPolicy: {trip: consecutiveFailures > 9}\n  \
                    targets: {apps: {server: {circuitBreaker: fast}, silent: {}}}\n";
        let mut builder = Builder::default();
        builder.add(Document::read(text).unwrap().unwrap().decode().unwrap()).unwrap();
        builder.build(1, now)
    }

    fn fail(targets: &Targets, app: &str, path: &str, times: usize, now: Instant) {
        let breakers = targets.of(app.as_bytes()).unwrap().breakers.unwrap();
        let seat = breakers.seat(breaker::name(app, path).as_bytes(), 0, now);
        for _ in 0..times {
            let permit = breakers.begin(seat, 0, now).unwrap().0.unwrap();
            let _ = breakers.end(0, permit, false, now);
        }
    }

    #[test]
    fn each_is_told_with_its_owner_as_the_next_call_would_find_it() {
        let now = Instant::now();
        let targets = targets(now);
        let mut cells = Cells::default();
        for (app, path) in [("other", "/a.B/C"), ("server", "/a.B/C"), ("server", "/a.B/D")] {
            cells.method(app.as_bytes(), path.as_bytes());
        }
        assert_eq!(told(Some(&targets), &cells, now), json!({ "breakers": [], "leftOut": 0 }));
        fail(&targets, "server", "/a.B/C", 2, now);
        fail(&targets, "server", "/a.B/D", 1, now);
        fail(&targets, "other", "/a.B/C", 3, now);
        fail(&targets, "other", "/not/counted", 0, now);
        let after = |seconds| now + Duration::from_secs(seconds);
        let failing = |target: &str, method: &str, policy: &str, failures: u32| {
            json!({ "target": target, "method": method, "policy": policy, "state": "closed",
                "leftMs": null, "requests": failures, "failures": failures,
                "failuresInRow": failures })
        };
        let rows = told(Some(&targets), &cells, after(2))["breakers"].clone();
        assert_eq!(
            rows[0],
            json!({ "target": "server", "method": "/a.B/C", "policy": "fast", "state": "open",
                "leftMs": 3000 })
        );
        let default = "DefaultCircuitBreakerPolicy";
        assert_eq!(rows[1], failing("other", "/a.B/C", default, 3));
        assert_eq!(rows[2], failing("server", "/a.B/D", "fast", 1));
        assert_eq!(
            rows[3],
            json!({ "target": null, "method": null, "policy": default, "state": "closed",
                "leftMs": null, "requests": 0, "failures": 0, "failuresInRow": 0 })
        );
        // Nobody has called since: the time alone is over.
        let rows = told(Some(&targets), &cells, after(6))["breakers"].clone();
        let half_open = json!({ "target": "server", "method": "/a.B/C", "policy": "fast",
            "state": "half-open", "leftMs": null, "trials": 0, "trialsSucceeded": 0 });
        assert_eq!(rows[0], half_open);
        let breakers = targets.of(b"server").unwrap().breakers.unwrap();
        let seat = breakers.seat(b"server:/a.B/C", 0, after(6));
        let _held = breakers.begin(seat, 0, after(6)).unwrap().0.unwrap();
        let permit = breakers.begin(seat, 0, after(6)).unwrap().0.unwrap();
        let _ = breakers.end(0, permit, true, after(6));
        let rows = told(Some(&targets), &cells, after(7))["breakers"].clone();
        assert_eq!((&rows[0]["trials"], &rows[0]["trialsSucceeded"]), (&json!(2), &json!(1)));
    }

    #[test]
    fn answers_are_bounded() {
        let now = Instant::now();
        let targets = targets(now);
        for number in 0..ROWS_MAX + 7 {
            fail(&targets, "other", &format!("/{number}"), 0, now);
        }
        let told = told(Some(&targets), &Cells::default(), now);
        assert_eq!(told["breakers"].as_array().map(Vec::len), Some(ROWS_MAX));
        assert_eq!(told["leftOut"], 7);
    }
}
