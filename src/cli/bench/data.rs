//! The messages and metadata of a call: JSON to octets.
//!
//! 1. A message that does not fit names the field that does not.
//! 2. Values of `-bin` keys are base64 in JSON, as gRPC sends them, and raw octets here.

use super::BenchError;
use super::options::Data;
use bytes::Bytes;
use data_encoding::{BASE64, BASE64_NOPAD};
use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// Octets of JSON that are read.
const TEXT_MAX: u64 = 256 << 20;
/// gRPC's own names, which a caller cannot set.
const RESERVED: [&str; 5] = ["content-type", "te", "user-agent", "connection", "host"];

/// Reads what `-d`, `-D` or stdin give.
pub fn text(data: &Data) -> Result<String, BenchError> {
    match data {
        Data::Text(text) => Ok(text.clone()),
        Data::File(path) => read(path),
        Data::Stdin => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(TEXT_MAX).read_to_string(&mut text);
            read.map_err(|error| BenchError::new(format!("--data @: reading stdin: {error}")))?;
            Ok(text)
        }
    }
}

fn read(path: &Path) -> Result<String, BenchError> {
    std::fs::read_to_string(path)
        .map_err(|error| BenchError::new(format!("reading {}: {error}", path.display())))
}

/// The messages of one call: one, or as many as the array has.
pub fn messages(text: &str, input: &MessageDescriptor) -> Result<Vec<Bytes>, BenchError> {
    if text.contains("{{") {
        let text =
            "--data holds {{ }}: ghz's templates are not evaluated here; all calls are alike";
        return Err(BenchError::new(text.to_owned()));
    }
    let value: Value = serde_json::from_str(text)
        .map_err(|error| BenchError::new(format!("--data is not JSON: {error}")))?;
    match value {
        Value::Array(values) if values.is_empty() => {
            Err(BenchError::new("--data is an array without messages".to_owned()))
        }
        Value::Array(values) => values
            .into_iter()
            .enumerate()
            .map(|(at, value)| message(value, input, &format!("message {} of the array: ", at + 1)))
            .collect(),
        value => Ok(vec![message(value, input, "")?]),
    }
}

fn message(value: Value, input: &MessageDescriptor, place: &str) -> Result<Bytes, BenchError> {
    match DynamicMessage::deserialize(input.clone(), value.clone()) {
        Ok(message) => Ok(message.encode_to_vec().into()),
        Err(error) => {
            let text = match blame(&value, input) {
                Some(text) => text,
                None => error.to_string(),
            };
            Err(BenchError::new(format!(
                "--data does not fit {}: {place}{text}",
                input.full_name()
            )))
        }
    }
}

/// The field that does not fit, by its path.
fn blame(value: &Value, input: &MessageDescriptor) -> Option<String> {
    let Value::Object(fields) = value else { return None };
    // Well-known types have JSON of their own kind.
    if input.parent_file().package_name() == "google.protobuf" {
        return None;
    }
    for (name, value) in fields {
        let field = input.get_field_by_json_name(name).or_else(|| input.get_field_by_name(name));
        let Some(field) = field else {
            return Some(format!("it has no field {name:?}; it has {}", names(input)));
        };
        let alone = Value::Object([(name.clone(), value.clone())].into_iter().collect());
        let Err(error) = DynamicMessage::deserialize(input.clone(), alone) else { continue };
        let (inner, at) = inside(value, &field);
        return Some(match inner {
            Some(text) => format!("in {name}{at}: {text}"),
            None => format!("field {name} ({}): {error}", kind(&field)),
        });
    }
    None
}

/// Looks for the fault inside of a message or of a list of them.
fn inside(value: &Value, field: &FieldDescriptor) -> (Option<String>, String) {
    let Kind::Message(message) = field.kind() else { return (None, String::new()) };
    match value {
        Value::Array(values) if field.is_list() => {
            for (at, value) in values.iter().enumerate() {
                if let Some(text) = blame(value, &message) {
                    return (Some(text), format!("[{at}]"));
                }
            }
            (None, String::new())
        }
        value if !field.is_map() && !field.is_list() => (blame(value, &message), String::new()),
        _ => (None, String::new()),
    }
}

fn names(message: &MessageDescriptor) -> String {
    let names: Vec<String> = message.fields().map(|field| field.name().to_owned()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn kind(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(kind) => kind.full_name().to_owned(),
        kind => format!("{kind:?}").to_lowercase(),
    };
    if field.is_map() {
        "map".to_owned()
    } else if field.is_list() {
        format!("repeated {kind}")
    } else {
        kind
    }
}

/// `key:value` or JSON objects, from the command line and then a file.
pub fn metadata(
    given: &[String],
    file: Option<&Path>,
) -> Result<Vec<(String, Vec<u8>)>, BenchError> {
    let mut texts = given.to_vec();
    if let Some(path) = file {
        texts.push(read(path)?);
    }
    let mut pairs = Vec::new();
    for text in &texts {
        if text.trim_start().starts_with('{') {
            let failed = |error| BenchError::new(format!("--metadata {text:?}: {error}"));
            let fields: serde_json::Map<String, Value> =
                serde_json::from_str(text).map_err(failed)?;
            for (name, value) in fields {
                let Value::String(value) = value else {
                    let text = format!("--metadata: the value of {name} is to be a string");
                    return Err(BenchError::new(text));
                };
                pairs.push(pair(&name, &value)?);
            }
        } else {
            let (name, value) = text.split_once(':').ok_or_else(|| {
                BenchError::new(format!("--metadata {text:?} is neither KEY:VALUE nor JSON"))
            })?;
            pairs.push(pair(name, value.trim_start())?);
        }
    }
    Ok(pairs)
}

fn pair(name: &str, value: &str) -> Result<(String, Vec<u8>), BenchError> {
    let name = name.trim().to_ascii_lowercase();
    let wrong = |why: &str| Err(BenchError::new(format!("--metadata: {name:?} {why}")));
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(legal) {
        return wrong("is no key: letters, digits, -, _ and . are");
    }
    if RESERVED.contains(&name.as_str()) || name.starts_with("grpc-") {
        return wrong("is set by gRPC itself");
    }
    if name == "dapr-app-id" || name == "dapr-callee-app-id" {
        return wrong("is set by --app");
    }
    if name.ends_with("-bin") {
        let bare = value.trim_end_matches('=');
        let decoded = BASE64_NOPAD.decode(bare.as_bytes());
        return match decoded.or_else(|_| BASE64.decode(value.as_bytes())) {
            Ok(octets) => Ok((name, octets)),
            Err(_) => wrong("is binary: its value is to be base64"),
        };
    }
    if !value.bytes().all(|octet| (0x20..0x7f).contains(&octet)) {
        return wrong("has a value that is not printable ASCII");
    }
    Ok((name, value.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::greeter::HelloRequest;
    use prost_reflect::DescriptorPool;
    use prost_types::FileDescriptorSet;
    use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

    const PROTO: &str = "syntax = \"proto3\"; package t;
        import \"google/protobuf/duration.proto\";
        enum Colour { RED = 0; BLUE = 1; }
        message Inner { int32 number = 1; repeated Inner more = 2; }
        message Hello {
            string name = 1; Inner inner = 2; repeated Inner list = 3; bytes raw = 4;
            Colour colour = 5; map<string, int32> counts = 6; google.protobuf.Duration wait = 7;
            oneof either { string left = 8; int64 right_hand = 9; }
        }";

    struct One;

    impl FileResolver for One {
        fn open_file(&self, name: &str) -> Result<File, protox::Error> {
            match name {
                "t.proto" => File::from_source(name, PROTO),
                _ => Err(protox::Error::file_not_found(name)),
            }
        }
    }

    fn hello() -> MessageDescriptor {
        let mut resolver = ChainFileResolver::new();
        resolver.add(One);
        resolver.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(resolver);
        compiler.include_imports(true).open_file("t.proto").unwrap();
        let set: FileDescriptorSet = compiler.file_descriptor_set();
        let pool = DescriptorPool::from_file_descriptor_set(set).unwrap();
        pool.get_message_by_name("t.Hello").unwrap()
    }

    fn said(text: &str) -> String {
        messages(text, &hello()).expect_err("an error").to_string()
    }

    #[test]
    fn writes_what_prost_reads() {
        let written = messages(r#"{"name":"Ada"}"#, &hello()).unwrap();
        let [one] = written.as_slice() else { panic!("{written:?}") };
        assert_eq!(HelloRequest::decode(one.as_ref()).unwrap().name, "Ada");
        let many = messages(r#"[{"name":"A"},{},{"rightHand":"7"}]"#, &hello()).unwrap();
        // Field 9, varint 7.
        assert_eq!(many[1..], [&b""[..], b"\x48\x07"]);
        let all = r#"{"wait":"1.5s","raw":"AQI=","colour":"BLUE","counts":{"a":1},"right_hand":1}"#;
        assert_eq!(messages(all, &hello()).unwrap().len(), 1);
    }

    #[test]
    fn names_the_field_that_does_not_fit() {
        let first = "--data does not fit t.Hello: ";
        let text = said(r#"{"nam":"Ada"}"#);
        assert!(
            text.starts_with(&format!("{first}it has no field \"nam\"; it has name,")),
            "{text}"
        );
        for (json, part) in [
            (r#"{"name":5}"#, "field name (string)"),
            (r#"{"inner":{"number":"many"}}"#, "in inner: field number (int32)"),
            (r#"{"list":[{},{"numbr":1}]}"#, "in list[1]: it has no field \"numbr\""),
            (r#"{"colour":"GREEN"}"#, "field colour (t.Colour)"),
            (r#"{"counts":{"a":"b"}}"#, "field counts (map)"),
            (r#"{"wait":"soon"}"#, "field wait (google.protobuf.Duration)"),
            (r#"[{},{"name":5}]"#, "message 2 of the array: field name"),
        ] {
            let text = said(json);
            assert!(text.contains(part), "{json}: {text}");
        }
        assert!(said("{name}").starts_with("--data is not JSON: "));
        assert!(said(r#"{"name":"{{.RequestNumber}}"}"#).contains("templates"));
        assert!(said("[]").contains("without messages"));
        assert!(said("5").contains("t.Hello"));
    }

    #[test]
    fn reads_metadata_in_both_forms() {
        let given = ["A-Key: v:w".to_owned(), r#"{"b-bin":"AQI=","c":"d"}"#.to_owned()];
        let pairs = metadata(&given, None).unwrap();
        let expected: [(&str, &[u8]); 3] = [("a-key", b"v:w"), ("b-bin", &[1, 2]), ("c", b"d")];
        assert_eq!(pairs.len(), 3);
        for ((name, value), (wanted, octets)) in pairs.iter().zip(expected) {
            assert_eq!((name.as_str(), value.as_slice()), (wanted, octets));
        }
        for (text, part) in [
            ("alone", "neither KEY:VALUE"),
            (r#"{"a":1}"#, "is to be a string"),
            ("grpc-timeout:1S", "set by gRPC"),
            ("dapr-app-id:x", "set by --app"),
            ("a-bin:!", "base64"),
            ("ä:b", "is no key"),
        ] {
            let error = metadata(&[text.to_owned()], None).expect_err("an error").to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
