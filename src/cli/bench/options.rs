//! The command line of `ringside bench`: ghz's names and forms where ghz has them.
//!
//! 1. What parses is complete: ranges are checked, files are not yet read.
//! 2. What ghz has and this has not is refused by name, never ignored in silence.

use crate::config::go;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::path::PathBuf;
use std::time::Duration;

/// Rounds, connections and calls in flight that nobody means to ask for.
const ROUNDS_MAX: usize = 1000;
const CONNECTIONS_MAX: usize = 10_000;
const CONCURRENCY_MAX: usize = 100_000;

pub const DESCRIPTION: &str = "\
Measures your own gRPC service: called directly, through two daprds, and through two ringsides, in
alternation, with mTLS between the sidecars. Nothing else needs to run.";

const EXAMPLES: &str = "\
Examples:
  ringside bench --proto greeter.proto --call helloworld.Greeter/SayHello \\
      -d '{\"name\":\"Ada\"}' localhost:50051
  ringside bench --call helloworld.Greeter.SayHello -d @hello.json -r 1000 -z 10s localhost:50051
  ringside bench --read ghz-through-daprd.json ghz-through-ringside.json

Without --proto and --protoset the service is asked by gRPC reflection. `-d` may be a JSON array of
messages: streams send them one after another, and a bidirectional one awaits an answer to each.
";

/// What to do.
#[derive(Clone, Debug)]
pub enum Task {
    Measure(Box<Options>),
    /// Two reports to compare.
    Read(PathBuf, PathBuf),
    Help(String),
}

#[derive(Clone, Debug)]
pub struct Options {
    pub source: Source,
    /// `package.Service/Method`.
    pub call: String,
    pub data: Data,
    /// JSON objects or `key:value`, in order.
    pub metadata: Vec<String>,
    pub metadata_file: Option<PathBuf>,
    /// App ID of the service.
    pub app: String,
    /// Where the service listens, as given.
    pub address: String,
    pub authority: Option<String>,
    pub load: Load,
    pub rounds: usize,
    pub daprd: Daprd,
    pub output: Output,
    pub name: Option<String>,
}

/// Where descriptors come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Proto { file: PathBuf, imports: Vec<PathBuf> },
    Protoset(PathBuf),
    Reflection { metadata: Option<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    Text(String),
    File(PathBuf),
    Stdin,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    pub connections: usize,
    /// Calls in flight over all connections.
    pub concurrency: usize,
    /// Open loop at this rate; `None`: closed loop.
    pub rate: Option<f64>,
    /// Calls of each run; `None`: as many as fit into `duration`.
    pub total: Option<u64>,
    pub duration: Duration,
    pub timeout: Option<Duration>,
    /// Messages of a streaming call, when not those of the data.
    pub messages: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Daprd {
    Skip,
    /// From `PATH` or the Dapr CLI's folder, with the first of the resolvers that works.
    Find(Vec<Resolver>),
    At(PathBuf, Vec<Resolver>),
}

/// daprd's name resolution, the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// An address from a pattern: the nearest that a stock daprd has to a static table.
    Format,
    /// Remembers what it heard; needs multicast.
    Mdns,
    /// Asks a file at every call, which costs more than the rest of daprd's work.
    Sqlite,
}

impl Resolver {
    const ALL: [Self; 3] = [Self::Format, Self::Mdns, Self::Sqlite];

    /// What daprd's configuration calls it.
    pub fn component(self) -> &'static str {
        match self {
            Self::Format => "nameformat",
            Self::Mdns => "mdns",
            Self::Sqlite => "sqlite",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Text(Option<PathBuf>),
    Json(Option<PathBuf>),
    /// The text, and one report in ghz's JSON for each topology.
    Ghz(PathBuf),
}

/// `args` is what follows `bench`.
pub fn parse(args: &[String]) -> Result<Task, String> {
    let mut command = grammar();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") || args.is_empty() {
        return Ok(Task::Help(command.render_help().to_string()));
    }
    let matches = command.try_get_matches_from_mut(args).map_err(|error| {
        let text = error.render().to_string();
        text.strip_prefix("error: ").unwrap_or(&text).to_owned()
    })?;
    if let Some(mut files) = matches.get_many::<String>("read")
        && let (Some(first), Some(second)) = (files.next(), files.next())
    {
        return Ok(Task::Read(first.into(), second.into()));
    }
    Ok(Task::Measure(Box::new(measure(&matches)?)))
}

fn grammar() -> Command {
    let given = |long: &'static str, value: &'static str, help: &'static str| {
        Arg::new(long).long(long).value_name(value).help(help).num_args(1)
    };
    let short = |arg: Arg, letter: char| arg.short(letter);
    let many = |arg: Arg| arg.action(ArgAction::Append);
    Command::new("ringside bench")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .about(DESCRIPTION)
        .after_help(EXAMPLES)
        .args_override_self(true)
        .arg(Arg::new("address").value_name("HOST:PORT").help("Where the service listens"))
        .arg(given("proto", "FILE", "The .proto file of the service"))
        .arg(
            many(short(given("import-paths", "DIRS", "Where imports are looked for"), 'i'))
                .alias("import-path"),
        )
        .arg(given("protoset", "FILE", "A compiled descriptor set instead of --proto"))
        .arg(
            Arg::new("reflection")
                .long("reflection")
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["proto", "protoset"])
                .help("Ask the service itself (as without --proto)"),
        )
        .arg(given("reflect-metadata", "JSON", "Metadata of the reflection call"))
        .arg(given("call", "METHOD", "package.Service/Method or package.Service.Method"))
        .arg(short(given("data", "JSON", "The message, or @FILE, or @ for stdin"), 'd'))
        .arg(short(given("data-file", "FILE", "A file with the message"), 'D'))
        .arg(many(short(given("metadata", "META", "KEY:VALUE or a JSON object"), 'm')))
        .arg(short(given("metadata-file", "FILE", "Metadata in a JSON file"), 'M'))
        .arg(given("authority", "NAME", "The :authority of calls made directly"))
        .arg(given("app", "ID", "App ID of the service [default: app]").alias("app-id"))
        .arg(given("connections", "N", "Connections [default: 1]"))
        .arg(short(given("concurrency", "N", "Calls in flight in all [default: 50]"), 'c'))
        .arg(short(given("rps", "N", "Open loop: calls per second, from when each is due"), 'r'))
        .arg(short(given("total", "N", "Calls of each run, instead of a duration"), 'n'))
        .arg(short(given("duration", "TIME", "Length of each run [default: 4s]"), 'z'))
        .arg(short(given("timeout", "TIME", "Of each call; 0 for none [default: 20s]"), 't'))
        .arg(given("stream-call-count", "N", "Messages of each streaming call"))
        .arg(given("rounds", "N", "Rounds of all topologies [default: 5]"))
        .arg(Arg::new("skip-daprd").long("skip-daprd").action(ArgAction::SetTrue).help("No daprd"))
        .arg(given("daprd", "PATH", "The daprd to measure [default: of PATH, ~/.dapr/bin]"))
        .arg(given("daprd-resolver", "KIND", "auto, nameformat, mdns, sqlite"))
        .arg(short(given("format", "KIND", "summary, json, or ghz [default: summary]"), 'O'))
        .arg(short(given("output", "PATH", "File of the report; folder for -O ghz"), 'o'))
        .arg(given("name", "TEXT", "A name for the reports"))
        .arg(
            Arg::new("insecure")
                .long("insecure")
                .action(ArgAction::SetTrue)
                .help("As ghz has it: plaintext to the service, which is all there is here"),
        )
        .arg(
            Arg::new("read")
                .long("read")
                .num_args(2)
                .value_names(["A.json", "B.json"])
                .help("Compare two reports, of ghz or of -O json"),
        )
}

fn measure(matches: &ArgMatches) -> Result<Options, String> {
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let path = |name: &str| text(name).map(PathBuf::from);
    let list = |name: &str| -> Vec<String> {
        matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
    };
    let missing = |what: &str| format!("{what} is missing; ringside bench --help shows the rest");
    let source = match (path("proto"), path("protoset")) {
        (Some(file), _) => {
            let imports = list("import-paths");
            let imports = imports.iter().flat_map(|dirs| dirs.split(',')).map(PathBuf::from);
            Source::Proto { file, imports: imports.collect() }
        }
        (None, Some(file)) => Source::Protoset(file),
        (None, None) => Source::Reflection { metadata: text("reflect-metadata") },
    };
    let app = text("app").unwrap_or_else(|| "app".to_owned());
    // daprd refuses dots in the `dapr-app-id` that names a namespace as well.
    if app.is_empty() || app.contains(['.', '/', ' ']) {
        return Err(format!("--app {app:?}: an app ID has no dots, slashes or spaces"));
    }
    Ok(Options {
        source,
        call: text("call").ok_or_else(|| missing("--call package.Service/Method"))?,
        data: data(text("data"), path("data-file"))?,
        metadata: list("metadata"),
        metadata_file: path("metadata-file"),
        app,
        address: text("address").ok_or_else(|| missing("the service's HOST:PORT"))?,
        authority: text("authority"),
        load: load(matches)?,
        rounds: number(matches, "rounds", 5, ROUNDS_MAX)?,
        daprd: daprd(matches)?,
        output: output(text("format"), path("output"))?,
        name: text("name"),
    })
}

fn data(given: Option<String>, file: Option<PathBuf>) -> Result<Data, String> {
    match (given, file) {
        (Some(_), Some(_)) => Err("--data and --data-file exclude each other".to_owned()),
        (None, Some(file)) => Ok(Data::File(file)),
        (None, None) => Ok(Data::Text("{}".to_owned())),
        (Some(text), None) => Ok(match text.strip_prefix('@') {
            Some("") => Data::Stdin,
            Some(file) => Data::File(file.into()),
            None => Data::Text(text),
        }),
    }
}

fn load(matches: &ArgMatches) -> Result<Load, String> {
    let connections = number(matches, "connections", 1, CONNECTIONS_MAX)?;
    let concurrency = number(matches, "concurrency", 50, CONCURRENCY_MAX)?;
    if concurrency < connections {
        return Err(format!("--concurrency {concurrency} leaves some of {connections} idle"));
    }
    let rate = match matches.get_one::<String>("rps").map(String::as_str) {
        None | Some("0") => None,
        Some(text) => match text.parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate.is_finite() => Some(rate),
            _ => return Err(format!("--rps {text:?} is no rate")),
        },
    };
    let optional = |name: &str| match matches.get_one::<String>(name).map(|text| text.parse()) {
        None => Ok(None),
        Some(Ok(number)) if number > 0 => Ok(Some(number)),
        Some(_) => Err(format!("--{name} is to be a number above 0")),
    };
    let duration = time(matches, "duration")?.flatten().unwrap_or(Duration::from_secs(4));
    let timeout = time(matches, "timeout")?.unwrap_or(Some(Duration::from_secs(20)));
    let (total, messages) = (optional("total")?, optional("stream-call-count")?);
    Ok(Load { connections, concurrency, rate, total, duration, timeout, messages })
}

/// `Some(None)` for one that is 0.
fn time(matches: &ArgMatches, name: &str) -> Result<Option<Option<Duration>>, String> {
    let Some(text) = matches.get_one::<String>(name) else { return Ok(None) };
    let parsed = go::parse_duration(text).map_err(|error| format!("--{name}: {error}"))?;
    Ok(Some(parsed.positive()))
}

fn number(matches: &ArgMatches, name: &str, default: usize, max: usize) -> Result<usize, String> {
    match matches.get_one::<String>(name).map(|text| text.parse()) {
        None => Ok(default),
        Some(Ok(number)) if (1..=max).contains(&number) => Ok(number),
        Some(_) => Err(format!("--{name} is to be a number from 1 to {max}")),
    }
}

fn daprd(matches: &ArgMatches) -> Result<Daprd, String> {
    let resolvers = match matches.get_one::<String>("daprd-resolver").map(String::as_str) {
        None | Some("auto") => Resolver::ALL.to_vec(),
        Some(name) => match Resolver::ALL.into_iter().find(|known| known.component() == name) {
            Some(resolver) => vec![resolver],
            None => {
                let text = "auto, nameformat, mdns or sqlite";
                return Err(format!("--daprd-resolver {name}: {text}"));
            }
        },
    };
    Ok(match matches.get_one::<String>("daprd") {
        _ if matches.get_flag("skip-daprd") => Daprd::Skip,
        Some(path) => Daprd::At(path.into(), resolvers),
        None => Daprd::Find(resolvers),
    })
}

fn output(format: Option<String>, path: Option<PathBuf>) -> Result<Output, String> {
    match (format.as_deref(), path) {
        (None | Some("summary" | "text"), path) => Ok(Output::Text(path)),
        (Some("json" | "pretty"), path) => Ok(Output::Json(path)),
        (Some("ghz"), Some(folder)) => Ok(Output::Ghz(folder)),
        (Some("ghz"), None) => Err("-O ghz writes several files: name a folder with -o".to_owned()),
        (Some(other), _) => Err(format!("--format {other}: summary, json or ghz")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Task, String> {
        parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    fn options(args: &[&str]) -> Options {
        match run(args) {
            Ok(Task::Measure(options)) => *options,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    /// The command that a ghz user has, with `bench` in ghz's place.
    #[test]
    fn takes_what_ghz_takes() {
        let options = options(&[
            "--insecure",
            "--proto",
            "./greeter.proto",
            "-i",
            "protos,more",
            "--call=helloworld.Greeter.SayHello",
            "-d",
            r#"{"name":"Joe"}"#,
            "-m",
            r#"{"trace":"on"}"#,
            "-c",
            "8",
            "--connections=4",
            "-r",
            "200",
            "-z",
            "1m30s",
            "-t",
            "0",
            "0.0.0.0:50051",
        ]);
        let imports = vec!["protos".into(), "more".into()];
        assert_eq!(options.source, Source::Proto { file: "./greeter.proto".into(), imports });
        assert_eq!(options.data, Data::Text(r#"{"name":"Joe"}"#.to_owned()));
        assert_eq!(options.address, "0.0.0.0:50051");
        let load = options.load;
        assert_eq!((load.connections, load.concurrency, load.rate), (4, 8, Some(200.0)));
        assert_eq!((load.duration, load.timeout), (Duration::from_secs(90), None));
    }

    #[test]
    fn data_and_output_have_forms() {
        let base = ["--call", "a.B/C", "h:1"];
        let with = |more: &[&str]| options(&[&base[..], more].concat());
        assert_eq!(with(&[]).data, Data::Text("{}".to_owned()));
        assert_eq!(with(&["-d", "@"]).data, Data::Stdin);
        assert_eq!(with(&["-d", "@f.json"]).data, Data::File("f.json".into()));
        assert_eq!(with(&["-D", "f.json"]).data, Data::File("f.json".into()));
        assert_eq!(with(&["-O", "json"]).output, Output::Json(None));
        assert_eq!(with(&["-O", "ghz", "-o", "d"]).output, Output::Ghz("d".into()));
        assert_eq!(with(&["--skip-daprd"]).daprd, Daprd::Skip);
        assert_eq!(with(&["--reflection"]).source, Source::Reflection { metadata: None });
        assert_eq!(with(&["-m", "a:b", "-m", "c:d"]).metadata, ["a:b", "c:d"]);
        assert_eq!(with(&["--rounds", "2", "--rounds", "3"]).rounds, 3);
    }

    #[test]
    fn says_what_is_wrong() {
        let base = ["--call", "a.B/C", "h:1"];
        let with = |more: &[&str]| run(&[&base[..], more].concat()).expect_err("a refusal");
        for (more, part) in [
            (&["--rounds", "0"][..], "--rounds"),
            (&["-c", "1", "--connections", "2"], "leaves some of 2 idle"),
            (&["-r", "fast"], "--rps \"fast\" is no rate"),
            (&["-z", "5"], "missing unit in duration"),
            (&["-O", "html"], "--format html"),
            (&["-O", "ghz"], "name a folder with -o"),
            (&["--app", "a.b"], "no dots"),
            (&["--lb-strategy", "x"], "'--lb-strategy'"),
            (&["--reflection", "--proto", "x"], "cannot be used with"),
            (&["--daprd-resolver", "dns"], "auto, nameformat, mdns or sqlite"),
        ] {
            let said = with(more);
            assert!(said.contains(part), "{more:?}: {said}");
        }
        assert!(run(&["h:1"]).expect_err("no call").contains("--call"));
        assert!(run(&["--call", "a.B/C"]).expect_err("no address").contains("HOST:PORT"));
        assert!(matches!(run(&["--help"]), Ok(Task::Help(text)) if text.contains("Examples:")));
        assert!(matches!(run(&["--read", "a", "b"]), Ok(Task::Read(..))));
        assert!(run(&["--read", "a"]).is_err());
    }
}
