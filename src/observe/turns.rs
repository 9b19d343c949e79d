//! What a worker's loop does in a turn, and how much of it. PURE.
//!
//! Told as they stand, never handed over: they are as large as they will ever be.

use std::time::Duration;

/// Most of a batch that are told apart: powers of two.
pub const BATCH_BOUNDS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// How many came together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batches {
    /// One for each bound, and one for the rest.
    buckets: [u64; BATCH_BOUNDS.len() + 1],
    sum: u64,
}

/// What a worker's thread did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// CPU time.
    pub busy: Duration,
    /// What each turn of the loop brought: reads, and sockets that may be written again.
    pub turns: Batches,
    /// Connections that had something to send, whenever the worker wrote.
    pub flushes: Batches,
}

impl Batches {
    #[inline]
    pub fn record(&mut self, size: usize) {
        let bound = size.max(1).next_power_of_two().trailing_zeros() as usize;
        self.buckets[bound.min(BATCH_BOUNDS.len())] += 1;
        self.sum += size as u64;
    }

    /// Each bound with the count of all batches up to it.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let counts = self.buckets.iter().scan(0, |total, count| {
            *total += count;
            Some(*total)
        });
        BATCH_BOUNDS.into_iter().zip(counts)
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_counted_up_to_its_bound() {
        assert!(BATCH_BOUNDS.iter().enumerate().all(|(n, bound)| *bound == 1 << n));
        let mut batches = Batches::default();
        let sizes = [0, 1, 2, 3, 4, 5, 256, 257, 1 << 20];
        sizes.into_iter().for_each(|size| batches.record(size));
        for (bound, count) in batches.cumulative() {
            let within = sizes.iter().filter(|size| **size as u64 <= bound).count();
            assert_eq!(count, within as u64, "{bound}");
        }
        assert_eq!((batches.count(), batches.sum()), (9, sizes.iter().sum::<usize>() as u64));
    }
}
