//! Where a value is on an axis, and which values the axis names.
//!
//! 1. Ends are round numbers: 1, 2 or 5 times a power of ten, and nothing lies outside them.
//! 2. An axis names some three to eight values.
//!
//! Refuses to know pixels.

/// From an axis's one end to the other.
#[derive(Clone, Debug, PartialEq)]
pub enum Scale {
    /// From zero.
    Linear {
        high: f64,
        step: f64,
    },
    Log {
        low: f64,
        high: f64,
    },
    /// One place for each.
    Names(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// From 0 to 1.
    pub at: f64,
    /// Empty: a line without a name.
    pub label: String,
}

/// Of a linear axis.
const STEPS_MAX: f64 = 6.0;
/// More decades than these have names at powers of ten only.
const DECADES_NAMED_FINELY: f64 = 2.1;
/// What an axis of no values shows.
const NOTHING: f64 = 1.0;

impl Scale {
    pub fn linear(values: impl IntoIterator<Item = f64>) -> Self {
        let highest = usable(values).fold(0.0, f64::max);
        let highest = if highest > 0.0 { highest } else { NOTHING };
        let step = round_up(highest / STEPS_MAX);
        Self::Linear { high: (highest / step - 1e-9).ceil() * step, step }
    }

    pub fn log(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0);
        for value in usable(values).filter(|value| *value > 0.0) {
            (low, high) = (value.min(low), value.max(high));
        }
        if high <= 0.0 {
            (low, high) = (NOTHING, NOTHING);
        }
        let (low, mut high) = (round_down(low), round_up(high));
        if high <= low * 1.0001 {
            high = low * 10.0;
        }
        Self::Log { low, high }
    }

    /// From 0 to 1; the nearer end for what is outside, the `value`th place of names.
    pub fn place(&self, value: f64) -> f64 {
        let at = match self {
            Self::Linear { high, .. } => value / high,
            Self::Log { low, high } if value > 0.0 => (value / low).ln() / (high / low).ln(),
            Self::Log { .. } => 0.0,
            Self::Names(names) => (value + 0.5) / names.len().max(1) as f64,
        };
        if at.is_nan() { 0.0 } else { at.clamp(0.0, 1.0) }
    }

    pub fn ticks(&self) -> Vec<Tick> {
        match self {
            Self::Linear { high, step } => {
                let count = (high / step).round() as u32;
                let values = (0..=count).map(|number| f64::from(number) * step);
                values.map(|value| Tick { at: self.place(value), label: short(value) }).collect()
            }
            Self::Log { low, high } => self.log_ticks(*low, *high),
            Self::Names(names) => {
                let places = names.iter().enumerate();
                places
                    .map(|(at, name)| Tick { at: self.place(at as f64), label: name.clone() })
                    .collect()
            }
        }
    }

    fn log_ticks(&self, low: f64, high: f64) -> Vec<Tick> {
        let finely = (high / low).log10() <= DECADES_NAMED_FINELY;
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let mut ticks = Vec::new();
        for decade in first..=last {
            for factor in [1.0, 2.0, 5.0] {
                let value = factor * 10f64.powi(decade);
                if value >= low * 0.9999 && value <= high * 1.0001 {
                    let named = finely || factor == 1.0;
                    let label = if named { short(value) } else { String::new() };
                    ticks.push(Tick { at: self.place(value), label });
                }
            }
        }
        ticks
    }
}

fn usable(values: impl IntoIterator<Item = f64>) -> impl Iterator<Item = f64> {
    values.into_iter().filter(|value| value.is_finite())
}

/// The next 1, 2 or 5 times a power of ten that is no less.
fn round_up(value: f64) -> f64 {
    let decade = 10f64.powf(value.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let fits = factors.into_iter().find(|factor| value <= factor * decade * (1.0 + 1e-9));
    fits.unwrap_or(10.0) * decade
}

fn round_down(value: f64) -> f64 {
    let decade = 10f64.powf(value.log10().floor());
    let factors = [5.0, 2.0, 1.0];
    let fits = factors.into_iter().find(|factor| value >= factor * decade * (1.0 - 1e-9));
    fits.unwrap_or(1.0) * decade
}

/// `0.05`, `2`, `500`, `20k`, `1M`.
pub fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    // Floating point's 0.30000000000000004 is 0.3 here.
    let text = format!("{scaled:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<String> {
        scale.ticks().into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn linear_axes_begin_at_zero_and_end_at_a_round_number() {
        let scale = Scale::linear([3.0, 530.0, 41.0]);
        assert_eq!(labels(&scale), ["0", "100", "200", "300", "400", "500", "600"]);
        assert_eq!((scale.place(0.0), scale.place(300.0), scale.place(600.0)), (0.0, 0.5, 1.0));
        assert_eq!(labels(&Scale::linear([0.6])), ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6"]);
        assert_eq!(labels(&Scale::linear([190_000.0])), ["0", "50k", "100k", "150k", "200k"]);
        assert_eq!(labels(&Scale::linear([])), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
    }

    #[test]
    fn log_axes_hold_every_value() {
        let scale = Scale::log([0.7, 672.0]);
        assert_eq!(scale, Scale::Log { low: 0.5, high: 1000.0 });
        let named: Vec<String> =
            labels(&scale).into_iter().filter(|label| !label.is_empty()).collect();
        assert_eq!(named, ["1", "10", "100", "1k"]);
        assert!((scale.place(0.5), scale.place(1000.0)) == (0.0, 1.0));
        assert!(scale.place(10.0) > scale.place(9.0));
        assert_eq!(labels(&Scale::log([100.0, 2100.0])), ["100", "200", "500", "1k", "2k", "5k"]);
        assert_eq!(labels(&Scale::log([100.0])), ["100", "200", "500", "1k"], "one value");
        assert_eq!(labels(&Scale::log([])), ["1", "2", "5", "10"]);
    }

    #[test]
    fn what_is_no_place_is_at_the_nearer_end() {
        let scale = Scale::log([1.0, 100.0]);
        assert_eq!((scale.place(0.0), scale.place(-3.0), scale.place(1e9)), (0.0, 0.0, 1.0));
        assert_eq!(scale.place(f64::NAN), 0.0);
        assert_eq!(Scale::linear([f64::NAN, f64::INFINITY, 1.0]), Scale::linear([1.0]));
        assert_eq!(Scale::Names(Vec::new()).place(0.0), 0.5);
    }

    #[test]
    fn names_share_the_axis() {
        let scale = Scale::Names(vec!["w2".to_owned(), "w3".to_owned()]);
        assert_eq!((scale.place(0.0), scale.place(1.0)), (0.25, 0.75));
        assert_eq!(labels(&scale), ["w2", "w3"]);
    }

    #[test]
    fn round_numbers_stay() {
        for value in [0.001, 0.05, 1.0, 2.0, 500.0, 1e6] {
            assert!((round_up(value) / value - 1.0).abs() < 1e-9, "{value}");
            assert!((round_down(value) / value - 1.0).abs() < 1e-9, "{value}");
        }
    }
}
