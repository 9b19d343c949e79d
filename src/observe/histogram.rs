//! A cumulative histogram. PURE.
//!
//! 1. A value is counted in exactly one bucket, as its bounds say: always the same ones for one
//!    histogram, kept by whoever has many.
//! 2. One that recorded nothing takes no memory but its own.
//!
//! Bounds: `defaultLatencyDistribution` of Dapr's `pkg/config/configuration.go`,
//! `defaultSizeDistribution` of its `pkg/diagnostics/metrics.go`.

/// Of Dapr's latencies, in milliseconds.
pub const LATENCY_BOUNDS: &[u64] = &[
    1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400,
    500, 650, 800, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000,
];
/// Of our own latencies, in microseconds.
pub const MICROS_BOUNDS: &[u64] = &[
    10, 20, 50, 100, 150, 200, 300, 400, 500, 700, 1000, 1500, 2000, 3000, 5000, 10_000, 20_000,
    50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 60_000_000,
];
/// Of sizes, in octets.
pub const SIZE_BOUNDS: &[u64] = &[
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
];

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

impl Histogram {
    /// Into the first bucket whose bound is not below the value.
    #[inline]
    pub fn record(&mut self, value: f64, bounds: &[u64]) {
        self.add(bounds.partition_point(|bound| (*bound as f64) < value), value, bounds);
    }

    /// Into the first bucket whose bound is above the value: Dapr's sizes meet bounds exactly.
    pub fn record_below(&mut self, value: u64, bounds: &[u64]) {
        self.add(bounds.partition_point(|bound| *bound <= value), value as f64, bounds);
    }

    #[inline]
    fn add(&mut self, bucket: usize, value: f64, bounds: &[u64]) {
        if self.buckets.len() <= bucket {
            self.buckets.resize(bounds.len() + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.sum += value;
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
    pub fn cumulative<'a>(&'a self, bounds: &'a [u64]) -> impl Iterator<Item = (u64, u64)> + 'a {
        let counts = self.buckets.iter().copied().chain(std::iter::repeat(0));
        let counts = counts.scan(0, |total, count| {
            *total += count;
            Some(*total)
        });
        bounds.iter().copied().zip(counts)
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
        for value in [0.0, 1.0, 1.5, 100_000.0, 100_001.0] {
            histogram.record(value, LATENCY_BOUNDS);
        }
        let counts: Vec<_> = histogram.cumulative(LATENCY_BOUNDS).collect();
        assert_eq!(counts[0], (1, 2));
        assert_eq!(counts[1], (2, 3));
        assert_eq!(counts.last(), Some(&(100_000, 4)));
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), 200_003.5);
    }

    /// OpenCensus counts a size that is a bound above it.
    #[test]
    fn a_size_that_is_a_bound_is_above_it() {
        let mut histogram = Histogram::default();
        for size in [1023, 1024, 5 << 30] {
            histogram.record_below(size, SIZE_BOUNDS);
        }
        let counts: Vec<_> = histogram.cumulative(SIZE_BOUNDS).collect();
        assert_eq!((counts[0], counts[1]), ((1024, 1), (2048, 2)));
        assert_eq!((counts[12], histogram.count()), ((4 << 30, 2), 3));
    }

    #[test]
    fn any_bounds_will_do() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        assert_eq!(one.cumulative(&[7]).collect::<Vec<_>>(), [(7, 0)]);
        one.record(3.0, &[]);
        other.merge(&one);
        assert_eq!((other.count(), other.cumulative(&[]).count()), (1, 0));
    }

    #[test]
    fn bounds_rise() {
        for bounds in [LATENCY_BOUNDS, MICROS_BOUNDS, SIZE_BOUNDS] {
            assert!(bounds.is_sorted());
        }
    }
}
