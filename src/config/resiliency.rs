//! The Resiliency resource as written: policies by name, and which targets use them.
//!
//! Sources: `pkg/resiliency/resiliency.go`, `pkg/resiliency/retry.go` of Dapr, `retry/retry.go` and
//! `config/decode.go` of its kit; texts of errors are theirs.
//!
//! 1. A resource is taken whole or not at all: daprd keeps what it read before it met a mistake,
//!    which is a matter of chance there (Go walks its maps in any order).
//! 2. Keys of fields are found whatever their case, as `encoding/json` does; unknown ones are
//!    ignored.

use super::go::{self, GoDuration};
use super::yaml;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// Named policies and targets of all resources; more are refused.
pub const NAMES_MAX: usize = 65_536;

/// Breakers of one target when `circuitBreakerCacheSize` says nothing.
const CACHE_SIZE_DEFAULT: usize = 100;
/// `backoff.DefaultMaxInterval` and kit's `retry.DefaultConfig`.
const RETRY_DURATION_DEFAULT: Duration = Duration::from_secs(5);
const MAX_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);

/// A document of kind Resiliency, its fields not looked into yet.
#[derive(Clone, Debug)]
pub struct Document {
    pub name: String,
    pub namespace: String,
    scopes: Vec<String>,
    spec: Value,
}

/// What a resource says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resiliency {
    pub name: String,
    pub namespace: String,
    /// A negative or zero one is none.
    pub timeouts: BTreeMap<String, GoDuration>,
    pub retries: BTreeMap<String, RetrySpec>,
    pub breakers: BTreeMap<String, BreakerSpec>,
    pub apps: BTreeMap<String, AppPolicies>,
    /// Kinds of targets that are named and that no gRPC call has: `actors`, `components`.
    pub others: Vec<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrySpec {
    pub exponential: bool,
    /// Between attempts, if constant.
    pub duration: Duration,
    /// The longest between attempts, if exponential.
    pub max_interval: Duration,
    /// `None`: without end.
    pub max_retries: Option<u32>,
    /// Statuses that are tried again, a bit each; `None`: all.
    pub codes: Option<u32>,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            exponential: false,
            duration: RETRY_DURATION_DEFAULT,
            max_interval: MAX_INTERVAL_DEFAULT,
            max_retries: None,
            codes: None,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct BreakerSpec {
    /// 0: one.
    pub max_requests: u32,
    /// `None`: counts are never cleared while closed.
    pub interval: Option<Duration>,
    /// `None`: 60 s.
    pub timeout: Option<Duration>,
    /// An expression; `None`: more than five failures in a row.
    pub trip: Option<String>,
}

/// Names of policies; an empty one, or one that there is none of, is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppPolicies {
    pub timeout: String,
    pub retry: String,
    pub breaker: String,
    pub cache_size: usize,
}

/// Why a file holds no resource, in daprd's words as far as they do not come from its parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    Syntax(String),
    Type(String),
}

impl Unreadable {
    /// The line for the log.
    pub fn text(&self, file: &str) -> String {
        match self {
            Self::Syntax(error) => {
                format!("Could not determine resource type: error converting YAML to JSON: {error}")
            }
            Self::Type(error) => format!("Could not parse resiliency file {file}: {error}"),
        }
    }
}

impl Document {
    /// The first document of a file, if it is one of kind Resiliency.
    pub fn read(text: &str) -> Result<Option<Self>, Unreadable> {
        let tree: Option<Value> = yaml::first_document(text).map_err(Unreadable::Syntax)?;
        let root = Fields { path: "", map: tree.as_ref().and_then(Value::as_object) };
        if root.text("kind").ok().flatten().as_deref() != Some("Resiliency") {
            return Ok(None);
        }
        let metadata = root.fields("metadata").map_err(Unreadable::Type)?;
        let document = Self {
            name: metadata.text("name").map_err(Unreadable::Type)?.unwrap_or_default(),
            namespace: metadata.text("namespace").map_err(Unreadable::Type)?.unwrap_or_default(),
            scopes: root.texts("scopes").map_err(Unreadable::Type)?,
            spec: root.value("spec").cloned().unwrap_or_default(),
        };
        document.check_types().map_err(Unreadable::Type)?;
        Ok(Some(document))
    }

    pub fn is_for(&self, app_id: &str) -> bool {
        self.scopes.is_empty() || self.scopes.iter().any(|scope| scope == app_id)
    }

    /// What the resource says; the error is for a line after its name.
    pub fn decode(&self) -> Result<Resiliency, String> {
        let spec = self.spec()?;
        let policies = spec.fields("policies")?;
        let targets = spec.fields("targets")?;
        let mut decoded = Resiliency {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            ..Resiliency::default()
        };
        for (name, text) in policies.map_of_texts("timeouts")? {
            let time = duration(&text)
                .map_err(|why| format!("invalid duration {name:?}, {text}: {why}"))?;
            decoded.timeouts.insert(name, time);
        }
        for (name, fields) in policies.map_of_fields("retries")? {
            let retry = retry(&name, &fields)?;
            decoded.retries.insert(name, retry);
        }
        for (name, fields) in policies.map_of_fields("circuitBreakers")? {
            let breaker = breaker(&name, &fields)?;
            decoded.breakers.insert(name, breaker);
        }
        for (name, fields) in targets.map_of_fields("apps")? {
            decoded.apps.insert(name, app(&fields)?);
        }
        for (_, fields) in targets.map_of_fields("actors")? {
            check_actor(&fields)?;
        }
        for kind in ["actors", "components"] {
            if !targets.map_of_fields(kind)?.is_empty() {
                decoded.others.push(kind);
            }
        }
        Ok(decoded)
    }

    fn spec(&self) -> Result<Fields<'_>, String> {
        match &self.spec {
            Value::Null => Ok(Fields { path: "spec", map: None }),
            Value::Object(map) => Ok(Fields { path: "spec", map: Some(map) }),
            _ => Err(wrong("spec", "a map")),
        }
    }

    /// daprd's decoder sees a value of the wrong type before anything is looked into.
    fn check_types(&self) -> Result<(), String> {
        let spec = self.spec()?;
        let policies = spec.fields("policies")?;
        let targets = spec.fields("targets")?;
        policies.map_of_texts("timeouts")?;
        for (_, retry) in policies.map_of_fields("retries")? {
            retry.whole_number("maxRetries")?;
            for field in ["policy", "duration", "maxInterval"] {
                retry.text(field)?;
            }
            let matching = retry.fields("matching")?;
            matching.text("httpStatusCodes")?;
            matching.text("gRPCStatusCodes")?;
        }
        for (_, breaker) in policies.map_of_fields("circuitBreakers")? {
            breaker.whole_number("maxRequests")?;
            for field in ["interval", "timeout", "trip"] {
                breaker.text(field)?;
            }
        }
        for kind in ["apps", "actors"] {
            for (_, target) in targets.map_of_fields(kind)? {
                target.whole_number("circuitBreakerCacheSize")?;
                for field in ["timeout", "retry", "circuitBreaker", "circuitBreakerScope"] {
                    target.text(field)?;
                }
            }
        }
        targets.map_of_fields("components")?;
        Ok(())
    }
}

/// `parseDuration`: whole numbers are milliseconds.
fn duration(text: &str) -> Result<GoDuration, String> {
    match text.parse::<i64>() {
        Ok(ms) => {
            Ok(GoDuration { negative: ms < 0, magnitude: Duration::from_millis(ms.unsigned_abs()) })
        }
        Err(_) => go::parse_duration(text),
    }
}

/// mapstructure's list of what went wrong with one struct.
fn mistakes(name: &str, list: &[String]) -> String {
    let list: Vec<String> = list.iter().map(|text| format!("* {text}")).collect();
    let count = list.len();
    format!(
        "invalid retry configuration {name:?}: {count} error(s) decoding:\n\n{}",
        list.join("\n")
    )
}

/// A duration of a policy; `None` when it is not given, or not positive.
fn field_duration(
    fields: &Fields<'_>,
    field: &str,
    list: &mut Vec<String>,
) -> Result<Option<GoDuration>, String> {
    let text = fields.text(field)?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    match duration(&text) {
        Ok(time) => Ok(Some(time)),
        Err(_) => {
            list.push(format!("error decoding '{field}': invalid duration {text:?}"));
            Ok(None)
        }
    }
}

fn retry(name: &str, fields: &Fields<'_>) -> Result<RetrySpec, String> {
    let mut list = Vec::new();
    let default = RetrySpec::default();
    let time = |given: Option<GoDuration>, default: Duration| match given {
        Some(given) => given.positive().unwrap_or_default(),
        None => default,
    };
    let policy = fields.text("policy")?.unwrap_or_default();
    let exponential = match policy.to_ascii_lowercase().as_str() {
        "" | "constant" => false,
        "exponential" => true,
        _ => {
            list.push(format!(
                "error decoding 'policy': invalid PolicyType {policy:?}: unexpected back off \
                 policy type: {policy}"
            ));
            false
        }
    };
    let given = field_duration(fields, "duration", &mut list)?;
    let duration = time(given, default.duration);
    let given = field_duration(fields, "maxInterval", &mut list)?;
    let max_interval = time(given, default.max_interval);
    let max_retries = fields.whole_number("maxRetries")?.unwrap_or(-1);
    if !list.is_empty() {
        list.sort();
        return Err(mistakes(name, &list));
    }
    let matching = fields.fields("matching")?;
    // Of no use to a gRPC call, but a mistake in them is one.
    patterns(&matching.text("httpStatusCodes")?.unwrap_or_default(), 100, 599)?;
    let ranges = patterns(&matching.text("gRPCStatusCodes")?.unwrap_or_default(), 0, 16)?;
    let codes = ranges.map(|ranges| {
        let bits = |(first, last): &(i32, i32)| (*first..=*last).map(|code| 1_u32 << code);
        ranges.iter().flat_map(bits).fold(0, |all, bit| all | bit)
    });
    let max_retries = (max_retries >= 0).then(|| u32::try_from(max_retries).unwrap_or(u32::MAX));
    Ok(RetrySpec { exponential, duration, max_interval, max_retries, codes })
}

fn breaker(name: &str, fields: &Fields<'_>) -> Result<BreakerSpec, String> {
    let mut list = Vec::new();
    let requests = fields.whole_number("maxRequests")?.unwrap_or(0);
    if requests < 0 {
        list.push(format!("cannot parse 'maxRequests', {requests}.000000 overflows uint"));
    }
    let interval = field_duration(fields, "interval", &mut list)?;
    let timeout = field_duration(fields, "timeout", &mut list)?;
    if !list.is_empty() {
        list.sort();
        return Err(mistakes(name, &list));
    }
    Ok(BreakerSpec {
        max_requests: u32::try_from(requests).unwrap_or(u32::MAX),
        interval: interval.and_then(GoDuration::positive),
        timeout: timeout.and_then(GoDuration::positive),
        trip: fields.text("trip")?.filter(|text| !text.is_empty()),
    })
}

/// What is wrong with a breaker's expression, as one of its fields.
pub fn wrong_trip(name: &str, trip: &str, why: &str) -> String {
    mistakes(name, &[format!("error decoding 'trip': invalid Expr {trip:?}: {why}")])
}

fn app(fields: &Fields<'_>) -> Result<AppPolicies, String> {
    let text = |field| fields.text(field).map(Option::unwrap_or_default);
    Ok(AppPolicies {
        timeout: text("timeout")?,
        retry: text("retry")?,
        breaker: text("circuitBreaker")?,
        cache_size: cache_size(fields)?,
    })
}

fn cache_size(fields: &Fields<'_>) -> Result<usize, String> {
    match fields.whole_number("circuitBreakerCacheSize")?.unwrap_or(0) {
        0 => Ok(CACHE_SIZE_DEFAULT),
        size => usize::try_from(size).map_err(|_| "must provide a positive size".to_owned()),
    }
}

/// Actors are not served here; that a resource is wrong about them still makes it a wrong one.
fn check_actor(fields: &Fields<'_>) -> Result<(), String> {
    let breaker = fields.text("circuitBreaker")?.unwrap_or_default();
    let scope = fields.text("circuitBreakerScope")?.unwrap_or_default();
    if !breaker.is_empty() && scope.is_empty() {
        return Err("actor circuit breakers must include scope".to_owned());
    }
    if !breaker.is_empty() && !["type", "id", "both"].contains(&scope.as_str()) {
        return Err(format!("unknown circuit breaker scope {scope:?}"));
    }
    cache_size(fields).map(drop)
}

/// Lists like `1,4,8-11`; `None` when there is nothing in it.
fn patterns(text: &str, first: i32, last: i32) -> Result<Option<Vec<(i32, i32)>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let patterns = text.split(',').filter(|pattern| !pattern.is_empty());
    let ranges = patterns.map(|pattern| range(pattern, first, last));
    ranges.collect::<Result<Vec<_>, _>>().map(Some)
}

fn range(pattern: &str, first: i32, last: i32) -> Result<(i32, i32), String> {
    let mut parts = pattern.split('-');
    let (start, end) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return Err(format!("invalid pattern {pattern}, more than one '-' exists"));
    }
    let number = |which: &str, text: &str| {
        let number = go::atoi(text).map_err(|why| {
            format!("failed to parse {which} code {text} from pattern {pattern} to int, {why}")
        })?;
        // Go's conversion wraps.
        let number = number as i32;
        match (first..=last).contains(&number) {
            true => Ok(number),
            false => Err(format!("invalid pattern {pattern}, {which} code {number} is not valid")),
        }
    };
    let start = number("start", start)?;
    let end = end.map_or(Ok(start), |end| number("end", end))?;
    if end < start {
        let what = "start value should not bigger than end value";
        return Err(format!("invalid pattern {pattern}, {what}"));
    }
    Ok((start, end))
}

fn wrong(path: &str, wanted: &str) -> String {
    format!("{path} is not {wanted}")
}

/// A map of the tree and where it is; a missing or null one is empty.
struct Fields<'a> {
    path: &'a str,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    /// By its exact name, else by one in another case; null is none.
    fn value(&self, name: &str) -> Option<&'a Value> {
        let map = self.map?;
        let other = || map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v);
        map.get(name).or_else(other).filter(|value| !value.is_null())
    }

    /// Any scalar is a text where a text is wanted.
    fn text(&self, name: &str) -> Result<Option<String>, String> {
        self.value(name).map(|value| scalar(value, name)).transpose()
    }

    fn whole_number(&self, name: &str) -> Result<Option<i64>, String> {
        let number = |value: &Value| value.as_i64().ok_or_else(|| wrong(name, "a whole number"));
        self.value(name).map(number).transpose()
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        match self.value(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(|value| scalar(value, name)).collect(),
            Some(_) => Err(wrong(name, "a list")),
        }
    }

    fn fields(&self, name: &'a str) -> Result<Fields<'a>, String> {
        match self.value(name) {
            None => Ok(Fields { path: name, map: None }),
            Some(Value::Object(map)) => Ok(Fields { path: name, map: Some(map) }),
            Some(_) if self.path.is_empty() => Err(wrong(name, "a map")),
            Some(_) => Err(wrong(&format!("{}.{name}", self.path), "a map")),
        }
    }

    fn entries(
        &self,
        name: &'a str,
    ) -> Result<impl Iterator<Item = (&'a String, &'a Value)>, String> {
        let entries = self.fields(name)?.map;
        if entries.is_some_and(|entries| entries.len() > NAMES_MAX) {
            return Err(format!("{name} has more than {NAMES_MAX} entries"));
        }
        Ok(entries.into_iter().flatten())
    }

    fn map_of_texts(&self, name: &'a str) -> Result<Vec<(String, String)>, String> {
        let text = |(key, value): (&String, &Value)| match value {
            Value::Null => Ok((key.clone(), String::new())),
            value => Ok((key.clone(), scalar(value, name)?)),
        };
        self.entries(name)?.map(text).collect()
    }

    fn map_of_fields(&self, name: &'a str) -> Result<Vec<(String, Fields<'a>)>, String> {
        let fields = |(key, value): (&String, &'a Value)| match value {
            Value::Null => Ok((key.clone(), Fields { path: name, map: None })),
            Value::Object(map) => Ok((key.clone(), Fields { path: name, map: Some(map) })),
            _ => Err(wrong(&format!("{name}.{key}"), "a map")),
        };
        self.entries(name)?.map(fields).collect()
    }
}

fn scalar(value: &Value, name: &str) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null => Ok(String::new()),
        Value::Array(_) | Value::Object(_) => Err(wrong(name, "a text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<Resiliency, String> {
        let text = format!("kind: Resiliency\nmetadata: {{name: r}}\nspec: {{{text}}}");
        Document::read(&text).expect("a document").expect("a Resiliency").decode()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn reads_what_dapr_reads() {
        let decoded = spec(
            "policies: {timeouts: {a: 5s, b: 250, c: -1s}, \
             retries: {constant: {duration: 70, maxRetries: 3}, \
             growing: {policy: EXPONENTIAL, maxInterval: 15s, \
             matching: {gRPCStatusCodes: \"1,8-10,,14\"}}, \
             never: {MaxRetries: 0}, none: }, \
             circuitBreakers: {one: {maxRequests: 2, interval: 8s, timeout: 45s, trip: a > 1}, \
             two: {}}}, \
             targets: {apps: {server: {timeout: a, retry: growing, circuitBreaker: one}, \
             other: {circuitBreakerCacheSize: 7}}, components: {store: {}}}",
        )
        .unwrap();
        assert_eq!(decoded.timeouts["a"].positive(), Some(ms(5000)));
        assert_eq!(decoded.timeouts["b"].positive(), Some(ms(250)));
        assert_eq!(decoded.timeouts["c"].positive(), None);
        let default = RetrySpec::default();
        let constant = RetrySpec { duration: ms(70), max_retries: Some(3), ..default };
        assert_eq!(decoded.retries["constant"], constant);
        let codes = Some(1 << 1 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 14);
        let growing = RetrySpec { exponential: true, max_interval: ms(15_000), codes, ..default };
        assert_eq!(decoded.retries["growing"], growing);
        assert_eq!(decoded.retries["never"].max_retries, Some(0));
        assert_eq!(decoded.retries["none"], default);
        let one = BreakerSpec {
            max_requests: 2,
            interval: Some(ms(8000)),
            timeout: Some(ms(45_000)),
            trip: Some("a > 1".to_owned()),
        };
        assert_eq!(decoded.breakers["one"], one);
        assert_eq!(decoded.breakers["two"], BreakerSpec::default());
        assert_eq!(decoded.apps["server"].cache_size, 100);
        assert_eq!(decoded.apps["other"].cache_size, 7);
        assert_eq!(decoded.others, ["components"]);
    }

    #[test]
    fn other_kinds_and_scopes() {
        assert!(Document::read("kind: Component").unwrap().is_none());
        assert!(Document::read("").unwrap().is_none());
        // Only the first document counts.
        assert!(Document::read("kind: Component\n---\nkind: Resiliency").unwrap().is_none());
        let scoped = Document::read("kind: Resiliency\nscopes: [a, b]").unwrap().unwrap();
        assert!(scoped.is_for("a") && !scoped.is_for("c"));
        assert!(Document::read("kind: Resiliency").unwrap().unwrap().is_for("c"));
    }

    /// The texts of daprd 1.18.1, whose log has them.
    #[test]
    fn refuses_in_daprs_words() {
        for (text, error) in [
            (
                "policies: {retries: {x: {duration: 5x}}}",
                "invalid retry configuration \"x\": 1 error(s) decoding:\n\n\
                 * error decoding 'duration': invalid duration \"5x\"",
            ),
            (
                "policies: {retries: {x: {policy: quick}}}",
                "invalid retry configuration \"x\": 1 error(s) decoding:\n\n\
                 * error decoding 'policy': invalid PolicyType \"quick\": unexpected back off \
                 policy type: quick",
            ),
            (
                "policies: {timeouts: {x: 5x}}",
                "invalid duration \"x\", 5x: time: unknown unit \"x\" in duration \"5x\"",
            ),
            (
                "policies: {retries: {x: {matching: {gRPCStatusCodes: 1-2-3}}}}",
                "invalid pattern 1-2-3, more than one '-' exists",
            ),
            (
                "policies: {circuitBreakers: {x: {maxRequests: -1}}}",
                "invalid retry configuration \"x\": 1 error(s) decoding:\n\n\
                 * cannot parse 'maxRequests', -1.000000 overflows uint",
            ),
            (
                "policies: {retries: {x: {matching: {gRPCStatusCodes: \"17\"}}}}",
                "invalid pattern 17, start code 17 is not valid",
            ),
            (
                "policies: {retries: {x: {matching: {gRPCStatusCodes: 5-1}}}}",
                "invalid pattern 5-1, start value should not bigger than end value",
            ),
            (
                "policies: {retries: {x: {matching: {gRPCStatusCodes: \" 5\"}}}}",
                "failed to parse start code  5 from pattern  5 to int, strconv.Atoi: parsing \
                 \" 5\": invalid syntax",
            ),
            ("targets: {apps: {x: {circuitBreakerCacheSize: -1}}}", "must provide a positive size"),
            (
                "targets: {actors: {x: {circuitBreaker: y}}}",
                "actor circuit breakers must include scope",
            ),
        ] {
            assert_eq!(spec(text).unwrap_err(), error, "{text}");
        }
    }

    /// Types are looked at before anything else; who the resource is for does not matter then.
    #[test]
    fn refuses_wrong_types() {
        for text in [
            "spec: [x]",
            "spec: {policies: [x]}",
            "spec: {policies: {retries: {x: {maxRetries: \"3\"}}}}",
            "spec: {policies: {retries: {x: [1]}}}",
            "spec: {policies: {timeouts: {x: [1]}}}",
            "spec: {targets: {apps: {x: {circuitBreakerCacheSize: 1.5}}}}",
            "scopes: x",
            "metadata: x",
        ] {
            let error = Document::read(&format!("kind: Resiliency\n{text}")).unwrap_err();
            assert!(matches!(error, Unreadable::Type(_)), "{text}: {error:?}");
            let line = error.text("f.yaml");
            assert!(line.starts_with("Could not parse resiliency file f.yaml: "), "{line}");
        }
        let broken = Document::read("kind: Resiliency\nspec: [\n").unwrap_err();
        let line = "Could not determine resource type: error converting YAML to JSON: yaml: ";
        assert!(broken.text("f.yaml").starts_with(line), "{broken:?}");
    }

    /// Alias bombs and depth end in an error, soon.
    #[test]
    fn hostile_documents_are_refused() {
        let mut bomb = String::from("kind: Resiliency\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..30 {
            let below = level - 1;
            bomb.push_str(&format!(
                "a{level}: &a{level} [{}]\n",
                vec![format!("*a{below}"); 10].join(",")
            ));
        }
        assert!(matches!(Document::read(&bomb), Err(Unreadable::Syntax(_))));
        let deep = format!("kind: Resiliency\nspec: {}{}", "[".repeat(20_000), "]".repeat(20_000));
        assert!(matches!(Document::read(&deep), Err(Unreadable::Syntax(_))));
    }
}
