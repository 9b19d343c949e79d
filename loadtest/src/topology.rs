//! Starts the ways on which a call can reach an app, and ends them.
//!
//! 1. Every way has the same two hops on loopback, one process each: a call enters at
//!    [`Running::entry`], and the last hop talks plaintext HTTP/2 to the app (`direct` has no hop).
//! 2. Features are alike: TLS 1.3 both ways verified between the hops wherever the program speaks
//!    it, no access log, log level warn, metrics on where they exist, tracing sampled at zero.
//! 3. Whatever is started here ends with its [`Running`] or [`Ingredients`], and with this thread
//!    if that is killed.
//!
//! Refuses to know what is sent through it.

mod certificates;
mod dapr;
mod neighbours;
mod ports;
mod process;
mod programs;
mod proxies;
mod relays;

pub use dapr::Authority;
pub use neighbours::{Neighbour, Neighbours};
pub use process::{Process, http_get, raise_open_files, until};
pub use programs::{PROGRAMS, Program, Programs};

use certificates::Certificates;
use std::cell::OnceCell;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A way through two hops, or through none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The app itself.
    Direct,
    /// Two byte relays of our own: no TLS, no HTTP/2. The floor.
    Relay,
    /// Two HAProxies in TCP mode, no TLS: what holds the relay honest.
    HaproxyTcp,
    Ringside,
    /// The same, told to use epoll.
    RingsideEpoll,
    Daprd,
    Haproxy,
    Nginx,
    Envoy,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Direct,
        Self::Relay,
        Self::HaproxyTcp,
        Self::Ringside,
        Self::RingsideEpoll,
        Self::Daprd,
        Self::Haproxy,
        Self::Nginx,
        Self::Envoy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::HaproxyTcp => "haproxy-tcp",
            Self::Ringside => "ringside",
            Self::RingsideEpoll => "ringside-epoll",
            Self::Daprd => "daprd",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What it is in a sentence's part.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Direct => "client to app, no hop",
            Self::Relay => "two epoll byte relays, no TLS, no HTTP/2: the floor",
            Self::HaproxyTcp => {
                "two HAProxies in TCP mode, one thread, no TLS, buffers of 64 KiB as the relays'"
            }
            Self::Ringside => "two ringsides, mTLS by a real Sentry, a static table of names",
            Self::RingsideEpoll => "two ringsides as before, with `--ringside-io=epoll`",
            Self::Daprd => {
                "two daprds as scripts/peers builds them, from the module of 1.18.1 with few \
                 components and a resolver of ours compiled in: mTLS by a real Sentry, a static \
                 table of names"
            }
            Self::Haproxy => "two HAProxies, HTTP/2 and mTLS, one thread",
            Self::Nginx => "two nginxes, HTTP/2 and mTLS, one process each (`master_process off`)",
            Self::Envoy => "two Envoys, HTTP/2 and mTLS, concurrency 1",
        }
    }

    pub fn is_ringside(self) -> bool {
        matches!(self, Self::Ringside | Self::RingsideEpoll)
    }

    /// Sidecars, with apps that have names and identities that Sentry signs.
    pub fn is_dapr(self) -> bool {
        self.is_ringside() || self == Self::Daprd
    }

    /// The programs of which it is made.
    pub fn programs(self) -> &'static [Program] {
        match self {
            Self::Direct => &[],
            Self::Relay => &[Program::Loadtest],
            Self::HaproxyTcp | Self::Haproxy => &[Program::Haproxy],
            Self::Ringside | Self::RingsideEpoll => &[Program::Ringside],
            Self::Daprd => &[Program::Daprd],
            Self::Nginx => &[Program::Nginx],
            Self::Envoy => &[Program::Envoy],
        }
    }
}

/// What the two hops of a way speak with each other, where they speak HTTP/2 at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// TLS 1.3, both sides verified.
    Tls,
    Plain,
}

impl Between {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "mTLS",
            Self::Plain => "plaintext",
        }
    }
}

/// What topologies are made of: programs, a folder, one authority, one set of certificates.
pub struct Ingredients {
    pub programs: Programs,
    /// Further arguments of each ringside, `--ringside-workers` for example.
    pub ringside_args: Vec<String>,
    /// Holds configurations and logs. Made if it is missing, never deleted.
    folder: PathBuf,
    authority: OnceCell<Authority>,
    certificates: OnceCell<Certificates>,
    started: std::cell::Cell<u32>,
}

impl Ingredients {
    pub fn new(programs: Programs, folder: &Path) -> Self {
        Self {
            programs,
            ringside_args: Vec::new(),
            folder: folder.to_owned(),
            authority: OnceCell::new(),
            certificates: OnceCell::new(),
            started: std::cell::Cell::new(0),
        }
    }

    /// The authority of ringside and daprd, started when the first pair needs it.
    pub fn authority(&self) -> Result<&Authority, StartError> {
        if self.authority.get().is_none() {
            let _ = self.authority.set(Authority::sentry(self)?);
        }
        self.authority.get().ok_or_else(|| StartError::new("Sentry is not there after its start"))
    }

    /// Makes what is shared by all ways of `kind`, so that a start is only its own.
    pub fn prepare(&self, kind: Kind, between: Between) -> Result<(), StartError> {
        if between == Between::Plain {
            return Ok(());
        }
        match kind {
            Kind::Ringside | Kind::RingsideEpoll | Kind::Daprd => self.authority().map(drop),
            Kind::Haproxy | Kind::Nginx | Kind::Envoy => self.certificates().map(drop),
            Kind::Direct | Kind::Relay | Kind::HaproxyTcp => Ok(()),
        }
    }

    fn certificates(&self) -> Result<&Certificates, StartError> {
        if self.certificates.get().is_none() {
            let _ = self.certificates.set(Certificates::write(&self.folder.join("certificates"))?);
        }
        self.certificates.get().ok_or_else(|| StartError::new("the certificates are not there"))
    }

    /// A folder of its own for each thing started.
    fn folder(&self, name: &str) -> Result<PathBuf, StartError> {
        let number = self.started.get();
        self.started.set(number + 1);
        let folder = self.folder.join(format!("{number:03}-{name}"));
        std::fs::create_dir_all(&folder).map_err(|e| StartError::file(&folder, &e))?;
        Ok(folder)
    }
}

/// A way that is there; dropping it ends its processes.
#[derive(Debug)]
pub struct Running {
    pub kind: Kind,
    pub name: &'static str,
    /// Where the client dials: plaintext HTTP/2 with prior knowledge (bytes for the relays).
    pub entry: SocketAddr,
    /// Process numbers of the hops, the client's side first; none for `direct`.
    pub sidecars: Vec<u32>,
    /// What every call has to carry on this way.
    pub metadata: Vec<(String, Vec<u8>)>,
    /// Where sidecars of Dapr's kind tell their metrics, in the order of `sidecars`.
    pub metrics: Vec<SocketAddr>,
    hops: Vec<Hop>,
}

/// One process of a way, and how to know that it is ready.
#[derive(Debug)]
struct Hop {
    process: Process,
    ready: Ready,
}

#[derive(Clone, Copy, Debug)]
enum Ready {
    /// Something accepts there.
    Listens(SocketAddr),
    /// `GET /v1.0/healthz` says 204 there.
    Healthy(SocketAddr),
}

impl Running {
    fn new(kind: Kind, entry: SocketAddr, hops: Vec<Hop>) -> Self {
        let sidecars = hops.iter().map(|hop| hop.process.pid()).collect();
        let (metadata, metrics) = (Vec::new(), Vec::new());
        Self { kind, name: kind.name(), entry, sidecars, metadata, metrics, hops }
    }

    /// Waits until each hop is ready.
    pub fn await_ready(&mut self, patience: Duration) -> Result<(), StartError> {
        for hop in &mut self.hops {
            match hop.ready {
                Ready::Listens(at) => hop.process.await_port(at, patience)?,
                Ready::Healthy(at) => hop.process.await_health(at, patience)?,
            }
        }
        Ok(())
    }

    /// Fails with the end of its log when a hop is gone.
    pub fn check(&mut self) -> Result<(), StartError> {
        self.hops.iter_mut().try_for_each(|hop| hop.process.check())
    }
}

/// How long a hop may take to get ready.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Starts `kind` in front of `app`, by the name `app_id` where names exist, and waits for it.
pub fn start(
    kind: Kind,
    app: SocketAddr,
    app_id: &str,
    ingredients: &Ingredients,
) -> Result<Running, StartError> {
    let mut running = launch(kind, Between::Tls, app, app_id, ingredients)?;
    running.await_ready(PATIENCE)?;
    Ok(running)
}

/// Like [`start`], without waiting: for who measures the start. The hops start at once.
pub fn launch(
    kind: Kind,
    between: Between,
    app: SocketAddr,
    app_id: &str,
    ingredients: &Ingredients,
) -> Result<Running, StartError> {
    match kind {
        Kind::Direct => Ok(Running::new(kind, app, Vec::new())),
        Kind::Relay => relays::own(app, ingredients),
        Kind::HaproxyTcp => relays::haproxy(app, ingredients),
        Kind::Ringside | Kind::RingsideEpoll | Kind::Daprd => {
            dapr::pair(kind, between, app, app_id, ingredients)
        }
        Kind::Haproxy => proxies::haproxy(between, app, ingredients),
        Kind::Nginx => proxies::nginx(between, app, ingredients),
        Kind::Envoy => proxies::envoy(between, app, ingredients),
    }
}

/// The app under test, `loadtest serve`, as a process of its own, and where it listens.
pub fn app(ingredients: &Ingredients) -> Result<(Process, SocketAddr), StartError> {
    let mut command = ingredients.programs.command(Program::Loadtest)?;
    command.args(["serve", "--port", "0"]);
    let mut app = Process::spawn(&ingredients.folder("app")?, "app", command)?;
    let address = app.wait("address", PATIENCE, |app| app.log().lines().next()?.parse().ok())?;
    Ok((app, address))
}

/// A way that could not be started; a sentence or two, with the end of the program's log.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_kinds() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name()), Some(kind));
        }
        assert_eq!(Kind::named("istio"), None);
    }

    #[test]
    fn direct_is_the_app() {
        let app = SocketAddr::from(([127, 0, 0, 1], 50_051));
        let folder = std::env::temp_dir();
        let ingredients = Ingredients::new(Programs::default(), &folder);
        let running = start(Kind::Direct, app, "server", &ingredients).unwrap();
        assert_eq!((running.entry, running.sidecars.len()), (app, 0));
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let app = SocketAddr::from(([127, 0, 0, 1], 50_051));
        let ingredients = Ingredients::new(Programs::default(), &std::env::temp_dir());
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Direct) {
            let error = start(kind, app, "server", &ingredients).unwrap_err().to_string();
            assert!(error.contains("is missing"), "{error}");
        }
    }
}
