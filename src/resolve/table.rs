//! `static` name resolution: a YAML of app IDs to endpoints. PURE: the file's text comes in.
//!
//! ```yaml
//! server: 10.0.0.1:50002
//! server.production: ["10.0.0.2:50002", "[fd00::2]:50002"]
//! ```
//! A key with a namespace holds for that namespace, one without for all others.

use crate::identity::{Namespace, Target};
use crate::resolve::Endpoint;
use serde::Deserialize;
use serde::de::{SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Larger files are refused.
pub const FILE_OCTETS_MAX: usize = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    entries: HashMap<String, Arc<[Endpoint]>>,
}

/// What is wrong, and in which line, if one is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableError {
    pub line: Option<u64>,
    pub message: String,
}

impl Table {
    pub fn parse(text: &str) -> Result<Self, TableError> {
        if text.len() > FILE_OCTETS_MAX {
            let message = format!("larger than {FILE_OCTETS_MAX} octets");
            return Err(TableError { line: None, message });
        }
        let parsed: Option<HashMap<Spanned<String>, Spanned<Listed>>> =
            serde_saphyr::from_str(text).map_err(|error| TableError {
                line: error.location().map(|location| location.line()),
                message: first_line(&error.to_string()),
            })?;
        let mut entries = HashMap::new();
        for (key, listed) in parsed.unwrap_or_default() {
            if let Err(error) = Target::parse(&key.value, &Namespace::new("")) {
                return Err(wrong(&key, &error.to_string()));
            }
            entries.insert(key.value, endpoints(&listed)?);
        }
        Ok(Self { entries })
    }

    pub fn find(&self, target: &Target) -> Option<Arc<[Endpoint]>> {
        let named = self.entries.get(&target.to_string());
        named.or_else(|| self.entries.get(target.app_id.as_str())).cloned()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn endpoints(listed: &Spanned<Listed>) -> Result<Arc<[Endpoint]>, TableError> {
    let parse = |text: &str| text.parse().ok().map(Endpoint);
    match &listed.value {
        Listed::One(text) => {
            let endpoint = parse(text).ok_or_else(|| wrong(listed, &not_an_endpoint(text)))?;
            Ok([endpoint].into())
        }
        Listed::Many(texts) if texts.is_empty() => Err(wrong(listed, "no endpoint listed")),
        Listed::Many(texts) => texts
            .iter()
            .map(|text| {
                parse(&text.value).ok_or_else(|| wrong(text, &not_an_endpoint(&text.value)))
            })
            .collect(),
    }
}

fn not_an_endpoint(text: &str) -> String {
    format!("{text:?} is no endpoint: write an IP address and a port, as in 10.0.0.1:50002")
}

fn wrong<T>(place: &Spanned<T>, message: &str) -> TableError {
    TableError { line: Some(place.referenced.line()), message: message.to_owned() }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for TableError {}

/// One endpoint or a list.
enum Listed {
    One(String),
    Many(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Listed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an endpoint or a list of endpoints")
            }

            fn visit_str<E>(self, text: &str) -> Result<Listed, E> {
                Ok(Listed::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Listed, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = seq.next_element()? {
                    all.push(one);
                }
                Ok(Listed::Many(all))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(table: &Table, target: &str) -> Vec<String> {
        let target = Target::parse(target, &Namespace::new("default")).unwrap();
        let found = table.find(&target);
        found.iter().flat_map(|all| all.iter()).map(|endpoint| endpoint.0.to_string()).collect()
    }

    #[test]
    fn finds_the_namespace_first() {
        let text = "# comment\nserver: 10.0.0.1:50002\nserver.production:\n  - 10.0.0.2:50002\n  \
                    - \"[fd00::2]:7\"\n";
        let table = Table::parse(text).unwrap();
        assert_eq!(find(&table, "server"), ["10.0.0.1:50002"]);
        assert_eq!(find(&table, "server.other"), ["10.0.0.1:50002"]);
        assert_eq!(find(&table, "server.production"), ["10.0.0.2:50002", "[fd00::2]:7"]);
        assert!(find(&table, "client").is_empty());
        assert!(Table::parse("").unwrap().is_empty());
    }

    #[test]
    fn a_mistake_names_its_line() {
        let line = |text| Table::parse(text).unwrap_err();
        let error = line("a: 10.0.0.1:1\nb: localhost:1\n");
        assert_eq!(error.line, Some(2));
        assert!(error.message.contains("\"localhost:1\""), "{error}");
        assert_eq!(line("a:\n  - 10.0.0.1:1\n  - nonsense\n").line, Some(3));
        assert_eq!(line("a: 10.0.0.1:1\na.b.c: 10.0.0.1:1\n").line, Some(2));
        assert_eq!(line("a: []\n").line, Some(1));
        assert!(line("a: [\n").line.is_some());
        assert!(line("- a\n").line.is_some());
        assert!(Table::parse(&"#".repeat(FILE_OCTETS_MAX + 1)).is_err());
    }
}
