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
    /// Where the median of more values would be, with 95 % certainty, whatever their distribution:
    /// between two of these values. From the lowest to the highest where they are fewer than six.
    pub interval: (f64, f64),
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
        let odd = odd_ones(values.len());
        let interval = (values[odd], values[values.len() - 1 - odd]);
        Some(Self { median, lowest, highest, count: values.len(), interval })
    }

    pub fn scaled(self, scale: f64) -> Self {
        Self {
            median: self.median * scale,
            lowest: self.lowest * scale,
            highest: self.highest * scale,
            count: self.count,
            interval: (self.interval.0 * scale, self.interval.1 * scale),
        }
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

/// How many of the lowest and how many of the highest of `count` values the median's interval
/// leaves out: each value is on either side of the true median as a coin falls, and less than one
/// time in twenty so many coins or fewer of `count` fall on one side.
fn odd_ones(count: usize) -> usize {
    let mut left_out = 0;
    // How likely it is that `fallen` coins do, and that so many or fewer do.
    let mut exactly = 0.5f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut so_far = exactly;
    for fallen in 1..count / 2 {
        exactly *= (count + 1 - fallen) as f64 / fallen as f64;
        so_far += exactly;
        if 2.0 * so_far > 0.05 {
            break;
        }
        left_out = fallen;
    }
    left_out
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

    /// As tables of the sign test have it.
    #[test]
    fn medians_have_intervals() {
        for (count, left_out) in
            [(1, 0), (3, 0), (5, 0), (8, 0), (9, 1), (12, 2), (20, 5), (50, 17)]
        {
            assert_eq!(odd_ones(count), left_out, "{count} values");
        }
        let spread = Spread::of([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).unwrap();
        assert_eq!(spread.interval, (2.0, 8.0));
        assert_eq!(spread.scaled(2.0).interval, (4.0, 16.0));
        assert_eq!(Spread::of([3.0, 1.0]).unwrap().interval, (1.0, 3.0));
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
