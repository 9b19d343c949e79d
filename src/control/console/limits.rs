//! The limits in force, as the workers tell them, beside how often each was reached.
//!
//! Of what several workers use, that of the one that uses most is told: a limit is each one's.

use crate::observe::report::Bound;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `reached`: since the start, by name.
pub(super) fn told<'a>(
    workers: impl Iterator<Item = &'a Bound>,
    reached: &[(&'static str, u64)],
) -> Value {
    let mut bounds: BTreeMap<(&str, &str), Bound> = BTreeMap::new();
    for told in workers {
        let known = bounds.entry((told.limit, told.of)).or_insert_with(|| told.clone());
        known.used = known.used.max(told.used);
    }
    let times = |limit| reached.iter().filter(|(name, _)| *name == limit).map(|(_, n)| n).sum();
    let mut rows: Vec<Value> =
        bounds.values().map(|bound| row(bound, times(bound.limit))).collect();
    // Of a worker that has not answered.
    let is_missing = |name: &str| !bounds.values().any(|bound| bound.limit == name);
    let missing = reached.iter().filter(|(name, _)| is_missing(name));
    rows.extend(missing.map(|(name, times)| json!({ "limit": name, "reached": times })));
    rows.into()
}

fn row(bound: &Bound, reached: u64) -> Value {
    json!({
        "limit": bound.limit,
        "of": bound.of,
        "most": bound.most,
        "unit": bound.unit,
        "perSecond": bound.per_second,
        "used": bound.used,
        "reached": reached,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::report::Unit;

    #[test]
    fn workers_are_told_as_one_and_what_was_reached_is_never_left_out() {
        let bound = |limit, used| {
            let (of, unit, most) = ("worker", Unit::Octets, Some(9));
            Bound { limit, of, most, unit, per_second: None, used }
        };
        let workers = [bound("b", Some(2)), bound("a", None), bound("b", Some(1))];
        let row = |limit: &str, used: Option<u64>, reached: u64| {
            json!({ "limit": limit, "of": "worker", "most": 9, "unit": "octets",
                "perSecond": null, "used": used, "reached": reached })
        };
        let told = told(workers.iter(), &[("b", 5), ("late", 1)]);
        let late = json!({ "limit": "late", "reached": 1 });
        assert_eq!(told, Value::from(vec![row("a", None, 0), row("b", Some(2), 5), late]));
    }
}
