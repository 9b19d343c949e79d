//! A cumulative histogram with Dapr's default latency buckets. PURE.
//!
//! 1. A value is counted in exactly one bucket: the first whose bound is not below it.
//!
//! Bounds: `defaultLatencyDistribution` of Dapr's `pkg/config/configuration.go`.

/// Upper bounds; one more bucket takes the rest.
pub const BOUNDS: [u32; 34] = [
    1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400,
    500, 650, 800, 1000, 2000, 5000, 10000, 20000, 50000, 100000,
];
const BUCKETS: usize = BOUNDS.len() + 1;

#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], sum: 0.0 }
    }
}

impl Histogram {
    pub fn record(&mut self, value: f64) {
        let bucket = BOUNDS.partition_point(|bound| f64::from(*bound) < value);
        self.buckets[bucket] += 1;
        self.sum += value;
    }

    pub fn merge(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
        self.sum += other.sum;
    }

    /// Each bound with the count of all values up to it.
    pub fn cumulative(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let counts = self.buckets.iter().scan(0, |total, count| {
            *total += count;
            Some(*total)
        });
        BOUNDS.into_iter().zip(counts)
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
            histogram.record(value);
        }
        let counts: Vec<_> = histogram.cumulative().collect();
        assert_eq!(counts[0], (1, 2));
        assert_eq!(counts[1], (2, 3));
        assert_eq!(counts.last(), Some(&(100_000, 4)));
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum(), 200_003.5);
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted());
    }
}
