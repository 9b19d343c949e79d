//! Resiliency resources, compiled: what becomes of a call to an app.
//!
//! Source: `EndpointPolicy` and what it reads in Dapr's `pkg/resiliency/resiliency.go`.
//!
//! 1. Later resources lay their names over those of earlier ones.
//! 2. A target is the very text of `dapr-app-id`; one that has no entry gets the defaults, each
//!    looked up for itself. A name that there is no policy of is none.
//! 3. What is looked up here is looked up once for each method (`proxy::memo`), not for each call.

use super::breaker::{Breakers, CACHE_SIZE_MAX, Rules};
use super::retry::Retry;
use super::trip::Trip;
use crate::config::go::GoDuration;
use crate::config::resiliency::{AppPolicies, BreakerSpec, Resiliency, RetrySpec, wrong_trip};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Breakers of all targets together that have no entry of their own; daprd keeps 100 for each.
const DEFAULT_BREAKERS: usize = 1024;

/// What applies to calls to one target.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    pub timeout: Option<Duration>,
    pub retry: Option<Retry>,
    pub breakers: Option<Arc<Breakers>>,
}

impl Policy {
    fn is_none(&self) -> bool {
        self.timeout.is_none() && self.retry.is_none() && self.breakers.is_none()
    }
}

/// Breakers, and whose they are.
#[derive(Debug)]
pub struct Owned {
    /// `None`: they are of all targets that have no entry of their own.
    pub app: Option<String>,
    /// The name of the policy that says how they behave.
    pub policy: String,
    pub breakers: Arc<Breakers>,
}

/// See the file's text.
#[derive(Debug)]
pub struct Targets {
    apps: HashMap<String, Policy>,
    default: Policy,
    breakers: Vec<Owned>,
    /// Workers that use them.
    joined: AtomicUsize,
}

impl Targets {
    /// The number by which a worker names itself to breakers.
    pub fn join(&self) -> usize {
        self.joined.fetch_add(1, Ordering::Relaxed)
    }

    /// What applies to calls to `app`, as callers spell it; `None`: nothing.
    pub fn of(&self, app: &[u8]) -> Option<Policy> {
        let named = std::str::from_utf8(app).ok().and_then(|app| self.apps.get(app));
        let policy = named.unwrap_or(&self.default);
        (!policy.is_none()).then(|| policy.clone())
    }

    /// In the order of their apps' names; those of all others come last.
    pub fn breakers(&self) -> &[Owned] {
        &self.breakers
    }

    /// Whether a target has an entry of its own.
    pub fn is_named(&self, app: &str) -> bool {
        self.apps.contains_key(app)
    }
}

/// Puts resources together.
#[derive(Debug)]
pub struct Builder {
    timeouts: BTreeMap<String, GoDuration>,
    retries: BTreeMap<String, RetrySpec>,
    breakers: BTreeMap<String, (BreakerSpec, Arc<Trip>)>,
    apps: BTreeMap<String, AppPolicies>,
}

/// daprd's own policies: names, and retries after the first attempt.
const BUILT_IN: [(&str, bool, u32); 5] = [
    ("DaprBuiltInServiceRetries", false, 3),
    ("DaprBuiltInActorRetries", false, 3),
    ("DaprBuiltInActorReminderRetries", true, 0),
    ("DaprBuiltInInitializationRetries", true, 3),
    ("DaprBuiltInActorNotFoundRetries", false, 5),
];
const PROTECTED: &str = "DaprBuiltInActorNotFoundRetries";
const BUILT_IN_RETRIES_MIN: u32 = 3;

impl Default for Builder {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        let built_in = |(name, exponential, retries): (&str, bool, u32)| {
            let spec = RetrySpec {
                exponential,
                duration: second,
                max_retries: Some(retries),
                ..RetrySpec::default()
            };
            (name.to_owned(), spec)
        };
        Self {
            timeouts: BTreeMap::new(),
            retries: BUILT_IN.into_iter().map(built_in).collect(),
            breakers: BTreeMap::new(),
            apps: BTreeMap::new(),
        }
    }
}

impl Builder {
    /// Lays a resource over what is there; gives lines for the log. On an error nothing of it is
    /// taken.
    pub fn add(&mut self, resource: Resiliency) -> Result<Vec<String>, String> {
        let mut breakers = BTreeMap::new();
        for (name, spec) in resource.breakers {
            let trip = spec.trip.as_deref();
            let compiled = Trip::compile(trip);
            let compiled =
                compiled.map_err(|why| wrong_trip(&name, trip.unwrap_or_default(), &why))?;
            breakers.insert(name, (spec, Arc::new(compiled)));
        }
        let mut warnings = Vec::new();
        for (name, spec) in resource.retries {
            self.add_retry(name, spec, &mut warnings);
        }
        for (name, app) in &resource.apps {
            if app.cache_size > CACHE_SIZE_MAX {
                warnings.push(format!(
                    "Target {name}: circuitBreakerCacheSize {} is more than ringside keeps: \
                     {CACHE_SIZE_MAX}",
                    app.cache_size
                ));
            }
        }
        self.timeouts.extend(resource.timeouts);
        self.breakers.extend(breakers);
        self.apps.extend(resource.apps);
        Ok(warnings)
    }

    fn add_retry(&mut self, name: String, mut spec: RetrySpec, warnings: &mut Vec<String>) {
        let built_in = BUILT_IN.iter().any(|(known, ..)| *known == name);
        if name == PROTECTED {
            warnings.push(format!(
                "Attempted to override protected policy {name} which is not allowed. Ignoring \
                 provided policy and using default."
            ));
            return;
        }
        if built_in && spec.max_retries.is_none_or(|max| max < BUILT_IN_RETRIES_MIN) {
            warnings.push(format!(
                "Attempted override of {name} did not meet minimum retry count, resetting to 3."
            ));
            spec.max_retries = Some(BUILT_IN_RETRIES_MIN);
        }
        self.retries.insert(name, spec);
    }

    /// For at most `workers` workers; time begins now.
    pub fn build(&self, workers: usize, now: Instant) -> Targets {
        let mut breakers = Vec::new();
        let mut own = |app: Option<&String>, parts: &Parts<'_>, policy: &Policy| {
            if let (Some((name, ..)), Some(made)) = (parts.breaker, &policy.breakers) {
                let (app, policy) = (app.cloned(), name.to_owned());
                breakers.push(Owned { app, policy, breakers: Arc::clone(made) });
            }
        };
        let mut apps = HashMap::new();
        for (name, app) in &self.apps {
            let parts = self.policy([&app.timeout], [&app.retry], [&app.breaker]);
            let policy = parts.build(app.cache_size, workers, now);
            own(Some(name), &parts, &policy);
            apps.insert(name.clone(), policy);
        }
        let parts = self.policy(
            ["DefaultAppTimeoutPolicy", "DefaultTimeoutPolicy"],
            ["DefaultAppRetryPolicy", "DefaultRetryPolicy"],
            ["DefaultAppCircuitBreakerPolicy", "DefaultCircuitBreakerPolicy"],
        );
        let default = parts.build(DEFAULT_BREAKERS, workers, now);
        own(None, &parts, &default);
        Targets { apps, default, breakers, joined: AtomicUsize::new(0) }
    }

    /// The first that there is of each list of names.
    fn policy<const N: usize>(
        &self,
        timeouts: [&str; N],
        retries: [&str; N],
        breakers: [&str; N],
    ) -> Parts<'_> {
        Parts {
            timeout: timeouts.iter().find_map(|name| self.timeouts.get(*name)).copied(),
            retry: retries.iter().find_map(|name| self.retries.get(*name)).copied(),
            breaker: breakers.iter().find_map(|name| {
                let (name, (spec, trip)) = self.breakers.get_key_value(*name)?;
                Some((name.as_str(), spec, trip))
            }),
        }
    }
}

struct Parts<'a> {
    timeout: Option<GoDuration>,
    retry: Option<RetrySpec>,
    /// With its name.
    breaker: Option<(&'a str, &'a BreakerSpec, &'a Arc<Trip>)>,
}

impl Parts<'_> {
    fn build(&self, cache_size: usize, workers: usize, now: Instant) -> Policy {
        let breakers = self.breaker.map(|(_, spec, trip)| {
            let rules = Rules::new(spec, Arc::clone(trip));
            Arc::new(Breakers::new(rules, cache_size, workers, now))
        });
        Policy {
            timeout: self.timeout.and_then(GoDuration::positive),
            retry: self.retry.map(Retry::new),
            breakers,
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::config::resiliency::Document;

    fn add(builder: &mut Builder, spec: &str) -> Result<Vec<String>, String> {
        let text = format!("kind: Resiliency\nmetadata: {{name: r}}\nspec: {{{spec}}}");
        let document = Document::read(&text).unwrap().unwrap();
        builder.add(document.decode()?)
    }

    fn policies(specs: &[&str]) -> Targets {
        let mut builder = Builder::default();
        specs.iter().for_each(|spec| drop(add(&mut builder, spec).unwrap()));
        builder.build(1, Instant::now())
    }

    /// The wait of a constant policy, in milliseconds.
    fn wait(policy: &Policy) -> Option<u128> {
        let now = Instant::now();
        let mut backoff = super::super::retry::Backoff::new(now);
        Some(policy.retry?.next(&mut backoff, 0.5, now)?.as_millis())
    }

    #[test]
    fn later_resources_lie_over_earlier_ones() {
        let policies = policies(&[
            "policies: {timeouts: {t: 1s}, retries: {r: {duration: 1}}, circuitBreakers: {c: {}}}, \
             targets: {apps: {a: {timeout: t, retry: r}, b: {timeout: t}}}",
            "policies: {timeouts: {t: 2s}, retries: {r: {duration: 2}}}, \
             targets: {apps: {a: {retry: r, circuitBreaker: c}}}",
        ]);
        let a = policies.of(b"a").unwrap();
        assert_eq!((a.timeout, wait(&a), a.breakers.is_some()), (None, Some(2), true));
        let b = policies.of(b"b").unwrap();
        assert_eq!(b.timeout, Some(Duration::from_secs(2)));
        assert!(b.retry.is_none() && b.breakers.is_none());
        assert!(policies.of(b"c").is_none() && policies.of(b"a.ns").is_none());
        assert!(policies.of(b"\xff").is_none());
    }

    #[test]
    fn targets_without_an_entry_get_the_defaults() {
        let all = policies(&[
            "policies: {timeouts: {DefaultTimeoutPolicy: 1s, DefaultAppTimeoutPolicy: 2s}, \
             retries: {DefaultRetryPolicy: {duration: 7}}, \
             circuitBreakers: {DefaultAppCircuitBreakerPolicy: {}}}, \
             targets: {apps: {named: {timeout: nothing, retry: \"\"}, \
             built-in: {retry: DaprBuiltInServiceRetries}}}",
        ]);
        let any = all.of(b"any.ns").unwrap();
        assert_eq!((any.timeout, wait(&any)), (Some(Duration::from_secs(2)), Some(7)));
        assert!(any.breakers.is_some());
        // An entry that says nothing is still one.
        assert!(all.of(b"named").is_none());
        assert_eq!(wait(&all.of(b"built-in").unwrap()), Some(1000));
        assert!(policies(&["policies: {timeouts: {other: 1s}}"]).of(b"any").is_none());
    }

    #[test]
    fn built_in_policies_are_daprs() {
        let mut builder = Builder::default();
        let warnings = add(
            &mut builder,
            "policies: {retries: {DaprBuiltInServiceRetries: {duration: 5, maxRetries: 1}, \
             DaprBuiltInActorNotFoundRetries: {duration: 5}}}, targets: {apps: \
             {a: {retry: DaprBuiltInServiceRetries}, b: {retry: DaprBuiltInActorNotFoundRetries}}}",
        );
        let expected = [
            "Attempted to override protected policy DaprBuiltInActorNotFoundRetries which is not \
             allowed. Ignoring provided policy and using default.",
            "Attempted override of DaprBuiltInServiceRetries did not meet minimum retry count, \
             resetting to 3.",
        ];
        assert_eq!(warnings.unwrap(), expected);
        let policies = builder.build(1, Instant::now());
        let waits = [&b"a"[..], b"b"].map(|app| wait(&policies.of(app).unwrap()));
        assert_eq!(waits, [Some(5), Some(1000)]);
    }

    #[test]
    fn a_resource_is_taken_whole_or_not_at_all() {
        let mut builder = Builder::default();
        let error = add(
            &mut builder,
            "policies: {timeouts: {DefaultTimeoutPolicy: 1s}, \
             circuitBreakers: {x: {trip: \"consecutiveFailures >\"}}}",
        );
        let begins = "invalid retry configuration \"x\": 1 error(s) decoding:\n\n* error decoding \
                      'trip': invalid Expr \"consecutiveFailures >\": ";
        let error = error.unwrap_err();
        assert!(error.starts_with(begins), "{error}");
        assert!(builder.build(1, Instant::now()).of(b"any").is_none());
        let warnings = add(&mut builder, "targets: {apps: {a: {circuitBreakerCacheSize: 5000}}}");
        let text = "Target a: circuitBreakerCacheSize 5000 is more than ringside keeps: 4096";
        assert_eq!(warnings.unwrap(), [text]);
    }
}
