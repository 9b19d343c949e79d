//! When a closed circuit breaker opens: a CEL expression over its counts.
//!
//! Sources: `pkg/expr/expr.go` and `pkg/resiliency/breaker/circuitbreaker.go` of Dapr; gobreaker's
//! default. The language is the `cel` crate's (docs/adr/0151).
//!
//! 1. What is compiled is short and shallow ([`OCTETS_MAX`], [`NESTING_MAX`]): the crate's parser
//!    recurses, and ends the process where the stack does.
//! 2. No lists and maps, hence no loops: an evaluation, which a worker does when a call has
//!    failed, costs no more than the expression is long.
//! 3. What cannot be evaluated, or is neither true nor false, does not open the breaker.

use cel::{Context, Program, Value};
use std::fmt;

/// Octets of an expression.
pub const OCTETS_MAX: usize = 1 << 10;
/// Parentheses in each other, and operators before an operand in a row.
pub const NESTING_MAX: usize = 32;

/// gobreaker: more failures in a row than this.
const FAILURES_DEFAULT: u32 = 5;

/// What a breaker counted since its generation began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: u32,
    pub total_successes: u32,
    pub total_failures: u32,
    pub consecutive_successes: u32,
    pub consecutive_failures: u32,
}

/// See the file's text.
pub enum Trip {
    Default,
    Expression { text: String, program: Program },
}

impl Trip {
    /// `None`: gobreaker's default.
    pub fn compile(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text else { return Ok(Self::Default) };
        check(text)?;
        let program = Program::compile(text).map_err(|errors| {
            let error = errors.to_string();
            error.lines().next().unwrap_or("Syntax error").to_owned()
        })?;
        Ok(Self::Expression { text: text.to_owned(), program })
    }

    /// Asked when a call has failed.
    pub fn is_due(&self, counts: &Counts) -> bool {
        let program = match self {
            Self::Default => return counts.consecutive_failures > FAILURES_DEFAULT,
            Self::Expression { program, .. } => program,
        };
        let mut context = Context::default();
        for (name, count) in [
            ("requests", counts.requests),
            ("totalSuccesses", counts.total_successes),
            ("totalFailures", counts.total_failures),
            ("consecutiveSuccesses", counts.consecutive_successes),
            ("consecutiveFailures", counts.consecutive_failures),
        ] {
            context.add_variable_from_value(name, i64::from(count));
        }
        program.execute(&context) == Ok(Value::Bool(true))
    }
}

impl fmt::Debug for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "consecutiveFailures > {FAILURES_DEFAULT}"),
            Self::Expression { text, .. } => f.write_str(text),
        }
    }
}

/// Invariants 1 and 2. Quotes are not looked into: what is in them counts, too.
fn check(text: &str) -> Result<(), String> {
    if text.len() > OCTETS_MAX {
        return Err(format!("longer than {OCTETS_MAX} octets"));
    }
    if text.contains(['[', '{']) {
        return Err("lists and maps are not for circuit breakers".to_owned());
    }
    let (mut depth, mut prefixes) = (0_usize, 0_usize);
    for octet in text.bytes() {
        match octet {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match octet {
            b'!' | b'-' | b'?' => prefixes += 1,
            b' ' | b'\t' | b'\r' | b'\n' | b'(' => {}
            _ => prefixes = 0,
        }
        if depth.max(prefixes) > NESTING_MAX {
            return Err(format!("nested more than {NESTING_MAX} deep"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(text: &str, counts: Counts) -> bool {
        Trip::compile(Some(text)).unwrap_or_else(|error| panic!("{text}: {error}")).is_due(&counts)
    }

    const COUNTS: Counts = Counts {
        requests: 10,
        total_successes: 4,
        total_failures: 6,
        consecutive_successes: 0,
        consecutive_failures: 3,
    };

    /// Expressions of Dapr's documentation and what users make of them.
    #[test]
    fn knows_the_counts() {
        for (text, expected) in [
            ("consecutiveFailures > 2", true),
            ("consecutiveFailures > 3", false),
            ("consecutiveFailures >= 3 && requests >= 10", true),
            ("requests > 9 && totalFailures * 100 / requests >= 60", true),
            ("requests > 9 && totalFailures * 100 / requests > 60", false),
            ("totalSuccesses + totalFailures == requests", true),
            ("consecutiveSuccesses == 0", true),
            ("double(totalFailures) / double(requests) > 0.5", true),
            ("!(totalFailures < 5) || false", true),
            ("totalFailures > 5 ? requests > 5 : false", true),
        ] {
            assert_eq!(due(text, COUNTS), expected, "{text}");
        }
    }

    /// As daprd: no reason to open.
    #[test]
    fn what_has_no_answer_does_not_open() {
        for text in [
            "requests",
            "\"yes\"",
            "requests / (requests - 10) > 0",
            "failures > 1",
            "requests > \"a\"",
        ] {
            assert!(!due(text, COUNTS), "{text}");
        }
    }

    #[test]
    fn the_default_is_gobreakers() {
        let trip = Trip::compile(None).unwrap();
        for (failures, expected) in [(0, false), (5, false), (6, true)] {
            let counts = Counts { consecutive_failures: failures, ..Counts::default() };
            assert_eq!(trip.is_due(&counts), expected);
        }
    }

    #[test]
    fn hostile_expressions_are_refused() {
        let nested = |n: usize| format!("{}1{} > 0", "(".repeat(n), ")".repeat(n));
        assert!(due(&nested(NESTING_MAX), COUNTS));
        for text in [
            nested(NESTING_MAX + 1),
            nested(20_000),
            format!("{}true", "!".repeat(NESTING_MAX + 1)),
            format!("{}true", "!(".repeat(NESTING_MAX)),
            format!("{}1", "- ".repeat(NESTING_MAX + 1)),
            format!("requests > {}", "9".repeat(OCTETS_MAX)),
            "[1, 2].all(x, x > requests)".to_owned(),
            "{1: 2}[1] > 0".to_owned(),
            "consecutiveFailures >".to_owned(),
            String::new(),
            "\0".to_owned(),
        ] {
            let compiled = Trip::compile(Some(&text));
            assert!(compiled.is_err(), "{text}: {compiled:?}");
        }
    }

    /// Whatever passes the checks is compiled and evaluated without harm, in a small thread.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn long_chains_do_no_harm() {
        let long = |piece: &str, last: &str| {
            let count = (OCTETS_MAX - last.len()) / piece.len();
            format!("{}{last}", piece.repeat(count))
        };
        let texts = [
            long("1+", "1 > 0"),
            long("a?b:", "c"),
            long("1>0&&", "true"),
            long("1>0?1:", "2"),
            long("a.", "b"),
            long("1-", "1"),
            long("f(", ""),
            long("\\", ""),
            long("\"", ""),
            long("a ? ", "b"),
        ];
        let worker = std::thread::Builder::new().stack_size(2 << 20);
        let tried = worker.spawn(move || {
            for text in &texts {
                if let Ok(trip) = Trip::compile(Some(text)) {
                    trip.is_due(&COUNTS);
                }
            }
            texts.len()
        });
        assert_eq!(tried.unwrap().join().expect("no harm"), 10);
    }
}
