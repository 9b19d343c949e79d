//! `ringside demo`: everything that the main job needs, in one process and two sidecars.
//!
//! Its parts (a Greeter with its caller, a development certificate authority that speaks Sentry's
//! API) are there for tests as well.
//!
//! 1. Ports are free ones, every address is the loopback's, nothing of the user's Dapr is used.
//! 2. Whatever happens, the sidecars end and the folder goes.
//! 3. Each wait is bounded; a run takes well under 20 seconds.

pub mod authority;
pub mod caller;
pub mod folder;
pub mod greeter;
pub mod knock;
pub mod latency;
pub mod screen;
pub mod serve;
pub mod sidecar;
pub mod wire;

use crate::control::rpc::Status;
use authority::{Authority, Terms};
use caller::Caller;
use folder::Folder;
use greeter::Greeter;
use latency::{Latency, PERCENTILES};
use screen::Screen;
use sidecar::{Common, Ports, Sidecar, WITHOUT_ADMIN_SOCKET};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

pub const TRUST_DOMAIN: &str = "localhost";
pub const NAMESPACE: &str = "default";
const CLIENT: &str = "client";
const SERVER: &str = "server";
/// How long its certificates last; the demo itself is over in seconds.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The whole demo; what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(40);

/// The demo failed; the text says at what, with the sidecars' last words where they matter.
#[derive(Debug)]
pub struct DemoError(String);

/// How a demo ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Complete,
    /// By SIGINT or SIGTERM.
    Interrupted,
}

/// Runs the demo with sidecars of `program` and prints on `screen`.
pub fn run<W: Write>(program: PathBuf, screen: &mut Screen<W>) -> Result<Ended, DemoError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            told = tokio::time::timeout(LIMIT, tell(program, screen)) => match told {
                Ok(result) => result.map(|()| Ended::Complete),
                Err(_) => Err(DemoError::new(format!("the demo hung for {LIMIT:?}"))),
            },
            _ = interrupt.recv() => Ok(Ended::Interrupted),
            _ = terminate.recv() => Ok(Ended::Interrupted),
        }
    })
}

/// The whole story. Dropping it at any point cleans up.
async fn tell<W: Write>(program: PathBuf, screen: &mut Screen<W>) -> Result<(), DemoError> {
    let start = now();
    screen.title("ringside demo", "an app, its caller, two sidecars and mTLS between them")?;
    let folder = Folder::new()?;
    let app = App::start()?;
    let authority = Arc::new(Authority::new(TRUST_DOMAIN, NAMESPACE, LIFETIME)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let sentry = listener.local_addr()?;
    let served = Arc::clone(&authority);
    let story = async {
        let pair = Pair::start(program, sentry, &authority, &app, &folder, screen).await?;
        show_identities(&pair, &authority, screen).await?;
        let callers = Callers::connect(&pair, &app).await?;
        show_calls(&callers, &app, screen).await?;
        show_latency(&callers, &pair, screen).await?;
        drop(callers);
        pair.end().await
    };
    tokio::select! {
        result = story => result?,
        result = served.serve(listener) => {
            result?;
            return Err(DemoError::new("the certificate authority ended".to_owned()));
        }
    }
    let seconds = start.elapsed().as_secs_f32();
    screen.section("Done")?;
    screen.note(&format!("in {seconds:.1} s; both sidecars drained and ended, nothing is left"))?;
    Ok(())
}

/// The Greeter on a thread of its own, as an app is beside its sidecar.
struct App {
    greeter: Arc<Greeter>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl App {
    fn start() -> Result<Self, DemoError> {
        let greeter = Arc::new(Greeter::default());
        let served = Arc::clone(&greeter);
        let (tell, told) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let body = move || {
            runtime.block_on(async {
                let (address, server) = match served.bind().await {
                    Ok(bound) => bound,
                    Err(error) => return drop(tell.send(Err(error))),
                };
                drop(tell.send(Ok(address)));
                tokio::select! { () = server => {}, _ = stopped => {} }
            });
        };
        let thread = std::thread::Builder::new().name("demo-greeter".to_owned()).spawn(body)?;
        let address = told.recv().map_err(|error| DemoError::new(error.to_string()))??;
        Ok(Self { greeter, address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for App {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The two sidecars.
struct Pair {
    client: Sidecar,
    server: Sidecar,
}

impl Pair {
    async fn start<W: Write>(
        program: PathBuf,
        sentry: SocketAddr,
        authority: &Authority,
        app: &App,
        folder: &Folder,
        screen: &mut Screen<W>,
    ) -> Result<Self, DemoError> {
        let [for_client, for_server] = Ports::pick()?;
        let hosts = format!(
            "{CLIENT}: [\"127.0.0.1:{}\"]\n{SERVER}: [\"127.0.0.1:{}\"]\n",
            for_client.internal, for_server.internal
        );
        let hosts = folder.file("hosts.yaml", &hosts)?;
        let common = Common {
            launch: vec![program.into()],
            more: [OsString::from("--ringside-resolve-file"), hosts.into()]
                .into_iter()
                .chain(WITHOUT_ADMIN_SOCKET.map(OsString::from))
                .collect(),
            sentry,
            anchors: authority.anchors_pem(),
            resources: folder.folder("resources")?,
        };
        let start = now();
        let folder = folder.path();
        let mut server = Sidecar::start(SERVER, Some(app.address), for_server, &common, folder)?;
        let mut client = Sidecar::start(CLIENT, None, for_client, &common, folder)?;
        server.ready().await?;
        client.ready().await?;
        screen.section("Running")?;
        screen.line("Greeter", &format!("{}", app.address))?;
        screen.line("authority", &format!("{sentry}, with keys made for this demo"))?;
        for sidecar in [&client, &server] {
            let Ports { grpc, http, internal, .. } = sidecar.ports;
            let label = format!("{}'s sidecar", sidecar.app_id);
            let text = format!("gRPC {grpc}, HTTP {http}, internal {internal}");
            screen.line(&label, &format!("{text}, pid {}", sidecar.pid()))?;
        }
        let ms = start.elapsed().as_millis();
        screen.note(&format!("both ready {ms} ms after their start, identities included"))?;
        Ok(Self { client, server })
    }

    fn failed(&self, what: &str, status: &Status) -> DemoError {
        let (client, server) = (self.client.log_tail(), self.server.log_tail());
        DemoError::new(format!("{what}: {status}\nclient's sidecar:\n{client}server's:\n{server}"))
    }

    async fn end(self) -> Result<(), DemoError> {
        let (client, server) = tokio::join!(self.client.end(), self.server.end());
        client.and(server)
    }
}

/// Whom each internal port proves to be, and that a stranger is not let in.
async fn show_identities<W: Write>(
    pair: &Pair,
    authority: &Authority,
    screen: &mut Screen<W>,
) -> Result<(), DemoError> {
    screen.section("Identities, proved in a handshake on each internal port")?;
    let terms = Terms::lasting(LIFETIME);
    let visitor = authority.identity("spiffe://public/ns/default/visitor", &terms)?;
    for sidecar in [&pair.client, &pair.server] {
        let id = format!("spiffe://public/ns/{NAMESPACE}/{}", sidecar.app_id);
        let label = format!("{}'s sidecar", sidecar.app_id);
        match knock::knock(sidecar.internal(), &id, &visitor).await {
            Ok(tls) => screen.named(&label, &id, &tls)?,
            Err(cause) => {
                let tail = sidecar.log_tail();
                return Err(DemoError::new(format!("{label} did not prove {id}: {cause}\n{tail}")));
            }
        }
    }
    // The stranger believes us, and has a certificate for the right name; but of another root.
    let mut stranger = Authority::new(TRUST_DOMAIN, NAMESPACE, LIFETIME)?
        .identity("spiffe://public/ns/default/client", &terms)?;
    stranger.trust_anchors = Arc::clone(&visitor.trust_anchors);
    let id = format!("spiffe://public/ns/{NAMESPACE}/{SERVER}");
    match knock::knock(pair.server.internal(), &id, &stranger).await {
        Ok(_) => Err(DemoError::new("a stranger with a foreign root was let in".to_owned())),
        Err(cause) => Ok(screen.good("a foreign root", "refused", &format!("({cause})"))?),
    }
}

/// The same calls by both ways.
struct Callers {
    direct: Caller,
    through: Caller,
}

impl Callers {
    async fn connect(pair: &Pair, app: &App) -> Result<Self, DemoError> {
        let direct = Caller::connect(app.address, None).await;
        let through = Caller::connect(pair.client.grpc(), Some(SERVER)).await;
        Ok(Self {
            direct: direct.map_err(|status| DemoError::new(status.to_string()))?,
            through: through.map_err(|status| pair.failed("the client's sidecar", &status))?,
        })
    }
}

async fn show_calls<W: Write>(
    callers: &Callers,
    app: &App,
    screen: &mut Screen<W>,
) -> Result<(), DemoError> {
    screen.section("Calls: caller > client's sidecar > mTLS > server's sidecar > Greeter")?;
    let failed = |what: &str, status: Status| DemoError::new(format!("{what}: {status}"));
    let caller = &callers.through;
    let greeting = caller.unary("world").await.map_err(|status| failed("unary call", status))?;
    let seen = app.greeter.last_caller().unwrap_or_default();
    screen.good("unary", &greeting, &format!("(the app was told that its caller is {seen:?})"))?;
    let many = caller.server_stream("world").await.map_err(|s| failed("server stream", s))?;
    let ends = [many.first(), many.last()].map(|end| end.cloned().unwrap_or_default());
    screen.good("server stream", &ends.join(" ... "), &format!("({} messages)", many.len()))?;
    let names = ["Ada", "Grace", "Barbara"];
    let all = caller.client_stream(&names).await.map_err(|s| failed("client stream", s))?;
    screen.good("client stream", &all, &format!("({} messages)", names.len()))?;
    let each = caller.bidi_stream(&names).await.map_err(|s| failed("bidirectional stream", s))?;
    screen.good("bidirectional", &each.join(", "), "(each sent after the answer before it)")?;
    Ok(())
}

async fn show_latency<W: Write>(
    callers: &Callers,
    pair: &Pair,
    screen: &mut Screen<W>,
) -> Result<(), DemoError> {
    screen.section("Latency of unary calls of 100 octets, one after another, in µs")?;
    let measured = latency::compare(&callers.direct, &callers.through).await;
    let (direct, through) = measured.map_err(|status| pair.failed("measuring", &status))?;
    let head = PERCENTILES.map(|percentile| format!("p{percentile}"));
    screen.row("", &head, true)?;
    let micros = |latency: &Latency| {
        PERCENTILES.map(|percentile| format!("{:.0}", latency.at(percentile).as_secs_f64() * 1e6))
    };
    screen.row("direct", &micros(&direct), false)?;
    screen.row("two sidecars", &micros(&through), false)?;
    screen.note(&format!("{} calls each way, in alternation", through.calls()))?;
    if let (Some(client), Some(server)) = (pair.client.resident_kib(), pair.server.resident_kib()) {
        let mib = |kib: u64| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024);
        let (client, server) = (mib(client), mib(server));
        screen.note(&format!("memory afterwards: client's sidecar {client}, server's {server}"))?;
    }
    if cfg!(debug_assertions) {
        screen.note("a debug build: --release is several times faster")?;
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "the demo measures")]
fn now() -> Instant {
    Instant::now()
}

impl DemoError {
    fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DemoError {}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<authority::AuthorityError> for DemoError {
    fn from(error: authority::AuthorityError) -> Self {
        Self(error.to_string())
    }
}
