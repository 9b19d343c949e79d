//! What name resolution said last, of whom: what the workers go by.
//!
//! Bounded: [`NAMES_MAX`] targets; more are not kept here, and resolved all the same.

use crate::identity::Target;
use crate::resolve::Resolution;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::HashMap;
use tokio::time::Instant;

const NAMES_MAX: usize = 4096;

/// See the file's text.
#[derive(Debug, Default)]
pub struct Names(RefCell<HashMap<Target, (Resolution, Instant)>>);

impl Names {
    /// An answer, or a change of one.
    pub fn heard(&self, resolution: &Resolution) {
        let mut known = self.0.borrow_mut();
        if known.len() < NAMES_MAX || known.contains_key(&resolution.target) {
            let what = (resolution.clone(), Instant::now());
            known.insert(resolution.target.clone(), what);
        }
    }

    /// Sorted by target.
    pub fn told(&self) -> Value {
        let known = self.0.borrow();
        let mut targets: Vec<&Target> = known.keys().collect();
        targets.sort();
        let rows = targets.into_iter().filter_map(|target| known.get(target));
        rows.map(|(resolution, at)| {
            let age = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            let target = resolution.target.to_string();
            match &resolution.result {
                Ok(endpoints) => {
                    let endpoints: Vec<String> =
                        endpoints.iter().map(|endpoint| endpoint.0.to_string()).collect();
                    json!({ "target": target, "endpoints": endpoints, "age_ms": age })
                }
                Err(error) => json!({ "target": target, "error": **error, "age_ms": age }),
            }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Namespace;
    use crate::resolve::Endpoint;

    #[test]
    fn the_last_word_counts_and_names_are_bounded() {
        let (names, own) = (Names::default(), Namespace::new("default"));
        let target = |id: &str| Target::parse(id, &own).unwrap();
        names.heard(&Resolution::not_found(target("b")));
        let endpoints = Ok([Endpoint("127.0.0.1:7".parse().unwrap())].into());
        names.heard(&Resolution { target: target("b"), result: endpoints });
        names.heard(&Resolution::not_found(target("a")));
        let told = names.told();
        assert_eq!(told[0]["error"], "couldn't find service: a");
        assert_eq!(
            (&told[1]["target"], &told[1]["endpoints"][0]),
            (&json!("b.default"), &json!("127.0.0.1:7"))
        );
        for n in 0..2 * NAMES_MAX {
            names.heard(&Resolution::not_found(target(&format!("x{n}"))));
        }
        assert_eq!(names.told().as_array().map(Vec::len), Some(NAMES_MAX));
        names.heard(&Resolution::not_found(target("b")));
        assert!(names.told()[1]["error"].is_string(), "who is known is kept up to date");
    }
}
