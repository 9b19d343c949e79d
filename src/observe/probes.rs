//! What probes of the app's health came to: Dapr's series of them. PURE.
//!
//! Label sets are bounded: [`LABELS_MAX`] results, and one `_other` of each kind.

use super::histogram::{Bounds, Histogram, Unit};
use std::collections::BTreeMap;
use std::time::Duration;

/// Results that are told apart; gRPC has 17, HTTP may have any number of three digits.
const LABELS_MAX: usize = 64;
const OTHER: &str = "_other";

/// Each kind has series of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    Grpc,
    Http,
}

/// By kind and result: a gRPC code's name, an HTTP status.
#[derive(Debug, Default)]
pub struct Probes(BTreeMap<(ProbeKind, String), Histogram>);

impl Probes {
    pub fn record(&mut self, kind: ProbeKind, label: &str, took: Duration, bounds: &Bounds) {
        let mut label = (kind, label.to_owned());
        if self.0.len() >= LABELS_MAX && !self.0.contains_key(&label) {
            label.1 = OTHER.to_owned();
        }
        self.0.entry(label).or_default().record(took, Unit::Milliseconds, bounds);
    }

    /// Probes whose result did not fit.
    pub fn folded(&self) -> u64 {
        let other = self.0.iter().filter(|((_, label), _)| label == OTHER);
        other.map(|(_, took)| took.count()).sum()
    }

    /// Of one kind: results and how long they took, in milliseconds.
    pub fn of(&self, kind: ProbeKind) -> impl Iterator<Item = (&str, &Histogram)> {
        let ours = self.0.iter().filter(move |((of, _), _)| *of == kind);
        ours.map(|((_, label), took)| (label.as_str(), took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::histogram::LATENCY_BOUNDS;

    #[test]
    fn labels_are_bounded() {
        let mut probes = Probes::default();
        for status in 0..1000 {
            probes.record(
                ProbeKind::Http,
                &status.to_string(),
                Duration::from_millis(3),
                &LATENCY_BOUNDS,
            );
        }
        probes.record(ProbeKind::Http, "7", Duration::from_millis(4), &LATENCY_BOUNDS);
        assert_eq!(probes.of(ProbeKind::Http).count(), LABELS_MAX + 1);
        assert_eq!(probes.folded(), 1000 - LABELS_MAX as u64);
        assert_eq!(probes.of(ProbeKind::Grpc).count(), 0);
        let seven = probes.of(ProbeKind::Http).find(|(label, _)| *label == "7").unwrap().1;
        assert_eq!((seven.count(), seven.sum()), (2, 7.0));
    }
}
