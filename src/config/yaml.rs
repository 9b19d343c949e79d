//! YAML documents as trees, and trees over trees.
//!
//! 1. Anchors, aliases and merge keys are resolved here: nobody later sees a field that the
//!    author wrote in a roundabout way as missing.
//! 2. Size and expansion are bounded by the parser's budget.

use serde_json::{Map, Value};

/// Octets of one file that are looked at; a longer one is refused.
pub const FILE_MAX: usize = 4 << 20;

/// Documents of one file; more are refused.
const DOCUMENTS_MAX: usize = 1024;

/// The first document; `Null` when there is none. As in daprd, later ones are not looked at.
pub fn first_document(text: &str) -> Result<Value, String> {
    let mut bytes = text.as_bytes();
    let options = serde_saphyr::Options::default();
    match serde_saphyr::read_with_options::<_, Value>(&mut bytes, options).next() {
        Some(document) => document.map_err(one_line),
        None => Ok(Value::Null),
    }
}

/// Every document.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    let mut bytes = text.as_bytes();
    let options = serde_saphyr::Options::default();
    let documents = serde_saphyr::read_with_options::<_, Value>(&mut bytes, options);
    documents.take(DOCUMENTS_MAX).map(|document| document.map_err(one_line)).collect()
}

fn one_line(error: serde_saphyr::Error) -> String {
    let text = error.to_string();
    format!("yaml: {}", text.lines().next().unwrap_or_default().trim())
}

/// Lays `over` on `base`: maps merge key by key, anything else is replaced; a null changes
/// nothing, as in Go, where a field without a value is not set.
pub fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => overlay_map(base, over),
        (_, Value::Null) => {}
        (base, over) => *base = over,
    }
}

fn overlay_map(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match base.get_mut(&key) {
            Some(slot) => overlay(slot, value),
            None => drop(base.insert(key, value)),
        }
    }
}

/// The value at a path of keys; `None` when any of them is missing or null.
pub fn at<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = tree;
    for key in path.split('.') {
        value = value.get(key)?;
    }
    (!value.is_null()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_the_first_document_only() {
        let tree = first_document("a: 1\n---\nb: 2\n--- [\n").unwrap();
        assert_eq!(tree, json!({"a": 1}));
        assert_eq!(first_document("").unwrap(), Value::Null);
        assert_eq!(first_document("# nothing\n").unwrap(), Value::Null);
        assert_eq!(documents("a: 1\n---\nb: 2\n").unwrap(), [json!({"a": 1}), json!({"b": 2})]);
        assert!(first_document("a: [").unwrap_err().starts_with("yaml: "));
        assert!(first_document("a: 1\na: 2").is_err());
    }

    #[test]
    fn sees_through_anchors_and_merges() {
        let text = "base: &b {policies: [1]}\nspec:\n  accessControl:\n    <<: *b\n  api: *b\n";
        let tree = first_document(text).unwrap();
        assert_eq!(at(&tree, "spec.accessControl.policies"), Some(&json!([1])));
        assert_eq!(at(&tree, "spec.api.policies"), Some(&json!([1])));
        assert_eq!(at(&tree, "spec.nothing.policies"), None);
    }

    #[test]
    fn overlays() {
        let mut base = json!({"a": {"x": 1, "y": [1, 2]}, "b": 1});
        overlay(&mut base, json!({"a": {"y": [3], "z": null}, "b": null, "c": {"d": 1}}));
        assert_eq!(base, json!({"a": {"x": 1, "y": [3], "z": null}, "b": 1, "c": {"d": 1}}));
    }
}
