//! Arguments to [`Flags`], in pflag's manner, by clap.
//!
//! 1. `-name` is `--name` for every argument of more than two characters, values included:
//!    daprd rewrites them before it parses.
//! 2. A bool never takes the next argument; every other flag takes it, whatever it looks like.
//! 3. The last value of a flag wins; lists gather, and split at commas.

use super::table::{FLAGS, Fate, Kind, usage};
use super::{Command, Parsed, UsageError};
use crate::config::Flags;
use crate::config::go::{self, GoDuration};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

const POSITIONAL: &str = "ignored";
const HELP: &str = "help";

pub fn parse(args: Vec<String>) -> Parsed {
    let args: Vec<String> = args.into_iter().map(double_dash).collect();
    // pflag stops at the first thing that is wrong, which `--help` counts as.
    let matches = match grammar().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => {
            let command = Err(UsageError(refusal(&error, &args)));
            return Parsed { command, warnings: deprecations_in(&args) };
        }
    };
    if matches.get_flag(HELP) {
        return Parsed { command: Ok(Command::Help), warnings: deprecations_in(&args) };
    }
    let command = flags(&matches).map(|flags| Command::Sidecar(Box::new(flags)));
    Parsed { command: command.map_err(UsageError), warnings: deprecations_in(&args) }
}

/// What stderr shows for a command line that is none.
pub fn complaint(error: &UsageError, program: &str) -> String {
    format!("{}\n{}", error.0, usage(program))
}

/// The rewriting at the top of daprd's `options.New`.
fn double_dash(arg: String) -> String {
    let single = arg.len() > 2 && arg.starts_with('-') && !arg.starts_with("--");
    if single { format!("-{arg}") } else { arg }
}

fn grammar() -> clap::Command {
    let mut grammar = clap::Command::new("daprd")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true);
    let help = Arg::new(HELP).long("help").short('h').action(ArgAction::SetTrue);
    let positional = Arg::new(POSITIONAL).num_args(0..).action(ArgAction::Append);
    grammar = grammar.arg(help).arg(positional);
    for flag in FLAGS {
        let arg = Arg::new(flag.name).long(flag.name);
        grammar = grammar.arg(match flag.kind {
            Kind::Bool => arg
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            Kind::Strings => arg.action(ArgAction::Append).allow_hyphen_values(true),
            Kind::String | Kind::Int | Kind::Uint | Kind::Duration => {
                arg.action(ArgAction::Set).allow_hyphen_values(true)
            }
        });
    }
    grammar
}

/// pflag's text for what clap refused.
fn refusal(error: &clap::Error, args: &[String]) -> String {
    let culprit = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.first().cloned().unwrap_or_default(),
        Some(_) | None => String::new(),
    };
    let name = culprit.split([' ', '=', '[']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues | ErrorKind::NoEquals => {
            format!("flag needs an argument: {name}")
        }
        ErrorKind::UnknownArgument => unknown(name, args),
        _ => format!("{}", error.kind()),
    }
}

fn unknown(name: &str, args: &[String]) -> String {
    // What clap calls the culprit may be cut; the argument itself tells.
    let given = args.iter().find(|arg| arg.split('=').next() == Some(name) && !name.is_empty());
    let given = given.map_or(name, String::as_str);
    match given.strip_prefix("--") {
        Some(rest) if rest.is_empty() || rest.starts_with(['-', '=']) => {
            format!("bad flag syntax: {given}")
        }
        Some(_) => format!("unknown flag: {name}"),
        None => match given.strip_prefix('-').and_then(|rest| rest.chars().next()) {
            Some(letter) => format!("unknown shorthand flag: {letter:?} in {given}"),
            None => format!("bad flag syntax: {given}"),
        },
    }
}

/// The lines about deprecated flags, in the order given.
fn deprecations_in(args: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    for arg in args.iter().take_while(|arg| *arg != "--") {
        let Some(name) = arg.strip_prefix("--").and_then(|rest| rest.split('=').next()) else {
            continue;
        };
        for flag in FLAGS.iter().filter(|flag| flag.name == name) {
            if let Fate::Deprecated(hint) | Fate::IgnoredDeprecated(hint) = flag.fate {
                warnings.push(format!("Flag --{name} has been deprecated, {hint}"));
            }
        }
    }
    warnings
}

/// Reads values out of clap's matches; the first one that cannot be read is kept as the error.
struct Reader<'a> {
    matches: &'a ArgMatches,
    error: Option<String>,
}

impl Reader<'_> {
    fn given(&self, name: &str) -> Option<&str> {
        let set = self.matches.value_source(name) == Some(ValueSource::CommandLine);
        let mut values = self.matches.get_many::<String>(name)?;
        values.next_back().filter(|_| set).map(String::as_str)
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.given(name).unwrap_or(default).to_owned()
    }

    fn list(&self, name: &str) -> Vec<String> {
        let values = self.matches.get_many::<String>(name).into_iter().flatten();
        values.flat_map(|value| split_list(value)).collect()
    }

    fn read<T>(&mut self, name: &str, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.given(name)?.to_owned();
        match parse(&value) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                let text = format!("invalid argument {value:?} for \"--{name}\" flag: {error}");
                self.error.get_or_insert(text);
                None
            }
        }
    }

    fn bool(&mut self, name: &str, default: bool) -> bool {
        self.read(name, go::parse_bool).unwrap_or(default)
    }

    fn int(&mut self, name: &str, default: i64) -> i64 {
        self.read(name, go::parse_int).unwrap_or(default)
    }

    fn duration(&mut self, name: &str) -> Option<GoDuration> {
        self.read(name, go::parse_duration)
    }

    /// Values of the flags without effect are still read, since daprd refuses bad ones.
    fn ignored(&mut self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for flag in FLAGS {
            let ignored = matches!(flag.fate, Fate::Ignored | Fate::IgnoredDeprecated(_));
            let Some(value) = self.given(flag.name).filter(|_| ignored) else { continue };
            let switched_off = value.is_empty() || (flag.kind == Kind::Bool && value == "false");
            if !switched_off {
                names.push(flag.name);
            }
            match flag.kind {
                Kind::Bool => drop(self.read(flag.name, go::parse_bool)),
                Kind::Int => drop(self.read(flag.name, go::parse_int)),
                Kind::Uint => drop(self.read(flag.name, go::parse_uint)),
                Kind::Duration => drop(self.read(flag.name, go::parse_duration)),
                Kind::String | Kind::Strings => {}
            }
        }
        names
    }
}

/// pflag reads lists as CSV; quotes are honoured where a whole field is quoted.
fn split_list(value: &str) -> Vec<String> {
    if value.is_empty() {
        return Vec::new();
    }
    let mut fields = Vec::new();
    let mut rest = value;
    loop {
        let (field, tail) = match rest.strip_prefix('"').and_then(|quoted| quoted.split_once('"')) {
            Some((field, tail)) => (field, tail.strip_prefix(',')),
            None => match rest.split_once(',') {
                Some((field, tail)) => (field, Some(tail)),
                None => (rest, None),
            },
        };
        fields.push(field.to_owned());
        match tail {
            Some(tail) => rest = tail,
            None => return fields,
        }
    }
}

fn flags(matches: &ArgMatches) -> Result<Flags, String> {
    let mut reader = Reader { matches, error: None };
    let mut flags = Flags::default();
    texts(&reader, &mut flags);
    lists(&reader, &mut flags);
    switches(&mut reader, &mut flags);
    numbers(&mut reader, &mut flags);
    flags.ignored = reader.ignored();
    match reader.error {
        Some(error) => Err(error),
        None => Ok(flags),
    }
}

fn texts(reader: &Reader<'_>, flags: &mut Flags) {
    for (name, slot) in [
        ("mode", &mut flags.mode),
        ("app-id", &mut flags.app_id),
        ("app-port", &mut flags.app_port),
        ("app-protocol", &mut flags.app_protocol),
        ("app-channel-address", &mut flags.app_channel_address),
        ("dapr-http-port", &mut flags.dapr_http_port),
        ("dapr-grpc-port", &mut flags.dapr_grpc_port),
        ("dapr-internal-grpc-port", &mut flags.dapr_internal_grpc_port),
        ("dapr-internal-grpc-listen-address", &mut flags.dapr_internal_grpc_listen_address),
        ("dapr-listen-addresses", &mut flags.dapr_listen_addresses),
        ("dapr-public-port", &mut flags.dapr_public_port),
        ("dapr-public-listen-address", &mut flags.dapr_public_listen_address),
        ("metrics-port", &mut flags.metrics_port),
        ("ringside-page-port", &mut flags.ringside.page_port),
        ("ringside-page-address", &mut flags.ringside.page_address),
        ("metrics-listen-address", &mut flags.metrics_listen_address),
        ("profile-port", &mut flags.profile_port),
        ("unix-domain-socket", &mut flags.unix_domain_socket),
        ("components-path", &mut flags.components_path),
        ("sentry-address", &mut flags.sentry_address),
        ("allowed-origins", &mut flags.allowed_origins),
        ("app-health-check-path", &mut flags.app_health_check_path),
        ("log-level", &mut flags.log_level),
        ("log-file", &mut flags.log_file),
        ("actors-disseminate-timeout", &mut flags.actors_disseminate_timeout_text),
        ("ringside-admin-socket", &mut flags.ringside.admin_socket),
        ("ringside-app-socket", &mut flags.ringside.app_socket),
        ("ringside-io", &mut flags.ringside.io),
        ("ringside-pin", &mut flags.ringside.pin),
        ("ringside-busy-poll", &mut flags.ringside.busy_poll),
        ("ringside-workers", &mut flags.ringside.workers),
        ("ringside-retry-budget", &mut flags.ringside.retry_budget),
        ("ringside-resolve-file", &mut flags.ringside.resolve_file),
    ] {
        *slot = reader.text(name, slot);
    }
    let owned = |name| reader.given(name).map(str::to_owned);
    flags.control_plane_trust_domain = owned("control-plane-trust-domain");
    flags.control_plane_namespace = owned("control-plane-namespace");
    flags.max_body_size = owned("max-body-size");
    flags.read_buffer_size = owned("read-buffer-size");
}

fn lists(reader: &Reader<'_>, flags: &mut Flags) {
    for (name, slot) in [
        ("config", &mut flags.config),
        ("resources-path", &mut flags.resources_path),
        ("sentry-request-jwt-audiences", &mut flags.sentry_request_jwt_audiences),
        ("disable-init-endpoints", &mut flags.disable_init_endpoints),
        ("ringside-forward", &mut flags.ringside.forward),
    ] {
        *slot = reader.list(name);
    }
}

fn switches(reader: &mut Reader<'_>, flags: &mut Flags) {
    for (name, slot) in [
        ("app-ssl", &mut flags.app_ssl),
        ("enable-metrics", &mut flags.enable_metrics),
        ("enable-profiling", &mut flags.enable_profiling),
        ("enable-mtls", &mut flags.enable_mtls),
        ("enable-app-health-check", &mut flags.enable_app_health_check),
        ("log-as-json", &mut flags.log_as_json),
        ("version", &mut flags.version),
        ("build-info", &mut flags.build_info),
        ("wait", &mut flags.wait),
        ("ringside-app-max-concurrency-proxied", &mut flags.ringside.app_max_concurrency_proxied),
    ] {
        *slot = reader.bool(name, *slot);
    }
    flags.enable_api_logging = reader.read("enable-api-logging", go::parse_bool);
}

fn numbers(reader: &mut Reader<'_>, flags: &mut Flags) {
    for (name, slot) in [
        ("app-max-concurrency", &mut flags.app_max_concurrency),
        ("dapr-graceful-shutdown-seconds", &mut flags.dapr_graceful_shutdown_seconds),
        ("app-health-probe-interval", &mut flags.app_health_probe_interval),
        ("app-health-probe-timeout", &mut flags.app_health_probe_timeout),
        ("app-health-threshold", &mut flags.app_health_threshold),
        ("ringside-log-contents", &mut flags.ringside.log_contents),
    ] {
        *slot = reader.int(name, *slot);
    }
    flags.dapr_http_max_request_size = reader.read("dapr-http-max-request-size", go::parse_int);
    flags.dapr_http_read_buffer_size = reader.read("dapr-http-read-buffer-size", go::parse_int);
    flags.dapr_block_shutdown_duration = reader.duration("dapr-block-shutdown-duration");
    flags.actors_disseminate_timeout = reader.duration("actors-disseminate-timeout");
    flags.ringside.drain_max = reader.duration("ringside-drain-max");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Parsed {
        parse(args.iter().map(|arg| (*arg).to_owned()).collect())
    }

    fn ok(args: &[&str]) -> Flags {
        match run(args).command {
            Ok(Command::Sidecar(flags)) => *flags,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    fn refused(args: &[&str]) -> String {
        run(args).command.expect_err("a refusal").0
    }

    #[test]
    fn nothing_given_is_the_defaults() {
        assert_eq!(ok(&[]), Flags::default());
    }

    #[test]
    fn the_table_agrees_with_the_defaults() {
        // Giving every flag its own default changes nothing but what "given" itself means.
        let mut args = Vec::new();
        for flag in FLAGS.iter().filter(|flag| flag.kind != Kind::Bool && !flag.default.is_empty())
        {
            let presence = ["max-body-size", "read-buffer-size", "actors-disseminate-timeout"];
            if !presence.contains(&flag.name) && !flag.name.starts_with("control-plane") {
                args.push(format!("--{}={}", flag.name, flag.default));
            }
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut flags = ok(&args);
        flags.ignored.clear();
        assert_eq!(flags, Flags::default());
    }

    #[test]
    fn one_dash_and_two_detached_and_attached() {
        for args in [["--app-id", "x"], ["-app-id", "x"]] {
            assert_eq!(ok(&args).app_id, "x");
        }
        assert_eq!(ok(&["-app-id=x"]).app_id, "x");
        assert_eq!(ok(&["--app-id=a=b"]).app_id, "a=b");
        assert_eq!(ok(&["--app-id="]).app_id, "");
        assert_eq!(ok(&["--app-id", "a", "--app-id", "b"]).app_id, "b");
        assert_eq!(ok(&["--app-max-concurrency", "-1"]).app_max_concurrency, -1);
        assert_eq!(ok(&["--app-id", "--app-port", "5"]).app_id, "--app-port");
    }

    #[test]
    fn bools() {
        assert!(ok(&["--enable-mtls"]).enable_mtls);
        assert!(!ok(&["--enable-mtls=false"]).enable_mtls);
        assert!(ok(&["--enable-mtls", "false"]).enable_mtls, "a detached value is positional");
        assert!(ok(&["-enable-mtls=1"]).enable_mtls);
        assert!(!ok(&["--enable-metrics=F"]).enable_metrics);
        assert_eq!(ok(&["--enable-api-logging=false"]).enable_api_logging, Some(false));
        assert!(!ok(&["--enable-mtls", "--enable-mtls=false"]).enable_mtls);
    }

    #[test]
    fn lists_gather_and_split() {
        let flags = ok(&["--config", "a,b", "-config=c", "--resources-path", r#""x,y",z"#]);
        assert_eq!(flags.config, ["a", "b", "c"]);
        assert_eq!(flags.resources_path, ["x,y", "z"]);
    }

    #[test]
    fn positional_arguments_are_ignored() {
        let flags = ok(&["run", "--app-id", "x", "y", "--enable-mtls", "z", "--", "--nope"]);
        assert_eq!(flags.app_id, "x");
        assert!(flags.enable_mtls);
        let demo = command_of(&["--app-id", "x", "demo"]);
        assert!(matches!(demo, Command::Sidecar(_)));
        assert!(matches!(command_of(&["demo", "x"]), Command::Demo(rest) if rest == ["x"]));
    }

    fn command_of(args: &[&str]) -> Command {
        super::super::command(args.iter().map(|arg| (*arg).to_owned()).collect())
            .command
            .expect("a command")
    }

    /// The texts that daprd 1.18.1 prints.
    #[test]
    fn refusals() {
        let number =
            |function: &str| format!(": strconv.{function}: parsing \"x\": invalid syntax");
        for (args, text) in [
            (&["--nope"][..], "unknown flag: --nope".to_owned()),
            (&["--nope=1"], "unknown flag: --nope".to_owned()),
            (&["-nope", "--app-id"], "unknown flag: --nope".to_owned()),
            (&["--app-id"], "flag needs an argument: --app-id".to_owned()),
            (&["-a"], "unknown shorthand flag: 'a' in -a".to_owned()),
            (&["--=x"], "bad flag syntax: --=x".to_owned()),
            (&["-=x"], "bad flag syntax: --=x".to_owned()),
            (
                &["--app-max-concurrency", "x"],
                format!(
                    "invalid argument \"x\" for \"--app-max-concurrency\" flag{}",
                    number("ParseInt")
                ),
            ),
            (
                &["--enable-metrics=x"],
                format!(
                    "invalid argument \"x\" for \"--enable-metrics\" flag{}",
                    number("ParseBool")
                ),
            ),
            (
                &["--scheduler-job-streams", "x"],
                format!(
                    "invalid argument \"x\" for \"--scheduler-job-streams\" flag{}",
                    number("ParseUint")
                ),
            ),
            (
                &["--dapr-block-shutdown-duration", "5"],
                "invalid argument \"5\" for \"--dapr-block-shutdown-duration\" flag: \
                 time: missing unit in duration \"5\""
                    .to_owned(),
            ),
        ] {
            assert_eq!(refused(args), text, "{args:?}");
        }
    }

    #[test]
    fn help_and_deprecation() {
        assert!(matches!(run(&["--help"]).command, Ok(Command::Help)));
        assert!(matches!(run(&["-h"]).command, Ok(Command::Help)));
        assert!(matches!(run(&["-help"]).command, Ok(Command::Help)));
        let parsed = run(&["--app-ssl", "-components-path", "x", "--dapr-http-read-buffer-size=8"]);
        assert_eq!(
            parsed.warnings,
            [
                "Flag --app-ssl has been deprecated, use '--app-protocol https|grpcs'",
                "Flag --components-path has been deprecated, use --resources-path",
                "Flag --dapr-http-read-buffer-size has been deprecated, \
                 use '--read-buffer-size 4Ki'",
            ]
        );
    }

    #[test]
    fn names_what_it_ignores() {
        let flags = ok(&[
            "--placement-host-address=localhost:50005",
            "--scheduler-host-address=",
            "--enable-profiling=false",
            "--scheduler-job-streams=3",
        ]);
        assert_eq!(flags.ignored, ["placement-host-address", "scheduler-job-streams"]);
    }

    #[test]
    fn usage_shows_every_flag_that_is_not_deprecated() {
        let text = usage("daprd");
        assert!(text.starts_with("Usage of daprd:\n"));
        for flag in FLAGS.iter().filter(|flag| !flag.help.is_empty()) {
            assert!(text.contains(&format!("--{} ", flag.name)), "{}", flag.name);
        }
        assert!(text.contains("(default \"50001\")") && text.contains("(default true)"));
    }
}
