//! The summary for people: one screen.
//!
//! Refuses to know where it is shown.

use super::document::kind;
use crate::outcome::{Latencies, Outcome, status_name};
use crate::plan::{Plan, Schedule, Shape};
use std::fmt::Write;
use std::time::Duration;

pub fn text(plan: &Plan, outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, plan, outcome);
    out
}

fn write(out: &mut String, plan: &Plan, outcome: &Outcome) -> std::fmt::Result {
    let Plan { target, path, connections, streams, .. } = plan;
    let open = matches!(plan.schedule, Schedule::Open(_));
    let mode = if open { "open loop" } else { "closed loop" };
    writeln!(out, "{path} at {target}: {}, {mode}", kind(plan.shape))?;
    writeln!(out, "{connections} connections x {streams} streams, {} B", plan.request.len())?;
    let seconds = outcome.elapsed.as_secs_f64();
    writeln!(out, "\ncalls     {} in {seconds:.3} s: {:.1}/s", outcome.calls, outcome.rate())?;
    if !matches!(plan.shape, Shape::Unary) {
        let rate = outcome.messages as f64 / seconds.max(f64::MIN_POSITIVE);
        writeln!(out, "messages  {} received: {rate:.1}/s", outcome.messages)?;
    }
    let octets = outcome.request_octets + outcome.response_octets;
    let megabytes = octets as f64 / 1e6;
    let rate = megabytes / seconds.max(f64::MIN_POSITIVE);
    writeln!(out, "payload   {megabytes:.1} MB in both directions: {rate:.1} MB/s")?;
    writeln!(out, "\n{:10}    p50      p90      p99    p99.9      max     mean", "")?;
    row(out, "latency", &outcome.latency)?;
    if open {
        row(out, "service", &outcome.service)?;
        row(out, "lateness", &outcome.lateness)?;
        writeln!(out, "(latency: since due; service: since sent; lateness: the generator's own)")?;
    }
    writeln!(out)?;
    for (code, count) in &outcome.statuses {
        writeln!(out, "status    {code} {}: {count}", status_name(*code).unwrap_or("?"))?;
    }
    if outcome.errors.is_empty() {
        return writeln!(out, "errors    0");
    }
    for (error, count) in &outcome.errors {
        writeln!(out, "error     {count} x {error}")?;
    }
    Ok(())
}

fn row(out: &mut String, name: &str, latencies: &Latencies) -> std::fmt::Result {
    write!(out, "{name:10}")?;
    if latencies.is_empty() {
        return writeln!(out, "  none");
    }
    let quantiles = [0.5, 0.9, 0.99, 0.999].map(|quantile| latencies.value_at_quantile(quantile));
    for ns in quantiles.into_iter().chain([latencies.max(), latencies.mean() as u64]) {
        write!(out, "{:>8} ", readable(ns))?;
    }
    out.truncate(out.trim_end().len());
    writeln!(out)
}

/// Three digits and a unit.
fn readable(ns: u64) -> String {
    let duration = Duration::from_nanos(ns);
    let (value, unit) = match ns {
        0..1_000 => (ns as f64, "ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (duration.as_secs_f64(), "s"),
    };
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_three_digits() {
        assert_eq!(readable(999), "999ns");
        assert_eq!(readable(1_234), "1.23us");
        assert_eq!(readable(12_345), "12.3us");
        assert_eq!(readable(123_456), "123us");
        assert_eq!(readable(1_500_000_000), "1.50s");
    }
}
