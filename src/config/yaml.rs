//! YAML documents, and trees that are made of them.
//!
//! 1. Anchors, aliases and merge keys are resolved here: nobody later sees a field that the
//!    author wrote in a roundabout way as missing.
//! 2. Size and expansion are bounded by the parser's budget.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Octets of one file that are looked at; a longer one is refused.
pub const FILE_MAX: usize = 4 << 20;

/// Documents of one file; more are refused.
const DOCUMENTS_MAX: usize = 1024;

/// Nodes that the aliases of a document may repeat, all in all.
const REPLAYED_MAX: usize = 50_000;

/// The first document, if there is one and it is not null. As in daprd, later ones are not looked
/// at.
pub fn first_document<T: DeserializeOwned>(text: &str) -> Result<Option<T>, String> {
    // The parser passes null documents by.
    let mut bytes = first_of(text).as_bytes();
    let mut documents = serde_saphyr::read_with_options::<_, T>(&mut bytes, options());
    documents.next().transpose().map_err(one_line)
}

/// The text of the first document, comments and directives before it included.
///
/// A line that begins with a marker is one wherever it stands: not even a quoted text may hold it
/// (YAML 1.2.2 §9.1.2).
fn first_of(text: &str) -> &str {
    let (mut at, mut begun) = (0, false);
    for line in text.split_inclusive('\n') {
        let content = if at == 0 { line.trim_start_matches('\u{feff}') } else { line };
        let between = content.trim().is_empty() || content.starts_with(['#', '%']);
        match marker(content) {
            Some(_) if begun => return &text[..at],
            Some(marker) => begun = marker == "---",
            None => begun |= !between,
        }
        at += line.len();
    }
    text
}

/// What separates documents, if the line begins with it.
fn marker(line: &str) -> Option<&str> {
    let (marker, rest) = line.split_at_checked(3)?;
    let alone = rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']);
    (alone && ["---", "..."].contains(&marker)).then_some(marker)
}

/// Every document.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    let mut bytes = text.as_bytes();
    let documents = serde_saphyr::read_with_options::<_, Value>(&mut bytes, options());
    documents.take(DOCUMENTS_MAX).map(|document| document.map_err(one_line)).collect()
}

/// The parser's own budget of nodes and depth, and a smaller one of what aliases repeat.
fn options() -> serde_saphyr::Options {
    let alias_limits = serde_saphyr::alias_limits! { max_total_replayed_events: REPLAYED_MAX };
    serde_saphyr::options! { alias_limits: alias_limits }
}

fn one_line(error: serde_saphyr::Error) -> String {
    let text = error.to_string();
    format!("yaml: {}", text.lines().next().unwrap_or_default().trim())
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
        let first = first_document::<Value>;
        assert_eq!(first("a: 1\n---\nb: 2\n--- [\n").unwrap(), Some(json!({"a": 1})));
        assert_eq!(first("").unwrap(), None);
        assert_eq!(first("# nothing\n").unwrap(), None);
        assert_eq!(documents("a: 1\n---\nb: 2\n").unwrap(), [json!({"a": 1}), json!({"b": 2})]);
        assert!(first("a: [").unwrap_err().starts_with("yaml: "));
        assert!(first("a: 1\na: 2").is_err());
    }

    /// What daprd 1.18.1 does, and yaml.v3: a null is a document.
    #[test]
    fn a_null_is_a_first_document() {
        let first = first_document::<Value>;
        for text in ["---\n---\nb: 2\n", "null\n---\nb: 2\n", "# c\n---\n# d\n---\nb: 2\n"] {
            assert_eq!(first(text).unwrap(), None, "{text}");
        }
        for text in [
            "# c\n---\nb: 2\n",
            "%YAML 1.2\n---\nb: 2\n---\n[\n",
            "\u{feff}---\r\nb: 2\r\n---\r\nc: 3\r\n",
            "--- {b: 2}\n...\nc: 3\n",
            "...\n--- # c\nb: 2\n",
            "b: 2 # ---\n--- c",
        ] {
            assert_eq!(first(text).unwrap(), Some(json!({"b": 2})), "{text}");
        }
        let kept = "b: |\n  ---\n ---- \n";
        assert_eq!(first_of(kept), kept);
        assert_eq!(first_of("b: |\n  x\n---\tc"), "b: |\n  x\n");
    }

    #[test]
    fn sees_through_anchors_and_merges() {
        let text = "base: &b {policies: [1]}\nspec:\n  accessControl:\n    <<: *b\n  api: *b\n";
        let tree = first_document::<Value>(text).unwrap().unwrap();
        assert_eq!(at(&tree, "spec.accessControl.policies"), Some(&json!([1])));
        assert_eq!(at(&tree, "spec.api.policies"), Some(&json!([1])));
        assert_eq!(at(&tree, "spec.nothing.policies"), None);
    }
}
