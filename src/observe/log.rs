//! The layout of a log line: daprd's, in text and in JSON.
//!
//! PURE: the time is an argument; who writes the line is not known here. Sources:
//! `kit/logger/dapr_logger.go` of Dapr, logrus' `text_formatter.go` and `json_formatter.go`.
//!
//! 1. One line per event: every line break in a value is escaped.
//! 2. Text: time, level, msg, then all other fields by name. JSON: all fields by name.

use std::fmt::Write as _;
use std::time::SystemTime;
use time::OffsetDateTime;

/// As daprd names them on a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Debug,
    Info,
    Warning,
    Error,
    Fatal,
}

impl Severity {
    /// Of `--log-level`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" => Self::Warning,
            "error" => Self::Error,
            "fatal" => Self::Fatal,
            _ => return None,
        })
    }

    /// As `--log-level` takes it.
    pub fn flag(self) -> &'static str {
        if self == Self::Warning { "warn" } else { self.as_str() }
    }

    /// The one of that number.
    pub fn of(number: u8) -> Self {
        let all = [Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Fatal];
        all.into_iter().find(|one| *one as u8 == number).unwrap_or(Self::Info)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

/// What does not change from line to line.
#[derive(Clone, Debug)]
pub struct Layout {
    pub json: bool,
    /// Left out while empty.
    pub app_id: String,
    /// The machine's name.
    pub instance: String,
    pub version: &'static str,
}

/// A further field: its name and what it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: &'static str,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    /// Digits, as they are to be shown.
    Number(String),
    Bool(bool),
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub at: SystemTime,
    pub severity: Severity,
    /// Dapr's logger name.
    pub scope: &'a str,
    pub message: &'a str,
    pub fields: &'a [Field],
}

impl Layout {
    /// Appends the line with its line break.
    pub fn write(&self, out: &mut String, event: Event<'_>) {
        let time = timestamp(event.at);
        let mut fields: Vec<(&str, Shown<'_>)> = vec![
            ("instance", Shown::Text(&self.instance)),
            ("scope", Shown::Text(event.scope)),
            ("type", Shown::Text("log")),
            ("ver", Shown::Text(self.version)),
        ];
        if !self.app_id.is_empty() {
            fields.push(("app_id", Shown::Text(&self.app_id)));
        }
        for field in event.fields {
            fields.push((field.name, Shown::from(&field.value)));
        }
        let level = event.severity.as_str();
        let leading = [
            ("time", Shown::Text(&time)),
            ("level", Shown::Text(level)),
            ("msg", Shown::Text(event.message)),
        ];
        if self.json {
            fields.extend(leading);
            fields.sort_by_key(|(name, _)| *name);
            json(out, &fields);
        } else {
            fields.sort_by_key(|(name, _)| *name);
            text(out, leading.iter().chain(&fields));
        }
        out.push('\n');
    }
}

#[derive(Clone, Copy)]
enum Shown<'a> {
    Text(&'a str),
    Bare(&'a str),
}

impl<'a> From<&'a Value> for Shown<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Text(text) => Self::Text(text),
            Value::Number(digits) => Self::Bare(digits),
            Value::Bool(true) => Self::Bare("true"),
            Value::Bool(false) => Self::Bare("false"),
        }
    }
}

fn text<'a>(out: &mut String, fields: impl Iterator<Item = &'a (&'a str, Shown<'a>)>) {
    for (at, (name, value)) in fields.enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(name);
        out.push('=');
        match value {
            Shown::Text(text) if needs_quotes(text) => quote(out, text),
            Shown::Text(text) | Shown::Bare(text) => out.push_str(text),
        }
    }
}

/// logrus quotes what holds anything but these.
fn needs_quotes(text: &str) -> bool {
    !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/@^+".contains(&b))
}

/// Go's `%q`.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c.is_ascii_control() => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c if c.is_ascii() || printable(c) => out.push(c),
            c if u32::from(c) <= 0xffff => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => drop(write!(out, "\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
}

/// Go's `unicode.IsPrint`, as Rust's own escaping sees it.
fn printable(c: char) -> bool {
    c.is_alphanumeric() || c.escape_debug().len() == 1
}

fn json(out: &mut String, fields: &[(&str, Shown<'_>)]) {
    for (at, (name, value)) in fields.iter().enumerate() {
        out.push(if at == 0 { '{' } else { ',' });
        json_text(out, name);
        out.push(':');
        match value {
            Shown::Text(text) => json_text(out, text),
            Shown::Bare(text) => out.push_str(text),
        }
    }
    out.push('}');
}

/// Go's `encoding/json`, which escapes for HTML.
fn json_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// RFC 3339 with up to nine decimals, trailing zeros cut, in UTC (Go's `RFC3339Nano`).
pub fn timestamp(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let mut text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    if at.nanosecond() > 0 {
        let decimals = format!("{:09}", at.nanosecond());
        text.push('.');
        text.push_str(decimals.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(nanos: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(nanos)
    }

    fn line(json: bool, app_id: &str, event: Event<'_>) -> String {
        let (app_id, instance) = (app_id.to_owned(), "vm".to_owned());
        let mut out = String::new();
        Layout { json, app_id, instance, version: "1.18.1" }.write(&mut out, event);
        out
    }

    /// Lines that daprd 1.18.1 wrote, at the times that it wrote them.
    #[test]
    fn text_as_daprd() {
        let event = Event {
            at: at(1_795_436_125_567_144_443),
            severity: Severity::Info,
            scope: "dapr.runtime",
            message: "Log level set to: info",
            fields: &[],
        };
        assert_eq!(
            line(false, "a\"b \\c", event),
            "time=\"2026-11-23T12:15:25.567144443Z\" level=info msg=\"Log level set to: info\" \
             app_id=\"a\\\"b \\\\c\" instance=vm scope=dapr.runtime type=log ver=1.18.1\n"
        );
        let component = Field { name: "component", value: Value::Text("nr (mdns/v1)".into()) };
        let event = Event {
            at: at(1_795_436_132_184_764_243),
            severity: Severity::Debug,
            scope: "dapr.contrib",
            message: "stopping cache refreshes",
            fields: &[component],
        };
        assert_eq!(
            line(false, "m", event),
            "time=\"2026-11-23T12:15:32.184764243Z\" level=debug msg=\"stopping cache refreshes\" \
             app_id=m component=\"nr (mdns/v1)\" instance=vm scope=dapr.contrib type=log \
             ver=1.18.1\n"
        );
        assert!(!line(false, "", event).contains("app_id"));
    }

    #[test]
    fn json_as_daprd() {
        let event = Event {
            at: at(1_795_436_127_080_255_946),
            severity: Severity::Info,
            scope: "dapr.contrib",
            message: "local service entry announced: a\"b \\c -> 192.0.2.2:13503",
            fields: &[Field { name: "component", value: Value::Text("nr (mdns/v1)".into()) }],
        };
        assert_eq!(
            line(true, "a\"b \\c", event),
            concat!(
                r#"{"app_id":"a\"b \\c","component":"nr (mdns/v1)","instance":"vm","#,
                r#""level":"info","msg":"local service entry announced: a\"b \\c -\u003e "#,
                r#"192.0.2.2:13503","scope":"dapr.contrib","#,
                r#""time":"2026-11-23T12:15:27.080255946Z","type":"log","ver":"1.18.1"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn every_line_is_one_line() {
        let message = "a\nb\r\u{2028}\x1b[0m\u{85}é日\u{200b}\u{e0001}";
        let event = Event {
            at: at(0),
            severity: Severity::Fatal,
            scope: "s",
            message,
            fields: &[
                Field { name: "code", value: Value::Number("204".into()) },
                Field { name: "z", value: Value::Bool(true) },
            ],
        };
        let text = line(false, "x", event);
        assert_eq!(text.matches('\n').count(), 1);
        let shown = "msg=\"a\\nb\\r\\u2028\\x1b[0m\\u0085é日\\u200b\\U000e0001\"";
        assert!(text.contains(shown), "{text}");
        assert!(text.starts_with("time=\"1970-01-01T00:00:00Z\" level=fatal "), "{text}");
        assert!(text.contains(" code=204 ") && text.ends_with(" ver=1.18.1 z=true\n"), "{text}");
        let json = line(true, "x", event);
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["msg"], message);
        assert_eq!(parsed["code"], 204);
    }

    #[test]
    fn severities() {
        assert_eq!(Severity::parse("WARN"), Some(Severity::Warning));
        assert_eq!(Severity::parse("warning"), None);
        assert_eq!(Severity::Warning.as_str(), "warning");
        assert!(Severity::Fatal > Severity::Error && Severity::Info < Severity::Warning);
    }
}
