//! One measurement from the first look at the service to the report.

use super::BenchError;
use super::data;
use super::options::{Daprd, Options};
use super::pairs::{Ground, Installed, Kind, Pair, find_daprd};
use super::report::{Conditions, DAPRD, RINGSIDE, Report};
use super::rounds::{self, Way, Work};
use super::schema::{self, Call, Method};
use crate::demo::authority::Authority;
use crate::demo::folder::Folder;
use crate::demo::{NAMESPACE, TRUST_DOMAIN};
use loadtest::account;
use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::{TcpListener, TcpStream};

/// How long the certificates last; no measurement takes longer.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long, and how much of all CPUs other programs may use without being told of.
const LOOK: Duration = Duration::from_millis(500);
const BUSY_SHARE: f64 = 0.1;

/// One line on stderr that is overwritten, if somebody looks.
#[derive(Debug)]
pub struct Progress(bool);

impl Progress {
    fn new() -> Self {
        Self(std::io::stderr().is_terminal())
    }

    pub fn say(&self, text: &str) {
        if self.0 {
            // Nobody needs it.
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.say("");
    }
}

/// Measures. Dropping it at any point cleans up.
pub async fn tell(options: &Options) -> Result<Report, BenchError> {
    let progress = Progress::new();
    let call = Call::parse(&options.call)?;
    let metadata = data::metadata(&options.metadata, options.metadata_file.as_deref())?;
    let text = data::text(&options.data)?;
    progress.say("looking at the service");
    let service = reach(&options.address).await?;
    let method = schema::method(&options.source, &call, service).await?;
    let messages = data::messages(&text, &method.input)?;
    let work = Work::new(options, &method, messages, metadata)?;
    let direct = Way::direct(service, options);
    rounds::trial(&work, &direct).await.map_err(|error| {
        BenchError::new(format!(
            "a call made directly fails, so there is nothing to measure: {error}"
        ))
    })?;

    let folder = Folder::named("bench")?;
    let authority = Arc::new(Authority::new(TRUST_DOMAIN, NAMESPACE, LIFETIME)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let ground = Ground {
        own: std::env::current_exe()?,
        sentry: listener.local_addr()?,
        anchors: authority.anchors_pem(),
        service,
        app: options.app.clone(),
    };
    let rest = measure(options, &method, &work, direct, &ground, &folder, &progress);
    tokio::select! {
        report = rest => report,
        served = authority.serve(listener) => {
            served?;
            Err(BenchError::new("the development certificate authority ended"))
        }
    }
}

/// Finds an address of the service that accepts; IPv4 first, as apps listen more often there.
async fn reach(address: &str) -> Result<SocketAddr, BenchError> {
    let failed = |cause: String| {
        BenchError::new(format!("no service at {address}: {cause}; start it, or check the address"))
    };
    if !address.contains(':') {
        return Err(failed("HOST:PORT is wanted".to_owned()));
    }
    let found = tokio::net::lookup_host(address).await;
    let found = found.map_err(|error| failed(error.to_string()))?;
    let mut places: Vec<SocketAddr> = found.collect();
    places.sort_by_key(SocketAddr::is_ipv6);
    let mut cause = "the name has no address".to_owned();
    for place in places {
        match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(place)).await {
            Ok(Ok(_)) => return Ok(place),
            Ok(Err(error)) => cause = error.to_string(),
            Err(_) => cause = format!("it does not accept within {CONNECT_LIMIT:?}"),
        }
    }
    Err(failed(cause))
}

async fn measure(
    options: &Options,
    method: &Method,
    work: &Work,
    direct: Way,
    ground: &Ground,
    folder: &Folder,
    progress: &Progress,
) -> Result<Report, BenchError> {
    let mut report = Report {
        name: options.name.clone(),
        conditions: conditions(options, method, work),
        notes: work.notes(),
        ..Report::default()
    };
    progress.say("starting two ringsides");
    let ringside = Pair::start(Kind::Ringside, ground, folder).await?;
    let way = Way::through(RINGSIDE, &ringside, options);
    if let Err(error) = rounds::trial(work, &way).await {
        let logs = ringside.log_tails();
        return Err(BenchError::new(format!(
            "a call through ringside's pair fails: {error}\n{logs}"
        )));
    }
    report.conditions.ringside_resolver = ringside.resolver.to_owned();
    let daprd = match start_daprd(options, work, ground, folder, progress).await {
        Ok(None) => None,
        Ok(Some((pair, installed))) => {
            report.conditions.daprd =
                format!("{} ({})", installed.version, installed.program.display());
            report.conditions.daprd_resolver = pair.resolver.to_owned();
            Some(pair)
        }
        Err(text) => {
            report.notes.push(format!("daprd was not measured: {text}"));
            None
        }
    };
    let mut ways = vec![direct];
    ways.extend(daprd.as_ref().map(|pair| Way::through(DAPRD, pair, options)));
    ways.push(way);
    progress.say("looking at what else runs");
    report.notes.extend(others(report.conditions.cpus).await?);
    rounds::run(work, &ways, options.rounds, &mut report, progress).await?;
    Ok(report)
}

/// daprd's pair, by the first resolver that works; the error is what is to be told.
async fn start_daprd(
    options: &Options,
    work: &Work,
    ground: &Ground,
    folder: &Folder,
    progress: &Progress,
) -> Result<Option<(Pair, Installed)>, String> {
    let (given, resolvers) = match &options.daprd {
        Daprd::Skip => return Ok(None),
        Daprd::Find(resolvers) => (None, resolvers),
        Daprd::At(path, resolvers) => (Some(path.as_path()), resolvers),
    };
    let installed = find_daprd(given)?;
    let mut failures = Vec::new();
    for resolver in resolvers {
        progress.say("starting two daprds");
        let kind = Kind::Daprd(&installed.program, *resolver);
        let started = Pair::start(kind, ground, folder).await;
        let pair = match started {
            Ok(pair) => pair,
            Err(error) => {
                failures.push(format!("with {}: {error}", resolver.component()));
                continue;
            }
        };
        match rounds::trial(work, &Way::through(DAPRD, &pair, options)).await {
            Ok(()) => return Ok(Some((pair, installed))),
            Err(error) => {
                let logs = pair.log_tails();
                failures
                    .push(format!("with {resolver:?} a call through it fails: {error}\n{logs}"));
            }
        }
    }
    Err(failures.join("\n"))
}

fn conditions(options: &Options, method: &Method, work: &Work) -> Conditions {
    let load = &options.load;
    let run = match load.total {
        Some(total) => format!("{total} calls"),
        None => format!("{:?}", load.duration),
    };
    Conditions {
        date: date(),
        machine: machine(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        ringside: crate::app::build().replace("ringside-", ""),
        service: options.address.clone(),
        call: method.path.trim_start_matches('/').to_owned(),
        kind: method.kind.name().to_owned(),
        request: work.request(),
        connections: load.connections,
        calls_in_flight: work.calls_in_flight(),
        rate: load.rate,
        rounds: options.rounds,
        run,
        ..Conditions::default()
    }
}

/// What the machine does while nothing of ours has anything to do, if that is much.
async fn others(cpus: usize) -> Result<Option<String>, BenchError> {
    let before = account::Machine::now()?;
    tokio::time::sleep(LOOK).await;
    let busy = account::Machine::now()?.since(&before).total_ns();
    let busy = busy as f64 / LOOK.as_nanos() as f64;
    Ok((busy > BUSY_SHARE * cpus as f64).then(|| {
        format!(
            "Before the load began, other programs kept {busy:.1} of {cpus} CPUs busy: end them, \
             or trust\nthe CPU per call only."
        )
    }))
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    match model {
        Some((_, name)) => name.trim().to_owned(),
        None => std::env::consts::ARCH.to_owned(),
    }
}

#[allow(clippy::disallowed_methods, reason = "a report says when it was made")]
fn date() -> String {
    OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .ok()
        .and_then(|now| now.format(&Rfc3339).ok())
        .unwrap_or_default()
}
