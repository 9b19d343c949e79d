//! Medians and spreads, of values and of ratios within one round.
//!
//! The machine's speed drifts between rounds, so what is compared is what the same round measured:
//! the ratio is taken in each round, then its median over the rounds.

use serde::Serialize;

/// The middle of some values and how far they go.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
    /// Of how many values.
    pub count: usize,
}

impl Spread {
    /// `None` of no values; those that are no numbers are left out.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (lowest, highest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, lowest, highest, count: values.len() })
    }

    /// Of `over[i] / under[i]`, for the rounds that have both.
    pub fn of_ratios(over: &[Option<f64>], under: &[Option<f64>]) -> Option<Self> {
        let pairs = over.iter().zip(under);
        Self::of(pairs.filter_map(|(over, under)| Some((*over)? / (*under)?)))
    }

    /// `median (lowest–highest)` with digits for the median's size.
    pub fn text(&self) -> String {
        let digits = digits(self.median);
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.lowest, self.highest)
    }
}

/// Decimals that show three significant digits, none above a hundred.
pub fn digits(value: f64) -> usize {
    match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_counts() {
        let spread = Spread::of([5.0, 1.0, 3.0]).unwrap();
        assert_eq!((spread.median, spread.lowest, spread.highest), (3.0, 1.0, 5.0));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 8.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of([7.0]).unwrap().median, 7.0);
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN, f64::INFINITY]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is three times slower in the second round; the ratio is not.
        let slow = [Some(10.0), Some(30.0), None, Some(12.0)];
        let fast = [Some(5.0), Some(15.0), Some(5.0), Some(4.0)];
        let ratio = Spread::of_ratios(&slow, &fast).unwrap();
        assert_eq!((ratio.median, ratio.lowest, ratio.highest, ratio.count), (2.0, 2.0, 3.0, 3));
        assert_eq!(Spread::of_ratios(&[None], &[Some(1.0)]), None);
    }

    #[test]
    fn a_division_by_nothing_is_left_out() {
        assert_eq!(Spread::of_ratios(&[Some(1.0)], &[Some(0.0)]), None);
    }

    #[test]
    fn three_digits_are_shown() {
        let text = |value: f64| Spread::of([value]).unwrap().text();
        assert_eq!(text(1234.5), "1234 (1234–1234)");
        assert_eq!(text(0.123), "0.12 (0.12–0.12)");
        assert_eq!(text(45.67), "45.7 (45.7–45.7)");
    }
}
