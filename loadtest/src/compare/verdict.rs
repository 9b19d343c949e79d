//! Between which bounds a figure is wanted, and whether the rounds show that it is there.
//!
//! 1. A gate is what must hold: met when the median of the rounds is within it, else missed.
//! 2. A goal is what is strived for: decided when the median is surely on one side of it, which is
//!    when all of [`Spread::interval`] is.
//! 3. A ratio of which either side had an error is void.

use crate::ratio::{Spread, digits};

/// Between which bounds a figure is as wanted.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    low: f64,
    high: f64,
}

impl Limit {
    pub const fn at_most(high: f64) -> Self {
        Self { low: f64::NEG_INFINITY, high }
    }

    pub const fn at_least(low: f64) -> Self {
        Self { low, high: f64::INFINITY }
    }

    pub const fn between(low: f64, high: f64) -> Self {
        Self { low, high }
    }

    fn text(&self) -> String {
        match (self.low.is_finite(), self.high.is_finite()) {
            (false, _) => format!("≤ {}", number(self.high)),
            (true, false) => format!("≥ {}", number(self.low)),
            (true, true) => format!("{} to {}", number(self.low), number(self.high)),
        }
    }

    fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    fn as_gate(&self, found: &Spread) -> &'static str {
        if self.holds(found.median) { "met" } else { "**missed**" }
    }

    fn as_goal(&self, found: &Spread) -> &'static str {
        let (low, high) = found.interval;
        if self.holds(low) && self.holds(high) {
            "met"
        } else if high < self.low || low > self.high {
            "missed"
        } else {
            "undecided"
        }
    }
}

/// What must be, and what is strived for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub gate: Option<Limit>,
    pub goal: Option<Limit>,
}

impl Wanted {
    pub const fn gate(limit: Limit) -> Self {
        Self { gate: Some(limit), goal: None }
    }

    pub const fn goal(limit: Limit) -> Self {
        Self { gate: None, goal: Some(limit) }
    }
}

pub const HEADING: &str = "| Wanted | is | gate | | goal | |\n|---|---|---|---|---|---|\n";

/// A line below [`HEADING`]; `errors` are those of the calls on either side.
pub fn row(what: &str, wanted: Wanted, found: Option<Spread>, errors: u64) -> Option<String> {
    let found = found?;
    let Spread { median, lowest, highest, .. } = found;
    let cells = |limit: Option<Limit>, verdict: fn(&Limit, &Spread) -> &'static str| match limit {
        None => "– | –".to_owned(),
        Some(limit) if errors > 0 => format!("{} | **void: errors**", limit.text()),
        Some(limit) => format!("{} | {}", limit.text(), verdict(&limit, &found)),
    };
    Some(format!(
        "| {what} | {} ({}–{}) | {} | {} |\n",
        number(median),
        number(lowest),
        number(highest),
        cells(wanted.gate, Limit::as_gate),
        cells(wanted.goal, Limit::as_goal),
    ))
}

/// Ratios with three decimals, larger figures as tables show them.
fn number(value: f64) -> String {
    let digits = if value.abs() < 10.0 { 3 } else { digits(value) };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(limit: Limit, rounds: &[f64]) -> [&'static str; 2] {
        let found = Spread::of(rounds.iter().copied()).unwrap();
        [limit.as_gate(&found), limit.as_goal(&found)]
    }

    #[test]
    fn a_gate_is_judged_by_the_median_and_a_goal_by_where_it_surely_is() {
        let limit = Limit::at_most(1.6);
        assert_eq!(verdicts(limit, &[1.5, 1.4, 1.6]), ["met", "met"]);
        assert_eq!(verdicts(limit, &[1.5, 1.4, 1.7]), ["met", "undecided"]);
        assert_eq!(verdicts(limit, &[1.5, 1.7, 1.9]), ["**missed**", "undecided"]);
        assert_eq!(verdicts(limit, &[1.8, 1.9, 1.7]), ["**missed**", "missed"]);
        assert_eq!(verdicts(Limit::at_least(1.6), &[1.8, 1.9, 1.7]), ["met", "met"]);
        // One odd round of nine decides nothing; two might.
        let nine = [1.5, 1.4, 1.5, 1.5, 1.4, 1.5, 1.5, 1.4, 9.0];
        assert_eq!(verdicts(limit, &nine), ["met", "met"]);
        let nine = [1.5, 1.4, 1.5, 1.5, 1.4, 1.5, 1.5, 9.0, 9.0];
        assert_eq!(verdicts(limit, &nine), ["met", "undecided"]);
        let near_one = Limit::between(0.85, 1.15);
        assert_eq!(verdicts(near_one, &[0.9, 1.0, 1.2]), ["met", "undecided"]);
        assert_eq!(verdicts(near_one, &[0.6, 0.5, 0.7]), ["**missed**", "missed"]);
        assert_eq!(near_one.text(), "0.850 to 1.150");
    }

    #[test]
    fn rows_tell_both_limits() {
        let wanted =
            Wanted { gate: Some(Limit::at_most(0.25)), goal: Some(Limit::at_most(1.0 / 6.0)) };
        let found = Spread::of([0.19, 0.2, 0.22]);
        assert_eq!(
            row("W2", wanted, found, 0).unwrap(),
            "| W2 | 0.200 (0.190–0.220) | ≤ 0.250 | met | ≤ 0.167 | missed |\n"
        );
        assert_eq!(
            row("W2", wanted, found, 1).unwrap(),
            "| W2 | 0.200 (0.190–0.220) | ≤ 0.250 | **void: errors** | ≤ 0.167 | \
             **void: errors** |\n"
        );
        let octets = Wanted::gate(Limit::at_most(4000.0));
        let text = row("W6", octets, Spread::of([2638.4]), 0).unwrap();
        assert_eq!(text, "| W6 | 2638 (2638–2638) | ≤ 4000 | met | – | – |\n");
        assert_eq!(row("W6", octets, None, 0), None);
    }
}
