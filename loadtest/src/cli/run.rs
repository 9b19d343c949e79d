//! `loadtest run`: one plan against one address, and its report.
//!
//! Refuses to know how load is sent.

use super::{Ended, value};
use crate::framing::MESSAGE_OCTETS_MAX;
use crate::plan::{End, Expect, Plan, Schedule, Segment, Shape};
use crate::serve::message::{Counts, payload};
use crate::{generate, report, serve};
use bytes::Bytes;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use std::io::Write;
use std::net::ToSocketAddrs;
use std::time::Duration;

const ABOUT: &str = "\
Sends load to one gRPC server (plaintext HTTP/2 with prior knowledge) and reports what it saw.

Closed loop, the default: every stream begins its next call when its last one has ended. Open loop
(--rate or --schedule): calls begin when they are due, whatever the earlier ones do, and latency
counts from that moment. Statuses and answers are checked; the exit code is 1 if any call failed.";

const EXAMPLES: &str = "\
Examples:
  loadtest run 127.0.0.1:50051 --connections 16 --streams 10 --duration 10s
  loadtest run 127.0.0.1:3500 --metadata dapr-app-id=server --rate 1000 --duration 30s
  loadtest run 127.0.0.1:50051 --schedule step:1000@5s,2000@5s --schedule ramp:2000..9000@30s
  loadtest run 127.0.0.1:50051 --kind server --messages 10000 --size 100 --calls 50
  loadtest run 127.0.0.1:50051 --path /helloworld.Greeter/SayHello --data hello.bin --expect any";

pub fn grammar() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let many = |name, value, help| text(name, value, help).action(ArgAction::Append);
    let count = |name: &'static str, default: &'static str, help: &'static str| {
        text(name, "N", help).value_parser(value_parser!(u64).range(1..)).default_value(default)
    };
    let duration = |name: &'static str, help: &'static str| {
        text(name, "DURATION", help).value_parser(value::duration)
    };
    Command::new("run")
        .about("Sends load to one gRPC server and reports latencies, statuses and errors")
        .long_about(ABOUT)
        .after_long_help(EXAMPLES)
        .arg(Arg::new("address").value_name("ADDRESS").required(true).help("HOST:PORT to call"))
        .arg(
            text("kind", "KIND", "Kind of call")
                .value_parser(["unary", "client", "server", "ping-pong"])
                .default_value("unary"),
        )
        .arg(text("path", "PATH", "/package.Service/Method [default: loadtest.Echo's method]"))
        .arg(text("authority", "NAME", "What :authority says [default: ADDRESS]"))
        .arg(
            many("metadata", "KEY=VALUE", "Sent with every call; may be repeated")
                .value_parser(value::metadata),
        )
        .arg(many("unique", "KEY", "Sent with every call, its value anew in each; may be repeated"))
        .arg(
            text("size", "OCTETS", "Size of a message, without gRPC's prefix")
                .value_parser(value_parser!(u64).range(..=MESSAGE_OCTETS_MAX as u64))
                .default_value("100"),
        )
        .arg(text("data", "FILE", "Octets of the request message, in place of --size"))
        .arg(count("messages", "100", "Messages of a stream, or round trips of ping-pong"))
        .arg(
            text(
                "expect",
                "WHAT",
                "What answers must be [default: echo of loadtest.Echo, else any]",
            )
            .value_parser(["echo", "any"]),
        )
        .arg(count("connections", "1", "TCP connections"))
        .arg(count("streams", "1", "Calls in flight on each connection at most"))
        .arg(
            text("rate", "CALLS", "Open loop: calls per second")
                .value_parser(value::rate)
                .conflicts_with("schedule"),
        )
        .arg(
            many("schedule", "SEGMENTS", "Open loop: step:RATE@LENGTH,… or ramp:FROM..TO@LENGTH,…")
                .value_parser(value::segments),
        )
        .arg(duration("duration", "How long calls begin [default: the schedule's length, or 10s]"))
        .arg(
            text("calls", "N", "Ends after so many calls")
                .value_parser(value_parser!(u64).range(1..)),
        )
        .group(ArgGroup::new("end").args(["duration", "calls"]))
        .arg(duration("warmup", "Load whose results are thrown away, first").default_value("0s"))
        .arg(duration("timeout", "Each call's deadline, also sent as grpc-timeout"))
        .arg(
            text("output", "FORMAT", "Form of the report on stdout")
                .value_parser(["text", "json", "ghz"])
                .default_value("text"),
        )
}

pub fn run(matches: &ArgMatches) -> Ended {
    let plan = plan(matches)?;
    let outcome = generate::run_blocking(&plan).map_err(|error| error.to_string())?;
    let text = match chosen(matches, "output") {
        "json" => report::json(&plan, &outcome),
        "ghz" => report::ghz::write(&plan, &outcome, report::now()),
        _ => report::text(&plan, &outcome),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("cannot write the report: {error}"))?;
    match outcome.failed() {
        0 => Ok(()),
        failed => Err(format!("{failed} calls failed; the report says how")),
    }
}

fn plan(matches: &ArgMatches) -> Result<Plan, String> {
    let address = chosen(matches, "address");
    let mut found = address
        .to_socket_addrs()
        .map_err(|error| format!("{address:?} is no HOST:PORT that can be called: {error}"))?;
    let target = found.next().ok_or_else(|| format!("{address:?} has no address"))?;
    let messages = number(matches, "messages");
    let (shape, default_path) = match chosen(matches, "kind") {
        "client" => (Shape::ClientStream { messages }, serve::COLLECT),
        "server" => (Shape::ServerStream, serve::STREAM),
        "ping-pong" => (Shape::PingPong { round_trips: messages }, serve::PING_PONG),
        _ => (Shape::Unary, serve::UNARY),
    };
    let path = matches.get_one::<String>("path").map_or(default_path, String::as_str);
    let asked = Counts { messages, octets: number(matches, "size") };
    let request = request(matches, path, asked)?;
    let (schedule, end) = timing(matches)?;
    let count = |name| usize::try_from(number(matches, name)).unwrap_or(usize::MAX);
    Ok(Plan {
        target,
        authority: matches.get_one("authority").cloned().unwrap_or_else(|| address.to_owned()),
        path: path.to_owned(),
        metadata: matches.get_many("metadata").into_iter().flatten().cloned().collect(),
        unique: matches.get_many("unique").into_iter().flatten().cloned().collect(),
        shape,
        expect: expect(matches, path, asked, &request),
        request,
        connections: count("connections"),
        streams: count("streams"),
        schedule,
        warmup: *matches.get_one("warmup").expect("has a default"),
        end,
        timeout: matches.get_one("timeout").copied(),
    })
}

fn request(matches: &ArgMatches, path: &str, asked: Counts) -> Result<Bytes, String> {
    if let Some(file) = matches.get_one::<String>("data") {
        let read = std::fs::read(file).map_err(|error| format!("cannot read {file}: {error}"))?;
        return Ok(read.into());
    }
    if path == serve::STREAM {
        return Ok(asked.encode());
    }
    Ok(payload(usize::try_from(asked.octets).unwrap_or(MESSAGE_OCTETS_MAX)))
}

fn expect(matches: &ArgMatches, path: &str, asked: Counts, request: &Bytes) -> Expect {
    match (matches.get_one::<String>("expect").map(String::as_str), path) {
        (Some("echo"), _) => Expect::Echo,
        (None, serve::UNARY | serve::PING_PONG) => Expect::Echo,
        (None, serve::COLLECT) => {
            let octets = asked.messages * request.len() as u64;
            Expect::Each(Counts { messages: asked.messages, octets }.encode())
        }
        (None, serve::STREAM) if !matches.contains_id("data") => {
            let octets = usize::try_from(asked.octets).unwrap_or(usize::MAX);
            Expect::Messages { count: asked.messages, octets }
        }
        _ => Expect::Anything,
    }
}

fn timing(matches: &ArgMatches) -> Result<(Schedule, End), String> {
    const DEFAULT: Duration = Duration::from_secs(10);
    let end = match (matches.get_one("duration"), matches.get_one("calls")) {
        (Some(duration), _) => Some(End::After(*duration)),
        (None, Some(calls)) => Some(End::Calls(*calls)),
        (None, None) => None,
    };
    if let Some(rate) = matches.get_one::<f64>("rate") {
        // The rate goes on until the run's end.
        let segment = Segment { from: *rate, to: *rate, length: Duration::ZERO };
        return Ok((Schedule::Open(vec![segment]), end.unwrap_or(End::After(DEFAULT))));
    }
    let Some(given) = matches.get_many::<Vec<Segment>>("schedule") else {
        return Ok((Schedule::Closed, end.unwrap_or(End::After(DEFAULT))));
    };
    let segments: Vec<Segment> = given.flatten().copied().collect();
    let whole = segments.iter().try_fold(Duration::ZERO, |sum, one| sum.checked_add(one.length));
    let whole = whole.ok_or("the schedule has no end")?;
    Ok((Schedule::Open(segments), end.unwrap_or(End::After(whole))))
}

fn chosen<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).expect("required or with a default")
}

fn number(matches: &ArgMatches, name: &str) -> u64 {
    *matches.get_one::<u64>(name).expect("has a default")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(args: &[&str]) -> Result<Plan, String> {
        let args = ["run", "127.0.0.1:1"].iter().chain(args);
        let matches = grammar().try_get_matches_from(args).map_err(|error| error.to_string())?;
        plan(&matches)
    }

    #[test]
    fn the_defaults_are_a_closed_loop_of_echoes() {
        let plan = planned(&[]).expect("nothing is required but the address");
        assert_eq!((plan.path.as_str(), plan.expect), (serve::UNARY, Expect::Echo));
        assert_eq!((plan.request.len(), plan.connections, plan.streams), (100, 1, 1));
        assert_eq!(plan.schedule, Schedule::Closed);
        assert_eq!(plan.end, End::After(Duration::from_secs(10)));
    }

    #[test]
    fn kinds_know_their_answers() {
        let server =
            planned(&["--kind", "server", "--messages", "7", "--size", "9"]).expect("good");
        assert_eq!(server.expect, Expect::Messages { count: 7, octets: 9 });
        assert_eq!(&server.request[..], b"\x08\x07\x10\x09");
        let client =
            planned(&["--kind", "client", "--messages", "3", "--size", "9"]).expect("good");
        assert_eq!(client.expect, Expect::Each(Bytes::from_static(b"\x08\x03\x10\x1b")));
        let other = planned(&["--path", "/a.B/C"]).expect("good");
        assert_eq!(other.expect, Expect::Anything);
    }

    #[test]
    fn a_schedule_ends_the_run() {
        let plan = planned(&["--schedule", "step:10@1s,20@2s", "--schedule", "ramp:1..2@500ms"]);
        let plan = plan.expect("good");
        assert_eq!(plan.end, End::After(Duration::from_millis(3500)));
        let Schedule::Open(segments) = plan.schedule else { panic!("an open loop") };
        assert_eq!(segments.len(), 3);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = planned(&["--duration", "10"]).expect_err("no unit");
        assert!(text.contains("\"10\" is no duration such as 500ms, 10s or 2m"), "{text}");
        let text = planned(&["--rate", "5", "--schedule", "step:1@1s"]).expect_err("both");
        assert!(text.contains("cannot be used with"), "{text}");
        let text = planned(&["--calls", "0"]).expect_err("none");
        assert!(text.contains("0 is not in 1.."), "{text}");
    }
}
