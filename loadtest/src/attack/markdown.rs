//! The table for people.
//!
//! Refuses to know how figures came about.

use super::line::Tally;
use super::report::{Phase, Report, Row};
use std::fmt::Write;

const MIB: f64 = (1 << 20) as f64;
/// More memory than this above where it began is bold.
const GROWTH_BOLD: u64 = 64 << 20;

/// ringside's count of lines that its limit of lines per second kept out of the log.
const LOG_LINES: &str = "log_lines";

/// RFC 9113 §7, by code.
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// A line of the summary, and which attacks it lists.
type Question = (&'static str, fn(&Row) -> bool);

impl Report {
    pub fn markdown(&self) -> String {
        let mut out = self.header.opening();
        let versions = self.header.versions.iter();
        let versions: Vec<String> = versions.map(|(name, v)| format!("{name} {v}")).collect();
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "; {}; {} s each.\n\n\
             | What was sent | To | How much | What it did | RSS MiB before, most, after | \
             CPU % before, during, after | Honest calls failed; p99 ms before, during, after |\n\
             |---|---|---|---|---|---|---|\n",
            versions.join(", "),
            self.seconds
        );
        let mut last = "";
        for row in &self.rows {
            let name = format!("**{}**: {}", row.attack, row.sends);
            let name = if row.attack == last { "" } else { &name };
            last = row.attack;
            let _ = writeln!(
                out,
                "| {name} | {} | {} | {} | {} | {} | {} |",
                row.product,
                row.much(),
                row.did(),
                row.memory(),
                row.cpu(),
                row.honest()
            );
        }
        out.push_str(&self.summary());
        out
    }

    /// By product: who ended, failed honest calls, or grew.
    fn summary(&self) -> String {
        let mut products: Vec<&str> = self.rows.iter().map(|row| row.product).collect();
        products.sort_unstable();
        products.dedup();
        let mut out = String::new();
        let questions: [Question; 3] = [
            ("Ended", |row| row.gone.is_some()),
            ("Honest calls failed", |row| row.failed() > 0),
            ("Memory grew by more than 64 MiB", Row::grew),
        ];
        for (question, holds) in questions {
            for product in &products {
                let rows = self.rows.iter().filter(|row| row.product == *product && holds(row));
                let names: Vec<&str> = rows.map(|row| row.attack).collect();
                let list = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let _ = write!(out, "\n- {question}, {product}, {}: {list}", names.len());
            }
        }
        out.push('\n');
        out
    }
}

impl Row {
    fn much(&self) -> String {
        let Tally { units, octets_sent, connections, .. } = self.sent;
        let per_s = |count: f64| count / self.elapsed_s.max(f64::MIN_POSITIVE);
        format!(
            "{} {} ({}/s), {:.1} MB/s, {connections} connections",
            short(units as f64),
            self.unit,
            short(per_s(units as f64)),
            per_s(octets_sent as f64) / 1e6,
        )
    }

    fn did(&self) -> String {
        let sent = &self.sent;
        let mut parts = Vec::new();
        if let Some(gone) = &self.gone {
            parts.push(format!("**ended**: {}", gone.lines().next().unwrap_or_default()));
        }
        if sent.answers > 0 {
            parts.push(format!("answered {}", short(sent.answers as f64)));
        }
        for (frame, codes) in [("GOAWAY", &sent.goaways), ("RST", &sent.resets)] {
            for (code, count) in codes {
                let name = CODES.get(*code as usize).copied().unwrap_or("of no name");
                parts.push(format!("{frame} {name} × {}", short(*count as f64)));
            }
        }
        if sent.closed > 0 {
            parts.push(format!("closed {}", short(sent.closed as f64)));
        }
        if sent.refused > 0 {
            parts.push(format!("accepted {} not", short(sent.refused as f64)));
        }
        if let Some(requests) = self.requests {
            let octets = self.request_octets as f64 / 1e6;
            parts.push(format!("the app heard {} ({octets:.1} MB)", short(requests as f64)));
        }
        if !self.passed.is_empty() {
            let passed: Vec<&str> = self.passed.iter().copied().collect();
            parts.push(format!("passed on: {}", passed.join(", ")));
        }
        let told = self.limits.iter().filter(|(limit, _)| *limit != LOG_LINES);
        let limits = told.map(|(limit, n)| format!("{limit} × {}", short(*n as f64)));
        let limits: Vec<String> = limits.collect();
        if !limits.is_empty() {
            parts.push(format!("limits hit: {}", limits.join(", ")));
        }
        if self.log_lines > 0 {
            let kept_back = self.limits.get(LOG_LINES).copied().unwrap_or_default();
            let all = short((self.log_lines + kept_back) as f64);
            parts.push(format!("logged {} lines of {all}", short(self.log_lines as f64)));
        }
        if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") }
    }

    fn grew(&self) -> bool {
        let most = self.during.resident.max(self.after.resident);
        most.saturating_sub(self.before.resident) > GROWTH_BOLD
    }

    fn memory(&self) -> String {
        let mib = |phase: &Phase| format!("{:.0}", phase.resident as f64 / MIB);
        let [before, most, after] = [&self.before, &self.during, &self.after].map(mib);
        let most = if self.grew() { format!("**{most}**") } else { most };
        format!("{before}, {most}, {after}")
    }

    fn cpu(&self) -> String {
        let percent = |phase: &Phase| format!("{:.0}", phase.cpu_share * 100.0);
        let [before, during, after] = [&self.before, &self.during, &self.after].map(percent);
        let mut text = format!("{before}, {during}, {after}");
        if self.sent.units > 0 {
            let idle_ms = self.before.cpu_share * self.elapsed_s * 1e3;
            let us = (self.during.cpu_ms - idle_ms).max(0.0) * 1e3 / self.sent.units as f64;
            let _ = write!(text, "; {} µs each", short(us));
        }
        text
    }

    fn honest(&self) -> String {
        let p99 = |phase: &Phase| format!("{:.1}", phase.honest.p99_us / 1e3);
        let [before, during, after] = [&self.before, &self.during, &self.after].map(p99);
        let failed = match self.failed() {
            0 => "0".to_owned(),
            failed => format!("**{failed}**"),
        };
        format!("{failed}; {before}, {during}, {after}")
    }
}

/// Three digits at most: 12, 3.4k, 5.6M.
fn short(count: f64) -> String {
    let (value, unit) = match count {
        count if count < 1e3 => (count, ""),
        count if count < 1e6 => (count / 1e3, "k"),
        count => (count / 1e6, "M"),
    };
    let whole = unit.is_empty() && value.fract() == 0.0 || value >= 99.5;
    if whole { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        let shown = [0.0, 7.0, 0.25, 999.0, 1234.0, 123_456.0, 5_600_000.0].map(short);
        assert_eq!(shown, ["0", "7", "0.2", "999", "1.2k", "123k", "5.6M"]);
    }
}
