//! Limits that are told to whoever asks: all that are counted, and what is used of them.

use super::*;
use crate::observe::report::{Bound, Unit};
use std::collections::BTreeSet;

fn bound<'a>(bounds: &'a [Bound], limit: &str) -> &'a Bound {
    bounds.iter().find(|bound| bound.limit == limit).unwrap_or_else(|| panic!("no {limit}"))
}

/// Every counter that docs/security.md names is of a limit that is told, and the other way round.
#[test]
fn what_is_counted_is_told() {
    let mut bench = Bench::new(config());
    bench.proxy.budget_retries(20);
    let told: BTreeSet<&str> = bench.proxy.in_force().iter().map(|bound| bound.limit).collect();
    let text = include_str!("../../../docs/security.md");
    let table = text.split("| Limit | Value |").nth(1).expect("the table of limits");
    let table = table.split("\n\n").next().expect("its end");
    let counters = table.lines().filter_map(|row| row.rsplit('|').nth(2));
    // Others have a series of their own.
    let counters = counters.filter(|cell| !cell.contains("_total") && !cell.contains("the same"));
    let counted: BTreeSet<&str> =
        counters.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    // Those of `io`, which tells them itself.
    let io = BTreeSet::from(["connections", "handshakes", "slow_handshake"]);
    let untold: Vec<_> = counted.difference(&told).filter(|name| !io.contains(*name)).collect();
    assert!(counted.len() > 30 && untold.is_empty(), "counted and not told: {untold:?}");
    assert_eq!(told.difference(&counted).count(), 0, "{told:?} beside {counted:?}");
}

#[test]
fn what_is_used_is_told() {
    let mut bench = Bench::new(config());
    let first = bench.proxy.in_force();
    assert!(first.iter().all(|bound| bound.used.unwrap_or(0) == 0), "{first:?}");
    let caller = bench.accept(Listener::Internal);
    for _ in 0..3 {
        bench.call(caller, &[("dapr-callee-app-id", "client")], Some(MESSAGE));
    }
    let bounds = bench.proxy.in_force();
    for limit in ["streams", "calls", "parked"] {
        assert_eq!(bound(&bounds, limit).used, Some(3), "{limit}");
    }
    let heads = bound(&bounds, "parked_octets");
    assert!(heads.used.is_some_and(|used| used > 0) && heads.unit == Unit::Octets, "{heads:?}");
    let resets = bound(&bounds, "rapid_resets");
    assert_eq!((resets.most, resets.per_second, resets.used), (Some(1000), Some(33), None));
}
