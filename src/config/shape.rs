//! What a document may hold, field by field, and documents read by it.
//!
//! 1. A scalar that is meant as a text keeps its own letters: `0123`, `1.0` and `yes` are these
//!    very texts, as to Go's decoder.
//! 2. A value of another kind than its field's is an error that names its line.
//! 3. Fields that nobody knows are skipped, and told by their paths, [`UNKNOWN_MAX`] at most.
//! 4. A null says what it says to Go's decoder: what may be unset is unset by it, all else is
//!    left as it was.
//! 5. A document laid over another changes what it names: maps field by field, lists and whatever
//!    has no shape as a whole.
//!
//! Source: the `yaml.v3` decoder, with which daprd reads files onto a structure.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

/// Unknown fields of one document that are told.
const UNKNOWN_MAX: usize = 16;

/// Names, and what is behind them.
pub type Fields = &'static [(&'static str, Shape)];

/// What a field holds.
#[derive(Debug)]
pub enum Shape {
    Text,
    Bool,
    /// One that may also be unset.
    OptionalBool,
    Integer,
    List(&'static Self),
    /// A map that is always there.
    Struct(Fields),
    /// A map that may also be unset.
    Optional(Fields),
    /// Whatever it is.
    Any,
}

/// Somebody whose documents have one shape.
pub trait Shaped {
    const SHAPE: &'static Shape;
}

/// A document by its shape. Fields that may be unset, and were told to be, are null.
#[derive(Debug)]
pub struct Document<S> {
    /// `None`: it says nothing.
    pub value: Option<Value>,
    /// Paths of fields that the shape does not know.
    pub unknown: Vec<String>,
    shaped: PhantomData<S>,
}

impl Shape {
    /// Changes `base` as a document of this shape says.
    pub fn overlay(&self, base: &mut Value, over: Value) {
        match (self, base, over) {
            (
                Self::Struct(fields) | Self::Optional(fields),
                Value::Object(base),
                Value::Object(over),
            ) => overlay_fields(fields, base, over),
            (_, base, over) => *base = over,
        }
    }
}

fn overlay_fields(fields: Fields, base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (name, value) in over {
        let shape = fields.iter().find(|(known, _)| *known == name).map(|(_, shape)| shape);
        match (base.get_mut(&name), shape) {
            (Some(slot), Some(shape)) => shape.overlay(slot, value),
            (Some(_) | None, _) => drop(base.insert(name, value)),
        }
    }
}

impl<'de, S: Shaped> Deserialize<'de> for Document<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let unknown = RefCell::default();
        let reader = Reader { shape: S::SHAPE, path: &Path::Root, unknown: &unknown };
        let value = reader.deserialize(deserializer)?;
        Ok(Self { value, unknown: unknown.into_inner(), shaped: PhantomData })
    }
}

/// Where a value is, for who must name it.
enum Path<'a> {
    Root,
    Field(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Reads one value of its shape; `None` leaves what was there.
#[derive(Clone, Copy)]
struct Reader<'a> {
    shape: &'static Shape,
    path: &'a Path<'a>,
    unknown: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        let unset = Some(Value::Null);
        Ok(match self.shape {
            Shape::Text => Option::<String>::deserialize(deserializer)?.map(Value::String),
            Shape::Bool => Option::<bool>::deserialize(deserializer)?.map(Value::Bool),
            Shape::Integer => Option::<i64>::deserialize(deserializer)?.map(Value::from),
            Shape::Struct(_) => deserializer.deserialize_option(self)?,
            Shape::OptionalBool => {
                Option::<bool>::deserialize(deserializer)?.map(Value::Bool).or(unset)
            }
            Shape::Any => Option::<Value>::deserialize(deserializer)?.or(unset),
            Shape::List(_) | Shape::Optional(_) => deserializer.deserialize_option(self)?.or(unset),
        })
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.shape {
            Shape::Text => "a text",
            Shape::Bool | Shape::OptionalBool => "true or false",
            Shape::Integer => "a whole number",
            Shape::List(_) => "a list",
            Shape::Struct(_) | Shape::Optional(_) => "a map",
            Shape::Any => "anything",
        })
    }

    fn visit_none<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        match self.shape {
            Shape::List(_) => deserializer.deserialize_seq(self),
            _ => deserializer.deserialize_map(self),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Option<Value>, A::Error> {
        let Shape::List(shape) = self.shape else { return Ok(None) };
        let mut list = Vec::new();
        loop {
            let path = Path::Item(self.path, list.len());
            let Some(item) = items.next_element_seed(Reader { shape, path: &path, ..self })? else {
                return Ok(Some(Value::Array(list)));
            };
            list.push(item.unwrap_or_default());
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Option<Value>, A::Error> {
        let (Shape::Struct(fields) | Shape::Optional(fields)) = self.shape else { return Ok(None) };
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let path = Path::Field(self.path, &name);
            match fields.iter().find(|(known, _)| *known == name) {
                Some((_, shape)) => {
                    let value = entries.next_value_seed(Reader { shape, path: &path, ..self })?;
                    let Some(value) = value else { continue };
                    map.insert(name, value);
                }
                None => {
                    let mut unknown = self.unknown.borrow_mut();
                    if unknown.len() < UNKNOWN_MAX {
                        unknown.push(path.to_string());
                    }
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(Value::Object(map)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::first_document;
    use serde_json::json;

    #[derive(Debug)]
    struct Test;

    impl Shaped for Test {
        const SHAPE: &'static Shape = &Shape::Struct(&[
            ("text", Shape::Text),
            ("yes", Shape::Bool),
            ("maybe", Shape::OptionalBool),
            ("numbers", Shape::List(&Shape::Integer)),
            ("inner", Shape::Optional(&[("text", Shape::Text), ("more", Shape::Text)])),
            ("list", Shape::List(&Shape::Struct(&[("name", Shape::Text)]))),
            ("any", Shape::Any),
        ]);
    }

    fn read(text: &str) -> Result<Document<Test>, String> {
        Ok(first_document(text)?.expect("a document"))
    }

    fn value(text: &str) -> Value {
        read(text).unwrap().value.unwrap()
    }

    #[test]
    fn texts_keep_their_letters() {
        for text in ["0123", "0x10", "1.0", "yes", "2026-01-01", "1_000", "true"] {
            assert_eq!(value(&format!("text: {text}")), json!({ "text": text }));
        }
        assert_eq!(value("text: ''"), json!({"text": ""}));
        assert_eq!(value("yes: on"), json!({"yes": true}));
        assert_eq!(value("numbers: [1, 2]"), json!({"numbers": [1, 2]}));
    }

    #[test]
    fn nulls_unset_what_may_be_unset() {
        let nulls = "text:\nyes:\nmaybe:\nnumbers:\ninner:\nlist:\nany:\n";
        let unset =
            json!({"maybe": null, "numbers": null, "inner": null, "list": null, "any": null});
        assert_eq!(value(nulls), unset);
        assert_eq!(
            value("list: [~, {name: }, {name: a}]"),
            json!({"list": [null, {}, {"name": "a"}]})
        );
    }

    /// Each fault with its line.
    #[test]
    fn wrong_kinds_name_their_line() {
        for (text, line) in [
            ("text: [1]", 1),
            ("\ntext: {a: b}", 2),
            ("yes: maybe", 1),
            ("inner: text", 1),
            ("inner:\n  text: a\n  more: []\n", 3),
            ("list: {}", 1),
            ("list:\n- name: a\n- b\n", 3),
            ("numbers: [1, x]", 1),
            ("[]", 1),
            ("text: a\ntext: b", 2),
            ("text: \"a", 1),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(&format!("line {line}")), "{text}: {error}");
            assert!(!error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn unknown_fields_are_told_by_path() {
        let text = "other: 1\ninner: {text: a, mor: [{}]}\nlist: [{name: a}, {nam: b, x: y}]\n\
                    any: {whatever: 1}\n";
        let document = read(text).unwrap();
        assert_eq!(document.unknown, ["other", "inner.mor", "list[1].nam", "list[1].x"]);
        let known = json!({
            "inner": {"text": "a"}, "list": [{"name": "a"}, {}], "any": {"whatever": 1}
        });
        assert_eq!(document.value, Some(known));
        let many: String = (0..100).map(|n| format!("a{n}: 1\n")).collect();
        assert_eq!(read(&many).unwrap().unknown.len(), UNKNOWN_MAX);
    }

    #[test]
    fn lies_over_another() {
        let mut base = value(
            "text: a\nmaybe: true\ninner: {text: a, more: b}\nlist: [{name: a}]\nany: {a: 1}",
        );
        Test::SHAPE
            .overlay(&mut base, value("text:\nmaybe:\ninner: {text: c}\nlist: []\nany: {b: 1}"));
        let laid = json!({
            "text": "a", "maybe": null, "inner": {"text": "c", "more": "b"}, "list": [],
            "any": {"b": 1}
        });
        assert_eq!(base, laid);
        Test::SHAPE.overlay(&mut base, value("inner:"));
        Test::SHAPE.overlay(&mut base, value("inner: {more: d}"));
        assert_eq!(base["inner"], json!({"more": "d"}));
    }
}
