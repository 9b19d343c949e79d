//! Identities that are renewed while calls are in flight.

use crate::peer::app::{App, greet};
use crate::peer::process::{PATIENCE, Process};
use crate::peer::sidecar::Options;
use crate::peer::{Kind, Sentry, Sidecar, World};
use crate::sentry::{run, run_within};
use ringside::control::rpc::Status;
use ringside::demo::authority::{Authority, Terms};
use ringside::demo::caller::Caller;
use ringside::demo::greeter::Greeter;
use ringside::demo::serve::{Call, Service, serve};
use ringside::grpc::Code;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Certificates last so long, so a connection older than this has seen its own expire.
const LIFETIME_S: u32 = 4;
const RENEWALS: usize = 3;

const RENEWED: &str = "Successfully renewed workload identity";

fn renewals(sidecar: &Sidecar) -> usize {
    sidecar.process.log().matches(RENEWED).count()
}

/// The spec of a Sentry whose certificates are over soon.
fn short_lived() -> String {
    let times = format!("workloadCertTTL: {LIFETIME_S}s, allowedClockSkew: 0s");
    format!("mtls: {{enabled: true, {times}}}")
}

fn a_stream_outlives_its_certificates(client: Kind, server: Kind) {
    let name = format!("rotation-{}-{}", client.name(), server.name());
    let mut world = World::new(&name);
    world.sentry = Some(Sentry::start_with(&world.folder("sentry"), &short_lived()));
    world.reserve(&["client", "server", "latecomer"]);
    run(async {
        let (app, serving) = Arc::new(Greeter::default()).bind().await.unwrap();
        let story = async {
            let callee = Sidecar::callee(&world, server, "server", app.port());
            let caller = Sidecar::caller(&world, client, "client");
            let address = caller.address().parse().unwrap();
            let client_side = Caller::connect(address, Some("server")).await.unwrap();
            let (mut stream, greeting) = client_side.converse("0").await.unwrap();
            assert_eq!(greeting, "Hello 0");
            let mut said = 0;
            while renewals(&callee).min(renewals(&caller)) < RENEWALS {
                said += 1;
                let greeting = stream.say(&said.to_string()).await;
                assert_eq!(greeting.as_deref(), Ok(format!("Hello {said}").as_str()));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // A handshake now is judged by certificates of now, the callee's among them.
            let latecomer = Sidecar::caller(&world, client, "latecomer");
            let address = latecomer.address().parse().unwrap();
            let late_side = Caller::connect(address, Some("server")).await.unwrap();
            assert_eq!(late_side.unary("late").await.as_deref(), Ok("Hello late"));
            assert_eq!(client_side.unary("still").await.as_deref(), Ok("Hello still"));
            assert_eq!(stream.say("last").await.as_deref(), Ok("Hello last"));
            stream.end().await.unwrap();
        };
        tokio::select! { () = story => {}, () = serving => panic!("the app ended") }
    });
}

#[test]
fn between_ringsides() {
    a_stream_outlives_its_certificates(Kind::Ringside, Kind::Ringside);
}

#[test]
fn from_ringside_to_daprd() {
    a_stream_outlives_its_certificates(Kind::Ringside, Kind::Daprd);
}

#[test]
fn from_daprd_to_ringside() {
    a_stream_outlives_its_certificates(Kind::Daprd, Kind::Ringside);
}

/// Sentry dies and comes back: calls go on meanwhile, beyond the certificates' end, and renewals
/// go on afterwards. Both kinds wait for Sentry to be reachable; only ringside says so.
fn calls_outlive_sentry(client: Kind, server: Kind) {
    let name = format!("outage-{}-{}", client.name(), server.name());
    let mut world = World::new(&name);
    let folder = world.folder("sentry");
    world.sentry = Some(Sentry::start_with(&folder, &short_lived()));
    world.reserve(&["client", "server", "latecomer"]);
    run_within(3 * PATIENCE, async {
        let (app, serving) = Arc::new(Greeter::default()).bind().await.unwrap();
        let story = async {
            let callee = Sidecar::callee(&world, server, "server", app.port());
            let caller = Sidecar::caller(&world, client, "client");
            let address = caller.address().parse().unwrap();
            let client_side = Caller::connect(address, Some("server")).await.unwrap();
            let (mut stream, _) = client_side.converse("0").await.unwrap();
            let port = world.sentry.take().expect("a Sentry").port;
            let lost = Instant::now();
            let told = |sidecar: &Sidecar| sidecar.process.log().contains("Waiting for Sentry at ");
            let over = Duration::from_secs(u64::from(LIFETIME_S) + 1);
            while lost.elapsed() < over
                || (client == Kind::Ringside && !told(&caller))
                || (server == Kind::Ringside && !told(&callee))
            {
                assert_eq!(stream.say("there").await.as_deref(), Ok("Hello there"));
                assert_eq!(client_side.unary("there").await.as_deref(), Ok("Hello there"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let before = (renewals(&callee), renewals(&caller));
            world.sentry = Some(Sentry::start_at(&folder, &short_lived(), port));
            while renewals(&callee) == before.0 || renewals(&caller) == before.1 {
                assert_eq!(stream.say("still").await.as_deref(), Ok("Hello still"));
                assert_eq!(client_side.unary("still").await.as_deref(), Ok("Hello still"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let latecomer = Sidecar::caller(&world, client, "latecomer");
            let address = latecomer.address().parse().unwrap();
            let late_side = Caller::connect(address, Some("server")).await.unwrap();
            assert_eq!(late_side.unary("late").await.as_deref(), Ok("Hello late"));
            stream.end().await.unwrap();
        };
        tokio::select! { () = story => {}, () = serving => panic!("the app ended") }
    });
}

#[test]
fn ringsides_outlive_sentry() {
    calls_outlive_sentry(Kind::Ringside, Kind::Ringside);
}

#[test]
fn ringside_and_daprd_outlive_sentry() {
    calls_outlive_sentry(Kind::Ringside, Kind::Daprd);
}

/// A Sentry that is reachable and refuses while it is told to.
struct Moody {
    authority: Arc<Authority>,
    refuses: AtomicBool,
}

impl Service for Moody {
    async fn call(self: Arc<Self>, call: Call) {
        if self.refuses.load(Ordering::Relaxed) {
            return call.writer.end(Err(Status::new(Code::Internal, "not today")));
        }
        Arc::clone(&self.authority).call(call).await;
    }
}

impl Moody {
    /// Serves on a thread of its own for as long as the test runs.
    fn start(self: &Arc<Self>) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, service) = (listener.local_addr().unwrap(), Arc::clone(self));
        let id = "spiffe://localhost/ns/default/dapr-sentry";
        let own = self.authority.identity(id, &Terms::lasting(4 * PATIENCE)).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                serve(listener, Some(Authority::acceptor(&own).unwrap()), service).await;
            });
        });
        address
    }
}

/// A renewal that Sentry refuses is told in daprd's words and tried again 10 seconds later; calls
/// go on meanwhile.
#[test]
fn a_refused_renewal_is_tried_again() {
    let mut world = World::new("refused-renewal");
    world.reserve(&["server", "client"]);
    // Backdated, so due in the middle of what is left.
    let lifetime = Duration::from_secs(2 * u64::from(LIFETIME_S));
    let authority = Arc::new(Authority::new("localhost", "default", lifetime).unwrap());
    let moody = Arc::new(Moody { authority, refuses: AtomicBool::new(false) });
    let (sentry, anchors) = (moody.start().to_string(), moody.authority.anchors_pem());
    let app = App::greeter(&world);
    let options = Options {
        args: vec!["--enable-mtls", "--sentry-address", &sentry],
        env: vec![("DAPR_TRUST_ANCHORS", &anchors), ("NAMESPACE", "default")],
        ..Options::default()
    };
    let served = Options { app_port: Some(app.port), ..options.clone() };
    let _callee = Sidecar::start(&world, Kind::Ringside, "server", served);
    let mut caller = Sidecar::start(&world, Kind::Ringside, "client", options);
    let address = caller.address();
    let call = || {
        let said = greet(&world, &address, "server");
        assert!(said.contains("Greeting: Hello"), "{said}");
    };
    call();
    moody.refuses.store(true, Ordering::Relaxed);
    let text = "Error renewing identity, trying again in 10 seconds: error from sentry \
                SignCertificate: rpc error: code = Internal desc = not today";
    caller.process.wait_for_line(text);
    let told = |process: &Process| process.log().matches(RENEWED).count();
    let before = told(&caller.process);
    moody.refuses.store(false, Ordering::Relaxed);
    caller.process.wait("a renewal", |process| {
        call();
        (told(process) > before).then_some(())
    });
}
