//! Resource files: what kinds are in them, and whether they are for our app.
//!
//! Source: `pkg/runtime/hotreload/loader` and `pkg/resiliency` of Dapr.

use super::yaml::{at, documents};
use serde_json::Value;

/// One resource of a file, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: String,
    pub name: String,
    /// `spec.type` of a Component, else empty.
    pub component_type: String,
    /// App IDs that it is for; empty: all.
    pub scopes: Vec<String>,
}

impl Resource {
    pub fn is_for(&self, app_id: &str) -> bool {
        self.scopes.is_empty() || self.scopes.iter().any(|scope| scope == app_id)
    }
}

/// Whether daprd would look into a file of this name.
pub fn is_yaml(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// Every resource of a file; documents without a kind are none.
pub fn read(text: &str) -> Result<Vec<Resource>, String> {
    Ok(documents(text)?.iter().filter_map(resource).collect())
}

fn resource(document: &Value) -> Option<Resource> {
    let text = |path| at(document, path).and_then(Value::as_str).map(str::to_owned);
    let scopes = at(document, "scopes").and_then(Value::as_array).into_iter().flatten();
    Some(Resource {
        kind: text("kind")?,
        name: text("metadata.name").unwrap_or_default(),
        component_type: text("spec.type").unwrap_or_default(),
        scopes: scopes.filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kinds_names_and_scopes() {
        let text = "kind: Component\nmetadata: {name: statestore}\nspec: {type: state.redis}\n\
                    ---\nkind: Resiliency\nmetadata: {name: r}\nscopes: [a, b]\n---\n# nothing\n";
        let resources = read(text).unwrap();
        assert_eq!(resources.len(), 2);
        assert_eq!(resources[0].component_type, "state.redis");
        assert!(resources[0].is_for("anyone"));
        assert!(resources[1].is_for("a") && !resources[1].is_for("c"));
        assert!(read("kind: [").is_err());
        assert!(is_yaml("a.YML") && is_yaml("b.yaml") && !is_yaml("c.txt"));
    }
}
