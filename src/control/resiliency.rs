//! Resiliency resources: found, read, put together, told in the log as daprd does.
//!
//! Source: `LoadLocalResiliency` and `FromConfigurations` in Dapr's `pkg/resiliency/resiliency.go`.
//!
//! 1. A file that cannot be read, or a resource that is wrong, is told with an ERROR and left out
//!    whole; the others count. When it was right before, what it said then stays.
//! 2. What is told of a file is told once, until somebody asks for a reading.

use super::files::Text;
use crate::config::resiliency::{Document, Resiliency};
use crate::policy::resiliency::{Builder, Targets};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What all resources came to.
#[derive(Clone, Debug, Default)]
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

/// The resources of one sidecar, as they were read last.
#[derive(Debug)]
pub struct Shelf {
    app_id: String,
    /// Workers at most.
    workers: usize,
    /// `None`: nothing was read yet.
    items: Option<Vec<Item>>,
    /// What was told of files that are wrong.
    told: BTreeMap<PathBuf, String>,
}

/// A resource that is for our app.
#[derive(Clone, Debug, PartialEq)]
struct Item {
    path: PathBuf,
    name: String,
    namespace: String,
    /// `None`: it is wrong, and was never right.
    says: Option<Resiliency>,
}

/// What a reading changed.
#[derive(Debug, Default)]
pub struct Change {
    /// `None`: all is as it was.
    pub loaded: Option<Loaded>,
    /// Names of what is new, other, or gone.
    pub names: Vec<String>,
    /// Something wrong was told.
    pub failed: bool,
}

impl Shelf {
    pub fn new(app_id: &str, workers: usize) -> Self {
        Self { app_id: app_id.to_owned(), workers, items: None, told: BTreeMap::new() }
    }

    /// Some file is wrong.
    pub fn is_wrong(&self) -> bool {
        !self.told.is_empty()
    }

    /// Takes all files in their order. `asked`: what is wrong is told again.
    pub fn take(&mut self, texts: &[Text], asked: bool, now: Instant) -> Change {
        let before = self.items.take();
        let known = std::mem::take(&mut self.told);
        let mut builder = Builder::default();
        let mut items: Vec<Item> = Vec::new();
        let mut change = Change::default();
        for text in texts {
            let old = before.iter().flatten().find(|item| item.path == text.path);
            let (item, error) = item(text, &self.app_id, old, &mut builder);
            if let Some(item) = &item
                && Some(item) != old
            {
                change.names.push(item.name.clone());
            }
            if let Some(error) = error {
                let kept = item.as_ref().is_some_and(|item| item.says.is_some());
                if asked || known.get(&text.path) != Some(&error) {
                    tell_wrong(text, &error, kept);
                    change.failed = true;
                }
                self.told.insert(text.path.clone(), error);
            }
            items.extend(item);
        }
        for gone in before.iter().flatten() {
            if !items.iter().any(|item| item.path == gone.path) {
                change.names.push(gone.name.clone());
            }
        }
        if before.as_ref() != Some(&items) {
            change.loaded = Some(loaded(&items, &builder, self.workers, now));
        }
        self.items = Some(items);
        change
    }
}

/// What a file comes to, laid over what `builder` has, and what is wrong with it.
fn item(
    text: &Text,
    app_id: &str,
    old: Option<&Item>,
    builder: &mut Builder,
) -> (Option<Item>, Option<String>) {
    let old_right = old.filter(|old| old.says.is_some());
    let document = match document(text) {
        Ok(document) => document.filter(|document| document.is_for(app_id)),
        Err(error) => return (old_right.map(|old| again(old, builder)), Some(error)),
    };
    let Some(document) = document else {
        let emptied = old_right.filter(|_| text.is_blank());
        let name = text.name();
        let error = format!("Could not read resiliency file {name}: it holds nothing any more");
        return emptied.map(|old| (Some(again(old, builder)), Some(error))).unwrap_or_default();
    };
    let Document { name, namespace, .. } = &document;
    let decoded = document.decode();
    let is_new = old.is_none_or(|old| old.says.as_ref() != decoded.as_ref().ok());
    if is_new {
        tracing::info!("Loading Resiliency configuration: {name}");
    }
    let item = |says| {
        let (path, name, namespace) = (text.path.clone(), name.clone(), namespace.clone());
        Item { path, name, namespace, says }
    };
    match decoded.and_then(|says| add(builder, &says, is_new).map(|()| says)) {
        Ok(says) => (Some(item(Some(says))), None),
        Err(error) => {
            let kept = old_right.map(|old| again(old, builder));
            let error = format!("Could not read resiliency policy {name}: {error}");
            (Some(kept.unwrap_or_else(|| item(None))), Some(error))
        }
    }
}

/// What was taken before, taken again.
fn again(old: &Item, builder: &mut Builder) -> Item {
    if let Some(says) = &old.says {
        let taken = add(builder, says, false);
        debug_assert!(taken.is_ok(), "it was right: {taken:?}");
    }
    old.clone()
}

fn document(text: &Text) -> Result<Option<Document>, String> {
    match &text.content {
        Ok(content) => Document::read(content).map_err(|error| error.text(&text.name())),
        Err(failure) => {
            Err(format!("Could not read resiliency file {}: {}", text.name(), failure.text))
        }
    }
}

fn tell_wrong(text: &Text, error: &str, kept: bool) {
    match kept {
        false => tracing::error!("{error}"),
        true => {
            tracing::error!("{error} ({}; what it said before stays in force)", text.path.display())
        }
    }
}

fn loaded(items: &[Item], builder: &Builder, workers: usize, now: Instant) -> Loaded {
    let right = items.iter().filter(|item| item.says.is_some());
    let named = |item: &Item| (item.name.clone(), item.namespace.clone());
    let right: Vec<(String, String)> = right.map(named).collect();
    Loaded {
        targets: (!right.is_empty()).then(|| Arc::new(builder.build(workers, now))),
        names: items.iter().map(|item| item.name.clone()).collect(),
        right,
        label: items.last().map(named).unwrap_or_default(),
    }
}

fn add(builder: &mut Builder, says: &Resiliency, tell: bool) -> Result<(), String> {
    if tell {
        for kind in &says.others {
            tracing::warn!(
                "Resiliency {}: targets.{kind} have no effect in ringside, which carries gRPC \
                 service invocation only",
                says.name
            );
        }
    }
    let warnings = builder.add(says.clone())?;
    warnings.iter().filter(|_| tell).for_each(|warning| tracing::warn!("{warning}"));
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::control::files::Failure;
    use std::time::Duration;

    const ONE: &str = "kind: Resiliency\nmetadata: {name: one, namespace: a}\n\
                       spec: {policies: {timeouts: {DefaultTimeoutPolicy: 1s}}}";
    const WRONG: &str = "kind: Resiliency\nmetadata: {name: two}\n\
                         spec: {policies: {timeouts: {DefaultTimeoutPolicy: 2x}}}";
    const TWO: &str = "kind: Resiliency\nmetadata: {name: two}\n\
                       spec: {policies: {timeouts: {DefaultTimeoutPolicy: 2s}}}";

    fn texts(all: &[(&str, &str)]) -> Vec<Text> {
        let text = |(path, text): &(&str, &str)| Text {
            path: path.into(),
            content: Ok((*text).to_owned()),
        };
        all.iter().map(text).collect()
    }

    fn timeout(loaded: &Loaded) -> Option<Duration> {
        loaded.targets.as_ref()?.of(b"any")?.timeout
    }

    #[test]
    fn a_wrong_resource_is_left_out_and_still_labels() {
        let mut shelf = Shelf::new("a", 1);
        let change = shelf.take(&texts(&[("1", ONE), ("2", WRONG)]), false, Instant::now());
        let loaded = change.loaded.unwrap();
        assert_eq!(timeout(&loaded), Some(Duration::from_secs(1)));
        assert_eq!(loaded.names, ["one", "two"]);
        assert_eq!(loaded.right, [("one".to_owned(), "a".to_owned())]);
        assert_eq!(loaded.label, ("two".to_owned(), String::new()));
        assert!(change.failed && shelf.is_wrong());
        let nothing = Shelf::new("a", 1).take(&[], false, Instant::now()).loaded.unwrap();
        assert!(nothing.targets.is_none());
    }

    /// File by file: what turns wrong or empty stays as it was, what is gone is gone.
    #[test]
    fn a_later_reading_keeps_what_was_right() {
        let mut shelf = Shelf::new("a", 1);
        let now = Instant::now();
        let broken = [("1", ONE), ("2", "kind: [")];
        let first = shelf.take(&texts(&[("1", ONE), ("2", TWO)]), false, now);
        assert_eq!(timeout(&first.loaded.unwrap()), Some(Duration::from_secs(2)));
        assert!(!first.failed && !shelf.is_wrong());
        for wrong in ["kind: [", WRONG, "\n", ""] {
            let change = shelf.take(&texts(&[("1", ONE), ("2", wrong)]), false, now);
            assert!(change.loaded.is_none() && change.names.is_empty(), "{wrong}");
            assert!(change.failed || wrong.is_empty(), "{wrong}");
            assert!(shelf.is_wrong(), "{wrong}");
        }
        let mut told = |asked| shelf.take(&texts(&broken), asked, now).failed;
        assert_eq!([told(false), told(false), told(true)], [true, false, true], "told once");
        let unreadable = Text {
            path: "2".into(),
            content: Err(Failure { text: "not a file".to_owned(), passes: false }),
        };
        let change = shelf.take(&[texts(&broken).remove(0), unreadable], false, now);
        assert!(change.failed && change.loaded.is_none());
        // A wrong one beside a change of another.
        let other = ONE.replace("1s", "3s").replace("one", "more");
        let change = shelf.take(&texts(&[("1", &other), ("2", WRONG)]), false, now);
        let loaded = change.loaded.unwrap();
        assert_eq!(timeout(&loaded), Some(Duration::from_secs(2)), "the later one, as it was");
        assert_eq!(
            (change.names, loaded.names),
            (vec!["more".to_owned()], vec!["more".to_owned(), "two".to_owned()])
        );
        let change = shelf.take(&texts(&[("1", &other)]), false, now);
        assert_eq!(timeout(&change.loaded.unwrap()), Some(Duration::from_secs(3)));
        assert_eq!((change.names, shelf.is_wrong()), (vec!["two".to_owned()], false));
        let change = shelf.take(&texts(&[("1", "kind: Component")]), false, now);
        assert!(change.loaded.unwrap().targets.is_none(), "another kind of resource");
        let scoped = format!("{ONE}\nscopes: [b]\n");
        assert!(shelf.take(&texts(&[("1", &scoped)]), false, now).loaded.is_none());
    }
}
