//! `ringside tap`: the calls of a running sidecar, one line each, as they end.

use super::socket::{self, Whom};
use crate::config::Environment;
use crate::grpc::Code;
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: ringside tap [--app ID] [--method TEXT] [--status CODE] [--count N] [--json]
                    [--app-id ID | --socket PATH]

Shows the calls of a running sidecar of this user as they end: who called whom, status, octets each
way, and how long: until a stream to the next hop was there, until its answer began, in all.
  --app ID       calls by or to this app
  --method TEXT  calls whose method holds this
  --status CODE  calls that ended so: a number or a name, as 14 or Unavailable
  --count N      end after so many calls
Calls that came faster than they could be shown are counted, not shown; the calls themselves wait
for nobody. Without --app-id and --socket: the only sidecar there is.

Exit code: 0 in the end, 1 no sidecar, 2 not understood.
";

#[derive(Debug, Default)]
struct Options {
    whom: Whom,
    question: String,
    count: Option<u64>,
    json: bool,
}

/// `args` is what follows `tap`.
pub fn run(args: &[String], env: &Environment) -> ExitCode {
    socket::command(args, USAGE, options, |options| follow(options, env))
}

fn options(args: &[String]) -> Result<Options, String> {
    let mut options = Options { question: "tap".to_owned(), ..Options::default() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        if name == "--json" {
            options.json = true;
            continue;
        }
        let value = value.or_else(|| args.next().cloned());
        let value = value.ok_or_else(|| format!("{name} needs a value"))?;
        match name {
            "--app-id" => options.whom.app_id = Some(value),
            "--socket" => options.whom.socket = Some(value.into()),
            "--count" => {
                let count = value.parse().map_err(|_| format!("{value:?} is no number"))?;
                options.count = Some(count);
            }
            "--app" | "--method" if value.contains(|c: char| c.is_ascii_whitespace()) => {
                return Err(format!("{name}: there is no such name: {value:?}"));
            }
            "--app" => options.question.push_str(&format!(" app={value}")),
            "--method" => options.question.push_str(&format!(" method={value}")),
            "--status" => options.question.push_str(&format!(" status={}", status(&value)?)),
            other => return Err(format!("unknown argument: {other}")),
        }
    }
    Ok(options)
}

fn status(text: &str) -> Result<u8, String> {
    let named = (0..=16).find(|code| name(*code).is_some_and(|n| n.eq_ignore_ascii_case(text)));
    let numbered = text.parse().ok();
    named.or(numbered).ok_or_else(|| format!("{text:?} is no gRPC status"))
}

/// As gRPC names it.
fn name(code: u8) -> Option<String> {
    Some(format!("{:?}", Code::from_number(code)?))
}

fn follow(options: &Options, env: &Environment) -> Result<(), String> {
    let path = socket::find(&options.whom, env)?;
    let mut answer = socket::ask(&path, &options.question, false)?;
    // The sidecar says when it is ready.
    socket::next(&mut answer)?.ok_or("the sidecar gave no answer")?;
    eprintln!("tapping {}", path.display());
    let mut out = std::io::stdout().lock();
    if !options.json {
        let _ = writeln!(out, "{}", row(&HEAD.map(str::to_owned)));
    }
    let mut told = 0;
    while options.count.is_none_or(|count| told < count) {
        let Some(call) = socket::next(&mut answer)? else { break };
        let is_call = call.get("missed").is_none();
        told += u64::from(is_call);
        let shown = if options.json { call.to_string() } else { shown(&call) };
        // Whoever reads has had enough.
        if writeln!(out, "{shown}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(())
}

const HEAD: [&str; 9] =
    ["WAY", "CALLER", "CALLEE", "METHOD", "STATUS", "OCTETS", "WAITED", "ANSWERED", "TOTAL"];

fn row(cells: &[String; 9]) -> String {
    let [way, caller, callee, method, status, octets, waited, answered, total] = cells;
    format!(
        "{way:8}  {caller:21}  {callee:16}  {method:36}  {status:18}  {octets:>15}  {waited:>9}  \
         {answered:>9}  {total:>9}"
    )
}

fn shown(call: &Value) -> String {
    let text = |name: &str| call[name].as_str().unwrap_or("-").to_owned();
    let time = |name: &str| call[name].as_u64().map_or_else(|| "-".to_owned(), duration);
    let code = call["status"].as_u64().and_then(|code| u8::try_from(code).ok());
    let status = code.and_then(name).unwrap_or_else(|| call["status"].to_string());
    let octets = format!("{}/{}", call["request_octets"], call["response_octets"]);
    if let Some(missed) = call["missed"].as_u64() {
        return format!("... {missed} calls are not shown");
    }
    row(&[
        text("hop"),
        text("caller"),
        text("callee"),
        text("method"),
        status,
        octets,
        time("waited_us"),
        time("answered_us"),
        time("total_us"),
    ])
}

fn duration(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{micros}us"),
        10_000..10_000_000 => format!("{}ms", micros / 1_000),
        _ => format!("{}s", micros / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        options(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn command_lines() {
        let given = parse(&["--app=a", "--status", "unavailable", "--count=3", "--json"]).unwrap();
        assert_eq!(given.question, "tap app=a status=14");
        assert_eq!((given.count, given.json), (Some(3), true));
        assert_eq!(parse(&["--status=14"]).unwrap().question, "tap status=14");
        for bad in [&["--app"][..], &["--nope=1"], &["--status=x"], &["--app=a b"], &["--count=x"]]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_call_is_a_line_and_what_is_missing_is_told() {
        let call = serde_json::json!({
            "hop": "outbound", "caller": "127.0.0.1:1", "callee": "server", "method": "/a.B/C",
            "status": 14, "request_octets": 7, "response_octets": 0, "waited_us": null,
            "answered_us": 12_345, "total_us": 999,
        });
        let missed = serde_json::json!({ "missed": 2 });
        assert_eq!(shown(&missed), "... 2 calls are not shown");
        let shown = shown(&call);
        assert!(shown.starts_with("outbound "), "{shown}");
        for part in ["Unavailable", "7/0", " 12ms", " 999us", "/a.B/C"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}
