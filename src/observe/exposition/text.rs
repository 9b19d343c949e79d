//! The text format itself: heads, samples, label values. PURE.

use super::Labels;
use crate::observe::histogram::{Bounds, Histogram};
use crate::observe::names::{Kind, Series};
use crate::observe::rules::Rules;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write;

/// What is told so far.
pub(super) struct Text<'a> {
    pub(super) out: String,
    rules: &'a Rules,
    latency_bounds: &'a Bounds,
}

impl<'a> Text<'a> {
    pub(super) fn new(rules: &'a Rules, latency_bounds: &'a Bounds) -> Self {
        Self { out: String::with_capacity(8192), rules, latency_bounds }
    }

    pub(super) fn head(&mut self, series: &Series) {
        let kind = match series.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String does not fail.
        let Series { name, help, .. } = series;
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn number(&mut self, series: &Series, value: f64) {
        self.head(series);
        let _ = writeln!(self.out, "{} {value}", series.name);
    }

    pub(super) fn counters(&mut self, series: &Series, values: BTreeMap<Labels, u64>) {
        let values = self.ruled(series, values, |count, more| *count += more);
        if values.is_empty() {
            return;
        }
        self.head(series);
        for (labels, value) in values {
            self.sample(series, "", &labels, None, value as f64);
        }
    }

    /// Of those that become one the last one is told, as it comes.
    pub(super) fn gauges(&mut self, series: &Series, values: Vec<(Labels, f64)>) {
        if values.is_empty() {
            return;
        }
        self.head(series);
        let values = self.ruled(series, values.into_iter().collect(), |value, last| *value = last);
        for (labels, value) in values {
            self.sample(series, "", &labels, None, value);
        }
    }

    pub(super) fn histograms(&mut self, series: &Series, values: BTreeMap<Labels, Histogram>) {
        self.histograms_of(series, values, self.latency_bounds);
    }

    pub(super) fn histograms_of(
        &mut self,
        series: &Series,
        values: BTreeMap<Labels, Histogram>,
        bounds: &Bounds,
    ) {
        let values = self.ruled(series, values, |histogram, more| histogram.merge(&more));
        if values.is_empty() {
            return;
        }
        self.head(series);
        for (labels, histogram) in values {
            let (count, sum) = (histogram.count(), histogram.sum());
            self.buckets(series, &labels, histogram.cumulative(bounds), count, sum);
        }
    }

    /// One histogram: each bound with the count of all values up to it, then that of all values.
    pub(super) fn buckets(
        &mut self,
        series: &Series,
        labels: &[String],
        buckets: impl Iterator<Item = (u64, u64)>,
        count: u64,
        sum: f64,
    ) {
        for (bound, count) in buckets {
            self.sample(series, "_bucket", labels, Some(&label_of(bound)), count as f64);
        }
        self.sample(series, "_bucket", labels, Some("+Inf"), count as f64);
        self.sample(series, "_sum", labels, None, sum);
        self.sample(series, "_count", labels, None, count as f64);
    }

    /// The values under the labels that rules make of theirs.
    fn ruled<V>(
        &self,
        series: &Series,
        values: BTreeMap<Labels, V>,
        merge: impl Fn(&mut V, V),
    ) -> BTreeMap<Labels, V> {
        if !self.rules.touch(series) {
            return values;
        }
        let mut told = BTreeMap::new();
        for (labels, value) in values {
            match told.entry(self.rules.apply(series, labels)) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => merge(entry.get_mut(), value),
            }
        }
        told
    }

    pub(super) fn sample(
        &mut self,
        series: &Series,
        suffix: &str,
        values: &[String],
        bound: Option<&str>,
        value: f64,
    ) {
        self.out.push_str(series.name);
        self.out.push_str(suffix);
        let values = values.iter().map(String::as_str).chain(std::iter::repeat(""));
        let labels = series.labels.iter().copied().zip(values);
        let labels = labels.chain(bound.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (name, value) in labels {
            self.out.push(separator);
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(&mut self.out, value);
            self.out.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }
}

/// A bound as Go's `strconv.AppendFloat(..., 'g', -1, 64)` writes it: it is a label's value, which
/// must be daprd's.
fn label_of(bound: u64) -> String {
    if bound < 1_000_000 {
        return bound.to_string();
    }
    let text = format!("{:e}", bound as f64);
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{mantissa}e+{exponent:0>2}"),
        None => text,
    }
}

fn escape(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}
