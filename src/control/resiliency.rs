//! Resiliency resources: found, read, put together, told in the log as daprd does.
//!
//! Source: `LoadLocalResiliency` and `FromConfigurations` in Dapr's `pkg/resiliency/resiliency.go`.
//!
//! 1. A file that cannot be read, or a resource that is wrong, is told with an ERROR and left out
//!    whole; the others count.

use super::files;
use crate::config::resiliency::Document;
use crate::policy::resiliency::{Builder, Targets};
use std::sync::Arc;
use std::time::Instant;

/// What was found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// `None`: nothing that concerns calls.
    pub targets: Option<Arc<Targets>>,
    /// Resources that are for our app, right or wrong: what the metadata tells.
    pub names: Vec<String>,
    /// Name and namespace of those that were right.
    pub right: Vec<(String, String)>,
    /// Those of the last one, right or wrong: how daprd labels what all of them do.
    pub label: (String, String),
}

/// Reads the folders, for at most `workers` workers.
pub fn load(folders: &[String], app_id: &str, workers: usize, now: Instant) -> Loaded {
    let mut documents = Vec::new();
    for folder in folders {
        for (name, text) in files::yaml_files(folder) {
            let document = match text {
                Ok(text) => Document::read(&text),
                Err(error) => {
                    tracing::error!("Could not read resiliency file {name}: {error}");
                    continue;
                }
            };
            match document {
                Ok(Some(document)) if document.is_for(app_id) => documents.push(document),
                Ok(Some(_) | None) => {}
                Err(error) => tracing::error!("{}", error.text(&name)),
            }
        }
    }
    put_together(&documents, workers, now)
}

fn put_together(documents: &[Document], workers: usize, now: Instant) -> Loaded {
    let mut loaded = Loaded::default();
    let mut builder = Builder::default();
    for document in documents {
        let name = &document.name;
        tracing::info!("Loading Resiliency configuration: {name}");
        loaded.names.push(name.clone());
        loaded.label = (name.clone(), document.namespace.clone());
        match add(&mut builder, document) {
            Ok(()) => loaded.right.push((name.clone(), document.namespace.clone())),
            Err(error) => tracing::error!("Could not read resiliency policy {name}: {error}"),
        }
    }
    if !loaded.right.is_empty() {
        loaded.targets = Some(Arc::new(builder.build(workers, now)));
    }
    loaded
}

fn add(builder: &mut Builder, document: &Document) -> Result<(), String> {
    let decoded = document.decode()?;
    for kind in &decoded.others {
        tracing::warn!(
            "Resiliency {}: targets.{kind} have no effect in ringside, which carries gRPC service \
             invocation only",
            document.name
        );
    }
    for warning in builder.add(decoded)? {
        tracing::warn!("{warning}");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document::read(&format!("kind: Resiliency\n{text}")).unwrap().unwrap()
    }

    #[test]
    fn a_wrong_resource_is_left_out_and_still_labels() {
        let right = document(
            "metadata: {name: one, namespace: a}\n\
             spec: {policies: {timeouts: {DefaultTimeoutPolicy: 1s}}}",
        );
        let wrong = document(
            "metadata: {name: two}\nspec: {policies: {timeouts: {DefaultTimeoutPolicy: 2x}}}",
        );
        let loaded = put_together(&[right, wrong], 1, Instant::now());
        let policy = loaded.targets.unwrap().of(b"any").unwrap();
        assert_eq!(policy.timeout, Some(std::time::Duration::from_secs(1)));
        assert_eq!(loaded.names, ["one", "two"]);
        assert_eq!(loaded.right, [("one".to_owned(), "a".to_owned())]);
        assert_eq!(loaded.label, ("two".to_owned(), String::new()));
        assert!(load(&["/nowhere".to_owned()], "a", 1, Instant::now()).targets.is_none());
    }
}
