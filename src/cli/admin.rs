//! `ringside admin`: what a running sidecar says of itself, by its admin socket.

use super::socket::{self, Whom};
use crate::config::Environment;
use serde_json::Value;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: ringside admin WHAT [--app-id ID | --socket PATH] [--json]

Asks a running sidecar of this user. WHAT is
  config         the configuration in force, and the identity
  names          what name resolution knows
  pools          connections and streams, by worker
  limits         limits in force, what of each is used, how often it was reached
  breakers       circuit breakers: state, how long it lasts, what failed, whose they are
  level [LEVEL]  the log's level, or a new one: debug, info, warn, error, fatal

Without --app-id and --socket: the only sidecar there is.

Exit code: 0 an answer, 1 none, 2 not understood.
";

const WHAT: [&str; 6] = ["config", "names", "pools", "limits", "breakers", "level"];

#[derive(Debug, Default)]
struct Options {
    whom: Whom,
    question: Vec<String>,
    json: bool,
}

/// `args` is what follows `admin`.
pub fn run(args: &[String], env: &Environment) -> ExitCode {
    socket::command(args, USAGE, options, |options| {
        print!("{}", answer(options, env)?);
        Ok(())
    })
}

fn options(args: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let mut value = || {
            let value = value.clone().or_else(|| args.next().cloned());
            value.ok_or_else(|| format!("{name} needs a value"))
        };
        match name {
            "--json" => options.json = true,
            "--app-id" => options.whom.app_id = Some(value()?),
            "--socket" => options.whom.socket = Some(value()?.into()),
            word if word.starts_with('-') => return Err(format!("unknown argument: {word}")),
            _ => options.question.push(arg.clone()),
        }
    }
    let most = if options.question.first().is_some_and(|what| what == "level") { 2 } else { 1 };
    match options.question.first() {
        None => Err("what is to be told is missing".to_owned()),
        Some(what) if !WHAT.contains(&what.as_str()) => Err(format!("unknown argument: {what}")),
        Some(_) if options.question.len() > most => Err("too many words".to_owned()),
        Some(_) => Ok(options),
    }
}

fn answer(options: &Options, env: &Environment) -> Result<String, String> {
    let path = socket::find(&options.whom, env)?;
    let mut answer = socket::ask(&path, &options.question.join(" "), true)?;
    let value = socket::next(&mut answer)?.ok_or("the sidecar gave no answer")?;
    if options.json {
        return Ok(format!("{value:#}\n"));
    }
    Ok(match options.question.first().map(String::as_str) {
        Some("names") => match rows(&value).next() {
            None => "no call has asked for a name\n".to_owned(),
            Some(_) => table(&["TARGET", "ENDPOINTS", "AGE"], rows(&value).map(name)),
        },
        Some("limits") => {
            table(&["LIMIT", "OF A", "MOST", "USED", "REACHED"], rows(&value).map(limit))
        }
        Some("breakers") => breakers(&value),
        Some("pools") => pools(&value),
        Some(_) | None => {
            let mut lines = String::new();
            flatten("", &value, &mut lines);
            lines
        }
    })
}

fn breakers(value: &Value) -> String {
    let all = &value["breakers"];
    if rows(all).next().is_none() {
        return "no call has met a circuit breaker\n".to_owned();
    }
    let told = rows(all).map(|row| {
        let counts = match row.get("trials") {
            Some(trials) => [text(trials), format!("{} well", row["trialsSucceeded"]), "-".into()],
            None => ["requests", "failures", "failuresInRow"].map(|key| text(&row[key])),
        };
        let mut cells: Vec<String> = ["target", "method", "state"].map(|k| text(&row[k])).into();
        cells.push(millis(&row["leftMs"]));
        cells.extend(counts);
        cells.push(text(&row["policy"]));
        cells
    });
    let head = ["TARGET", "METHOD", "STATE", "LEFT", "CALLS", "FAILED", "IN A ROW", "POLICY"];
    let mut out = table(&head, told);
    if value["leftOut"] != 0 {
        out.push_str(&format!("and {} more\n", value["leftOut"]));
    }
    out
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// As a cell of a table.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn name(row: &Value) -> Vec<String> {
    let said = match row.get("error") {
        Some(error) => format!("none: {}", text(error)),
        None => text(&row["endpoints"]),
    };
    vec![text(&row["target"]), said, millis(&row["age_ms"])]
}

fn limit(row: &Value) -> Vec<String> {
    let in_unit = |value: &Value| match (value.as_u64(), row["unit"].as_str()) {
        (None, _) => "-".to_owned(),
        (Some(octets), Some("octets")) => size(octets),
        (Some(time), Some("milliseconds")) => format!("{}s", time as f64 / 1000.0),
        (Some(percent), Some("percent")) => format!("{percent}%"),
        (Some(number), _) => number.to_string(),
    };
    let mut most = in_unit(&row["most"]);
    if let Some(more) = row["perSecond"].as_u64() {
        most.push_str(&format!(", {more}/s"));
    }
    let (name, of, reached) = (text(&row["limit"]), text(&row["of"]), text(&row["reached"]));
    vec![name, of, most, in_unit(&row["used"]), reached]
}

fn size(octets: u64) -> String {
    match octets {
        0..10_240 => format!("{octets} B"),
        _ if octets.is_multiple_of(1 << 20) || octets >= 10 << 20 => {
            format!("{} MiB", octets >> 20)
        }
        _ => format!("{} KiB", octets >> 10),
    }
}

fn millis(value: &Value) -> String {
    match value.as_u64() {
        None => "-".to_owned(),
        Some(ms) if ms < 10_000 => format!("{ms}ms"),
        Some(ms) => format!("{}s", ms / 1000),
    }
}

fn pools(value: &Value) -> String {
    let mut out = String::new();
    for row in rows(value) {
        let (worker, report) = (text(&row["worker"]), &row["report"]);
        if let Some(error) = row.get("error") {
            out.push_str(&format!("worker {worker}: {}\n", text(error)));
            continue;
        }
        let (calls, waiting) = (text(&report["calls"]), text(&report["waiting"]));
        out.push_str(&format!("worker {worker}: {calls} calls, {waiting} of them waiting\n"));
        let down = rows(&report["downstream"]).map(|conn| {
            let caller = [&conn["spiffe_id"], &conn["peer"]].into_iter().find(|v| !v.is_null());
            connection(format!("from {}", text(&conn["port"])), caller.map(text), conn)
        });
        let up = rows(&report["pools"]).flat_map(|pool| {
            let app = text(&pool["app"]);
            rows(&pool["connections"]).map(move |conn| {
                connection(format!("to {app}"), Some(text(&conn["endpoint"])), conn)
            })
        });
        let all: Vec<Vec<String>> = down.chain(up).collect();
        if !all.is_empty() {
            out.push_str(&table(&["WAY", "PEER", "STATE", "STREAMS", "IDLE"], all.into_iter()));
        }
        if report["left_out"].as_u64().is_some_and(|count| count > 0) {
            out.push_str(&format!("and {} connections more\n", report["left_out"]));
        }
    }
    out
}

fn connection(way: String, peer: Option<String>, row: &Value) -> Vec<String> {
    let (state, streams) = (text(&row["state"]), text(&row["streams"]));
    vec![way, peer.unwrap_or_default(), state, streams, millis(&row["idle_ms"])]
}

/// Columns as wide as what they hold.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let cells = |n: usize| rows.iter().filter_map(move |row| row.get(n));
    let width = |n: usize| cells(n).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or_default()).collect();
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// `a.b: value`, a line each.
fn flatten(path: &str, value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, out);
            }
        }
        value => out.push_str(&format!("{path}: {}\n", text(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [vec!["é".to_owned(), "1".to_owned()], vec!["long".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["A", "B"], rows.into_iter()), "A     B\né     1\nlong  2\n");
    }

    #[test]
    fn command_lines() {
        let parse =
            |args: &[&str]| options(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        let given = parse(&["level", "debug", "--app-id=a", "--json"]).unwrap();
        assert_eq!((given.question.join(" "), given.json), ("level debug".to_owned(), true));
        assert_eq!(given.whom.app_id.as_deref(), Some("a"));
        for bad in
            [&[][..], &["nope"], &["pools", "x"], &["pools", "--nope"], &["pools", "--app-id"]]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
