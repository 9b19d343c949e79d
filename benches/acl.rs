//! What access control costs, by the number of operations that a policy has.
//!
//! `cargo bench --bench acl` prints nanoseconds for one decision that nobody remembers: a path that
//! is in the list, one that is not, with patterns that are plain and such that have a wildcard. A
//! call whose path is remembered does not ask the list: `cargo bench --bench call`.

#![allow(clippy::disallowed_methods)] // A benchmark may ask for the time.

use ringside::config::access::{AccessControl as List, AppPolicy, Operation};
use ringside::identity::SpiffeId;
use ringside::policy::acl::AccessControl;
use std::hint::black_box;
use std::time::Instant;

const DECISIONS: u32 = 20_000;
const ROUNDS: usize = 21;

/// One caller with so many operations, each a method of its own or, if `wild`, all that begin so.
fn list(operations: usize, wild: bool) -> AccessControl {
    let star = if wild { "*" } else { "" };
    let operation = |n| Operation {
        name: format!("/package.Service/Method{n}{star}"),
        action: "allow".to_owned(),
    };
    let policy = AppPolicy {
        app_id: "caller".to_owned(),
        namespace: "default".to_owned(),
        trust_domain: "public".to_owned(),
        default_action: "deny".to_owned(),
        operations: (0..operations).map(operation).collect(),
    };
    let list = List {
        default_action: "deny".to_owned(),
        trust_domain: "public".to_owned(),
        policies: vec![policy],
    };
    let compiled = AccessControl::compile(&list, false).expect("a list that is right");
    compiled.expect("a list").0
}

/// Nanoseconds for one decision, the median of some rounds.
fn decide(access: &AccessControl, caller: &SpiffeId, path: &str, decisions: u32) -> u128 {
    let standing = access.standing(Some(caller));
    let mut rounds = [0; ROUNDS];
    for round in &mut rounds {
        let begun = Instant::now();
        for _ in 0..decisions {
            black_box(access.decide(black_box(standing), black_box(path.as_bytes())));
        }
        *round = begun.elapsed().as_nanos() / u128::from(decisions);
    }
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

fn main() {
    let caller = SpiffeId::parse("spiffe://public/ns/default/caller").expect("an ID");
    for (kind, wild) in [("plain", false), ("wildcard", true)] {
        for operations in [1, 100, 10_000] {
            let access = list(operations, wild);
            let last = format!("/package.Service/Method{}", operations - 1);
            // Those with a wildcard are looked at one by one.
            let decisions = if wild { DECISIONS / operations as u32 } else { DECISIONS };
            let times = [last.as_str(), "/package.Service/Nothing"]
                .map(|path| decide(&access, &caller, path, decisions.max(10)));
            println!(
                "{operations:>6} {kind} operations: {} ns for the last one, {} ns for none of them",
                times[0], times[1]
            );
        }
    }
}
