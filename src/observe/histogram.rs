//! A cumulative histogram. PURE.
//!
//! 1. A value is counted in exactly one bucket, as its bounds say: always the same ones for one
//!    histogram, kept by whoever has many.
//! 2. One that recorded nothing takes no memory but its own.
//! 3. What a value's bucket costs to find does not grow with the number of bounds, unless they
//!    crowd between two powers of two.
//!
//! Bounds: `defaultLatencyDistribution` of Dapr's `pkg/config/configuration.go`,
//! `defaultSizeDistribution` of its `pkg/diagnostics/metrics.go`.

use std::borrow::Cow;
use std::time::Duration;

/// Where buckets end, in rising order.
#[derive(Clone, Debug)]
pub struct Bounds {
    values: Cow<'static, [u64]>,
    /// By a number of binary digits: how many bounds have fewer. Between one and the next are those
    /// that a value of so many digits need be compared with.
    shorter: [u16; DIGITS_MAX + 2],
}

/// Binary digits of a value.
const DIGITS_MAX: usize = u64::BITS as usize;

/// Of Dapr's latencies, in milliseconds.
pub static LATENCY_BOUNDS: Bounds = Bounds::of(&[
    1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400,
    500, 650, 800, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000,
]);
/// Of our own latencies, in microseconds.
pub static MICROS_BOUNDS: Bounds = Bounds::of(&[
    10, 20, 50, 100, 150, 200, 300, 400, 500, 700, 1000, 1500, 2000, 3000, 5000, 10_000, 20_000,
    50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 60_000_000,
]);
/// Of sizes, in octets.
pub static SIZE_BOUNDS: Bounds = Bounds::of(&[
    1 << 10,
    2 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    16 << 20,
    64 << 20,
    256 << 20,
    1 << 30,
    4 << 30,
]);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// One for each bound, and one for the rest; none before the first record.
    buckets: Vec<u64>,
    sum: f64,
}

/// Octets of messages, without their prefixes.
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    pub requests: Histogram,
    pub responses: Histogram,
}

/// What a latency is told in.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    Milliseconds,
    Microseconds,
}

impl Bounds {
    const fn of(values: &'static [u64]) -> Self {
        Self { values: Cow::Borrowed(values), shorter: shorter(values) }
    }

    /// Sorted ones, each but once; what is beyond the first 65,535 would never be found.
    pub fn new(values: &[u64]) -> Self {
        debug_assert!(values.is_sorted() && values.len() <= usize::from(u16::MAX));
        Self { values: Cow::Owned(values.to_vec()), shorter: shorter(values) }
    }

    pub fn values(&self) -> &[u64] {
        &self.values
    }

    /// How many bounds are below the value.
    #[inline]
    fn below(&self, value: u64) -> usize {
        let digits = digits(value);
        let shorter = usize::from(self.shorter[digits]);
        let alike = shorter..usize::from(self.shorter[digits + 1]);
        let alike = self.values.get(alike).unwrap_or_default();
        shorter + alike.iter().take_while(|bound| **bound < value).count()
    }
}

const fn digits(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()) as usize
}

const fn shorter(values: &[u64]) -> [u16; DIGITS_MAX + 2] {
    let mut shorter = [0; DIGITS_MAX + 2];
    let mut count = 0;
    let mut digits_now = 0;
    while digits_now < shorter.len() {
        while count < values.len() && digits(values[count]) < digits_now {
            count += 1;
        }
        shorter[digits_now] = count as u16;
        digits_now += 1;
    }
    shorter
}

impl Histogram {
    /// Into the first bucket whose bound is not below it.
    #[inline]
    pub fn record(&mut self, took: Duration, unit: Unit, bounds: &Bounds) {
        let nanos = took.as_secs().saturating_mul(1_000_000_000);
        let nanos = nanos.saturating_add(u64::from(took.subsec_nanos()));
        // Each arm divides by a number that the compiler knows. A bound is whole: what is above it
        // by a fraction is, rounded up.
        let (whole, value) = match unit {
            Unit::Milliseconds => (nanos.div_ceil(1_000_000), nanos as f64 / 1e6),
            Unit::Microseconds => (nanos.div_ceil(1_000), nanos as f64 / 1e3),
        };
        self.add(bounds.below(whole), value, bounds);
    }

    /// Into the first bucket whose bound is above the value: Dapr's sizes meet bounds exactly.
    pub fn record_below(&mut self, value: u64, bounds: &Bounds) {
        self.add(bounds.below(value.saturating_add(1)), value as f64, bounds);
    }

    #[inline]
    fn add(&mut self, bucket: usize, value: f64, bounds: &Bounds) {
        match self.buckets.get_mut(bucket) {
            Some(count) => *count += 1,
            None => self.begin(bucket, bounds),
        }
        self.sum += value;
    }

    /// Its first record.
    #[cold]
    fn begin(&mut self, bucket: usize, bounds: &Bounds) {
        self.buckets.resize(bounds.values.len() + 1, 0);
        self.buckets[bucket] += 1;
    }

    /// Its memory stays.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.sum = 0.0;
    }

    pub fn merge(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
        self.sum += other.sum;
    }

    /// Each bound with the count of all values up to it.
    pub fn cumulative<'a>(&'a self, bounds: &'a Bounds) -> impl Iterator<Item = (u64, u64)> + 'a {
        let counts = self.buckets.iter().copied().chain(std::iter::repeat(0));
        let counts = counts.scan(0, |total, count| {
            *total += count;
            Some(*total)
        });
        bounds.values.iter().copied().zip(counts)
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn sum(&self) -> f64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut histogram = Histogram::default();
        for micros in [0, 1000, 1500, 100_000_000, 100_000_001] {
            let took = Duration::from_micros(micros);
            histogram.record(took, Unit::Milliseconds, &LATENCY_BOUNDS);
        }
        let counts: Vec<_> = histogram.cumulative(&LATENCY_BOUNDS).collect();
        assert_eq!(counts[0], (1, 2));
        assert_eq!(counts[1], (2, 3));
        assert_eq!(counts.last(), Some(&(100_000, 4)));
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), 200_002.501);
    }

    /// OpenCensus counts a size that is a bound above it.
    #[test]
    fn a_size_that_is_a_bound_is_above_it() {
        let mut histogram = Histogram::default();
        for size in [1023, 1024, 5 << 30] {
            histogram.record_below(size, &SIZE_BOUNDS);
        }
        let counts: Vec<_> = histogram.cumulative(&SIZE_BOUNDS).collect();
        assert_eq!((counts[0], counts[1]), ((1024, 1), (2048, 2)));
        assert_eq!((counts[12], histogram.count()), ((4 << 30, 2), 3));
    }

    /// Crowded, far apart, none; values at, beside and far from each of them.
    #[test]
    fn what_is_found_is_what_a_search_finds() {
        let crowded: Vec<u64> = (1000..1256).collect();
        let apart = [0, 1, 3, 1 << 40, u64::MAX];
        for bounds in [&[][..], &crowded, &apart, LATENCY_BOUNDS.values(), MICROS_BOUNDS.values()] {
            let looked_up = Bounds::new(bounds);
            let beside = |value: &u64| [value.saturating_sub(1), *value, value.saturating_add(1)];
            let near = bounds.iter().flat_map(beside);
            for value in near.chain((0..64).map(|digit| 1 << digit)).chain([0, u64::MAX]) {
                let searched = bounds.partition_point(|bound| *bound < value);
                assert_eq!(looked_up.below(value), searched, "{value} of {bounds:?}");
            }
        }
    }

    #[test]
    fn any_bounds_will_do() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        let (none, seven) = (Bounds::new(&[]), Bounds::new(&[7]));
        assert_eq!(one.cumulative(&seven).collect::<Vec<_>>(), [(7, 0)]);
        one.record(Duration::MAX, Unit::Microseconds, &none);
        other.merge(&one);
        assert_eq!((other.count(), other.cumulative(&none).count()), (1, 0));
    }

    #[test]
    fn bounds_rise() {
        for bounds in [&LATENCY_BOUNDS, &MICROS_BOUNDS, &SIZE_BOUNDS] {
            assert!(bounds.values().is_sorted());
        }
    }
}
