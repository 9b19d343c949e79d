//! Files that change while calls are served: what holds when, what is told, and who notices.

use crate::peer::bare::exchange;
use crate::peer::process::until;
use crate::peer::sidecar::{Options, http_get, unchunked};
use crate::peer::tagged::{
    self, App, Checker, End, Load, Wish, connect, message, open, runtime, unary,
};
use crate::peer::{Kind, Sidecar, World, workers};
use http::Request;
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::task::JoinSet;

const DENIED: &str = "7";
const REFUSED: &str = "what was in force stays in force";

/// A Configuration whose `accessControl` says this by default, and more.
fn by_default(action: &str, more: &str) -> String {
    format!("kind: Configuration\nspec:\n  accessControl: {{defaultAction: {action}}}\n{more}")
}

/// Another file under the same name.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("a file beside");
    fs::rename(&new, file).expect("the file in its place");
}

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// An app, and a sidecar that follows one more Configuration than the tests' own.
struct Subject {
    app: App,
    sidecar: Sidecar,
    /// Files that it refused so far.
    refused: usize,
}

impl Subject {
    fn start(world: &mut World, kind: Kind, file: &Path) -> Self {
        world.reserve(&["server"]);
        let app = App::start();
        let args = vec!["--config", plain(file)];
        let options = Options { app_port: Some(app.port), args, ..Options::default() };
        let sidecar = Sidecar::start(world, kind, "server", options);
        Self { app, sidecar, refused: 0 }
    }

    /// Of a call of the app to itself, on a connection of its own.
    fn status(&self) -> String {
        status(self.sidecar.ports.grpc, "/tagged/Echo")
    }

    /// Waits until calls end so.
    fn becomes(&mut self, status: &str, after: &str) {
        let found = until(|| (self.status() == status).then_some(()));
        assert!(found.is_some(), "no {status} after {after}\n{}", self.sidecar.process.tail());
    }

    /// Waits for one more error, and sees that nothing else changed.
    fn refuses(&mut self, status: &str, error: &str) {
        let before = self.refused;
        let line = self.sidecar.process.wait(error, |process| {
            let log = process.log();
            log.lines().filter(|line| line.contains(REFUSED)).nth(before).map(str::to_owned)
        });
        assert!(line.contains("level=error") && line.contains(error), "{error}: {line}");
        assert_eq!(self.status(), status, "after {error}");
        self.refused += 1;
    }

    fn figure(&self, series: &str) -> u64 {
        figure(&self.sidecar, series)
    }

    fn metadata(&self) -> serde_json::Value {
        let answer = http_get(self.sidecar.ports.http, "/v1.0/metadata").expect("metadata");
        serde_json::from_str(&unchunked(&answer)).expect("JSON")
    }
}

fn figure(sidecar: &Sidecar, series: &str) -> u64 {
    let text = unchunked(&http_get(sidecar.ports.metrics, "/metrics").expect("metrics"));
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}")).parse().expect("a whole number")
}

/// How a call to `server` by this port ends.
fn status(port: u16, path: &str) -> String {
    static TAG: AtomicU64 = AtomicU64::new(1 << 56);
    let tag = TAG.fetch_add(1, Ordering::Relaxed);
    let request = Request::post(format!("http://server{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("dapr-app-id", "server")
        .header("x-tag", tag)
        .body(());
    let answer = exchange(port, request.expect("a request"), &message(tag, 0, 16));
    answer.expect("an answer").last("grpc-status").to_owned()
}

/// Streams that talk until they are told to stop.
struct Streams {
    stop: Arc<AtomicBool>,
    echoed: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<Result<End, h2::Error>>>,
}

impl Streams {
    fn start(port: u16, count: u64) -> Self {
        let (stop, echoed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&echoed));
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut all = JoinSet::new();
                for tag in 0..count {
                    all.spawn(talk(port, (1 << 40) + tag, Arc::clone(&told), Arc::clone(&counted)));
                }
                all.join_all().await
            })
        });
        Self { stop, echoed, thread }
    }

    /// So many messages more come back.
    fn wait_for(&self, messages: usize) {
        let goal = self.echoed.load(Ordering::Relaxed) + messages;
        let came = until(|| (self.echoed.load(Ordering::Relaxed) >= goal).then_some(()));
        assert!(came.is_some(), "the streams stand still");
    }

    fn stop(self) -> Vec<Result<End, h2::Error>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("streams that end")
    }
}

/// One stream: a message, its echo, and again.
async fn talk(
    port: u16,
    tag: u64,
    stop: Arc<AtomicBool>,
    echoed: Arc<AtomicUsize>,
) -> Result<End, h2::Error> {
    let client = connect(port).await.expect("a connection");
    let (response, mut out) = open(&client, "server", tag, Wish::default()).await?;
    tagged::send(&mut out, message(tag, 0, 100)).await?;
    let (_, mut body) = response.await?.into_parts();
    let mut checker = Checker::new(tag);
    for count in 1.. {
        while checker.messages < count {
            let Some(data) = body.data().await else { panic!("stream {tag} ends by itself") };
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            checker.feed(&data).expect("its own octets");
        }
        echoed.fetch_add(1, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        tagged::send(&mut out, message(tag, count, 100)).await?;
    }
    out.send_data(bytes::Bytes::new(), true)?;
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let trailers = body.trailers().await?.expect("trailers");
    Ok(tagged::status(&trailers).expect("a status"))
}

/// Calls and streams of two sidecars flow while a policy changes: the new rule holds for calls on
/// old connections, and nobody else notices.
#[test]
fn a_new_rule_holds_and_nobody_notices() {
    const FORBIDDEN: &str = "/other.Svc/M";
    let list = |operations: &str| {
        let policy =
            "{appId: client, namespace: default, trustDomain: public, defaultAction: allow";
        let policies = format!("[{policy}, operations: [{operations}]}}]");
        by_default("deny", "").replace("}", &format!(", policies: {policies}}}"))
    };
    let mut world = World::with_sentry("reload-rule");
    let file = world.folder("conf").join("acl.yaml");
    fs::write(&file, list("")).expect("a Configuration");
    world.reserve(&["client"]);
    let Subject { app, mut sidecar, .. } = Subject::start(&mut world, Kind::Ringside, &file);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let port = caller.ports.grpc;
    let load = Load::start(port, "server", 8, 1);
    let streams = Streams::start(port, 10);
    load.wait_for(200);
    streams.wait_for(200);
    let connections = || {
        let ours = figure(&sidecar, "ringside_downstream_connections");
        (ours, app.book.connections.load(Ordering::Relaxed))
    };
    let before = connections();
    for (rules, expected) in [("{name: /other.Svc/*, action: deny}", DENIED), ("", "0")] {
        replace(&file, &list(rules));
        let changed = until(|| (status(port, FORBIDDEN) == expected).then_some(()));
        assert!(changed.is_some(), "{}", sidecar.process.tail());
        load.wait_for(100);
        streams.wait_for(100);
    }
    let ends = streams.stop();
    let outcomes = load.stop();
    assert_eq!(connections(), before, "connections were made anew");
    assert!(ends.iter().all(|end| matches!(end, Ok(End::Ok))), "{ends:?}");
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.end != End::Ok).collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), outcomes.len(), failed[0]);
    assert!(app.book.broken().is_empty(), "{:?}", app.book.broken());
    let log = sidecar.process.log();
    let told = "reloaded: spec.accessControl changed, and in force now";
    assert_eq!(log.matches(told).count(), 2, "{log}");
    assert_eq!(figure(&sidecar, "ringside_config_reloads_total"), 2);
    assert_eq!(sidecar.process.terminate().code(), Some(0));
}

/// As a ConfigMap is mounted: the folder of a version behind two links.
fn mount(folder: &Path, version: &str, file: &str, text: &str) {
    let version = format!("..{version}");
    fs::create_dir(folder.join(&version)).expect("a version");
    fs::write(folder.join(&version).join(file), text).expect("a file of the version");
    symlink(&version, folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("the new version");
}

/// Whoever writes it in whatever way.
#[test]
fn follows_a_file_however_it_is_written() {
    let mut world = World::new("reload-written");
    let folder = world.folder("conf");
    let file = folder.join("acl.yaml");
    mount(&folder, "1", "acl.yaml", &by_default("allow", ""));
    symlink("..data/acl.yaml", &file).expect("a link");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    assert_eq!(subject.status(), "0");
    assert_eq!(subject.metadata()["extended"].as_object().expect("a map").len(), 1);

    mount(&folder, "2", "acl.yaml", &by_default("deny", ""));
    fs::remove_dir_all(folder.join("..1")).expect("the old version is gone");
    subject.becomes(DENIED, "a new version of a ConfigMap");
    let since = subject.metadata()["extended"]["ringsideConfigurationSince"].clone();
    assert!(since.as_str().is_some_and(|since| since.ends_with('Z')), "{since}");

    replace(&file, &by_default("allow", ""));
    subject.becomes("0", "a rename over it");
    fs::write(&file, by_default("deny", "")).expect("the file in place");
    subject.becomes(DENIED, "a write in place");

    // In two goes, with a pause longer than anybody waits.
    let text = by_default("allow", "  api: {allowed: [], denied: []}\n");
    let (half, rest) = text.split_at(text.find("[], denied").expect("there") + 1);
    fs::write(&file, half).expect("a half");
    subject.refuses(DENIED, "acl.yaml: yaml: ");
    let mut open = fs::OpenOptions::new().append(true).open(&file).expect("the file");
    open.write_all(rest.as_bytes()).expect("the rest");
    subject.becomes("0", "the rest of it");
    assert_eq!(subject.figure("ringside_config_reload_failures_total"), 1);
    assert_eq!(subject.figure("ringside_config_last_reload_successful"), 1);
    assert!(subject.app.book.broken().is_empty());
}

/// What cannot be, at a reload: an error each, told once, and the old rule stays.
#[test]
fn refuses_what_cannot_be_and_keeps_what_was() {
    let mut world = World::new("reload-refused");
    let file = world.folder("conf").join("acl.yaml");
    fs::write(&file, by_default("deny", "")).expect("a Configuration");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    assert_eq!(subject.status(), DENIED);
    for (hostile, error) in hostile() {
        let _ = fs::remove_file(&file);
        hostile.put(&file);
        subject.refuses(DENIED, error);
        let _ = fs::remove_dir(&file);
    }
    for (text, error) in [
        ("# nothing\n", "holds nothing any more"),
        ("spec: {accessControl: {policies: [{appId: b}]}}", "missing trustdomain for apps: [b]"),
        ("spec:\n  httpPipeline: {handlers: [{name: a, type: b}]}\n", "spec.httpPipeline.handlers"),
        ("spec:\n  accessControl: allow\n", "line 2"),
    ] {
        replace(&file, text);
        subject.refuses(DENIED, error);
    }
    fs::remove_file(&file).expect("the file");
    subject.refuses(DENIED, "acl.yaml: no such file or directory");
    assert_eq!(subject.figure("ringside_config_last_reload_successful"), 0);
    let extended = subject.metadata()["extended"].clone();
    assert!(extended["ringsideConfigurationRefused"].is_string(), "{extended}");

    // What others change in the meantime does not tell it again.
    let reloads = subject.figure("ringside_config_reloads_total");
    fs::write(world.folder("resources").join("r.yaml"), within("rz", PATIENT)).expect("a resource");
    let more = || (subject.figure("ringside_config_reloads_total") > reloads).then_some(());
    assert!(until(more).is_some(), "{}", subject.sidecar.process.tail());
    assert_eq!(subject.figure("ringside_config_last_reload_successful"), 0);

    replace(&file, &by_default("deny", ""));
    let good = || (subject.figure("ringside_config_last_reload_successful") == 1).then_some(());
    assert!(until(good).is_some(), "{}", subject.sidecar.process.tail());
    let refused = subject.refused;
    assert_eq!(subject.figure("ringside_config_reload_failures_total"), refused as u64);
    let told = subject.sidecar.process.log().matches(REFUSED).count();
    assert_eq!(told, refused, "each is told once");
    replace(&file, &by_default("allow", ""));
    subject.becomes("0", "a good one");
    assert_eq!(subject.metadata()["extended"]["ringsideConfigurationRefused"].as_str(), None);
}

/// What stands under a Configuration's name.
enum Hostile {
    Text(String),
    Folder,
    Fifo,
    Loop,
}

impl Hostile {
    fn put(&self, file: &Path) {
        match self {
            Self::Text(text) => fs::write(file, text).expect("a file"),
            Self::Folder => fs::create_dir(file).expect("a folder"),
            Self::Fifo => {
                use rustix::fs::{CWD, FileType, mknodat};
                mknodat(CWD, file, FileType::Fifo, 0o600.into(), 0).expect("a pipe");
            }
            Self::Loop => symlink(file, file).expect("a link to itself"),
        }
    }
}

/// Each with what is said of it.
fn hostile() -> Vec<(Hostile, &'static str)> {
    let list = |of: &str| format!("[{}]", [of; 10].join(","));
    let mut bomb = format!("a0: &a0 {}\n", list("x"));
    for depth in 1..12 {
        bomb += &format!("a{depth}: &a{depth} {}\n", list(&format!("*a{}", depth - 1)));
    }
    bomb += "spec: {accessControl: {policies: *a11}}\n";
    let ladder: String =
        (0..20_000).map(|depth| format!("{}a:\n", " ".repeat(depth % 90))).collect();
    let deep = format!("spec: {{accessControl: {}", "[".repeat(20_000));
    let large = format!("{}#{}", by_default("allow", ""), "x".repeat(10 << 20));
    vec![
        (Hostile::Text(large), "acl.yaml: larger than 4194304 octets"),
        (Hostile::Text(bomb), "acl.yaml: yaml: alias"),
        (Hostile::Text(deep), "acl.yaml: yaml: "),
        (Hostile::Text(ladder), "acl.yaml: yaml: "),
        (Hostile::Text("spec: {accessControl: \u{0}}".to_owned()), "acl.yaml: yaml: "),
        (Hostile::Folder, "acl.yaml: is a directory"),
        (Hostile::Fifo, "acl.yaml: not a file"),
        (Hostile::Loop, "acl.yaml: too many levels of symbolic links"),
    ]
}

/// The same at the start: it ends, says why, and opens nothing.
#[test]
fn a_start_ends_with_what_cannot_be() {
    let mut world = World::new("reload-start");
    world.reserve(&["server"]);
    let file = world.folder("conf").join("acl.yaml");
    for (hostile, error) in hostile() {
        hostile.put(&file);
        let args = vec!["--config", plain(&file)];
        let options = Options { args, await_api: false, ..Options::default() };
        let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options);
        assert_eq!(sidecar.process.wait_for_end().code(), Some(1), "{error}");
        let log = sidecar.process.log();
        let told = "level=fatal msg=\"Fatal error from runtime: error loading configuration: ";
        assert!(log.contains(told) && log.contains(error), "{error}: {log}");
        assert!(!log.contains("server listening"), "{log}");
        let _ = fs::remove_file(&file);
        let _ = fs::remove_dir(&file);
    }
}

/// Both take the first document, a null too, and look at no other.
#[test]
fn a_null_is_a_first_document_for_both() {
    for kind in [Kind::Daprd, Kind::Ringside] {
        let mut world = World::new(&format!("reload-null-{}", kind.name()));
        let file = world.folder("conf").join("acl.yaml");
        fs::write(&file, format!("---\n---\n{}", by_default("deny", ""))).expect("a Configuration");
        let mut subject = Subject::start(&mut world, kind, &file);
        assert_eq!(subject.status(), "0", "{}", kind.name());
        assert_eq!(subject.sidecar.process.terminate().code(), Some(0));
    }
}

const RUNNING: &str = "dapr initialized. Status: Running";

fn starts(subject: &Subject) -> usize {
    subject.sidecar.process.log().matches(RUNNING).count()
}

/// SIGHUP takes over what it can; what holds for a whole run needs a restart, which only SIGHUP
/// brings.
#[test]
fn sighup_restarts_where_it_must() {
    let mut world = World::new("reload-sighup");
    let file = world.folder("conf").join("acl.yaml");
    fs::write(&file, by_default("allow", "")).expect("a Configuration");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    let streams = Streams::start(subject.sidecar.ports.grpc, 2);
    streams.wait_for(10);
    subject.sidecar.process.signal(Signal::HUP);
    subject.sidecar.process.wait_for_line("nothing has changed that would need a restart");

    let traced = "  tracing: {samplingRate: '1'}\n";
    replace(&file, &by_default("deny", traced));
    subject.becomes(DENIED, "a change of two fields");
    let line = subject.sidecar.process.wait_for_line("spec.tracing changed, which holds from the");
    assert!(line.contains("level=warning") && line.contains(plain(&file)), "{line}");
    assert_eq!(subject.figure("ringside_config_restart_pending"), 1);
    assert_eq!(subject.metadata()["extended"]["ringsideRestartPending"], "true");
    replace(&file, "spec: [");
    subject.refuses(DENIED, "acl.yaml: yaml: ");
    subject.sidecar.process.signal(Signal::HUP);
    subject.refuses(DENIED, "acl.yaml: yaml: ");
    streams.wait_for(10);
    assert_eq!(starts(&subject), 1, "a bad file ends nothing");
    assert!(streams.stop().iter().all(|end| matches!(end, Ok(End::Ok))));

    replace(&file, &by_default("deny", traced));
    subject.sidecar.process.signal(Signal::HUP);
    subject.sidecar.process.wait("a second start", |process| {
        (process.log().matches(RUNNING).count() == 2).then_some(())
    });
    let log = subject.sidecar.process.log();
    assert!(log.contains("Received signal 'hangup'; restarting"), "{log}");
    assert_eq!(subject.figure("ringside_config_restart_pending"), 0);
    assert_eq!(subject.status(), DENIED);
    assert_eq!(subject.sidecar.process.terminate().code(), Some(0));
}

/// Without the feature nobody looks; SIGHUP reads all the same, and may turn it on.
#[test]
fn without_hot_reload_sighup_is_waited_for() {
    let mut world = World::new("reload-off");
    let file = world.folder("conf").join("acl.yaml");
    let off = "  features: [{name: HotReload, enabled: false}]\n";
    fs::write(&file, by_default("allow", off)).expect("a Configuration");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    assert!(!subject.sidecar.process.log().contains("Hot reloading enabled"));
    replace(&file, &by_default("deny", off));
    subject.sidecar.process.signal(Signal::HUP);
    subject.becomes(DENIED, "SIGHUP");
    assert_eq!(subject.figure("ringside_config_reloads_total"), 1, "nobody looked before");
    replace(&file, &by_default("deny", ""));
    subject.sidecar.process.signal(Signal::HUP);
    subject.sidecar.process.wait_for_line("reloaded: spec.features changed");
    let features = subject.metadata()["enabledFeatures"].clone();
    assert!(features.to_string().contains("HotReload"), "{features}");
    replace(&file, &by_default("allow", ""));
    subject.becomes("0", "a change that is looked for again");
    assert_eq!(starts(&subject), 1);
}

/// daprd follows files of its resources folders, and restarts for each; ringside takes them over.
#[test]
fn the_same_edit_beside_daprd() {
    for kind in [Kind::Daprd, Kind::Ringside] {
        let mut world = World::new(&format!("reload-both-{}", kind.name()));
        let file = world.folder("resources").join("acl.yaml");
        let text = |action| {
            let head = "apiVersion: dapr.io/v1alpha1\nmetadata: {name: acl}\n";
            format!("{head}{}", by_default(action, ""))
        };
        fs::write(&file, text("allow")).expect("a Configuration");
        let mut subject = Subject::start(&mut world, kind, &file);
        assert_eq!(subject.status(), "0");
        fs::write(&file, text("deny")).expect("a Configuration");
        let restarted = "Received signal 'hangup'; restarting";
        if kind == Kind::Daprd {
            subject.sidecar.process.wait_for_line("triggering SIGHUP reload");
            subject.sidecar.process.wait_for_line(restarted);
            subject.sidecar.process.wait("a second start", |process| {
                (process.log().matches(RUNNING).count() == 2).then_some(())
            });
        }
        subject.becomes(DENIED, "an edit");
        let log = subject.sidecar.process.log();
        assert_eq!(log.contains(restarted), kind == Kind::Daprd, "{log}");
    }
}

/// A Resiliency resource: calls to `server` may take so long.
fn within(name: &str, timeout: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {{name: {name}}}\nspec:\n  \
         policies: {{timeouts: {{t: {timeout}}}}}\n  targets: {{apps: {{server: {{timeout: t}}}}}}\n"
    )
}

const AT_ONCE: &str = "1ms";
const PATIENT: &str = "10m";
const DEADLINE_EXCEEDED: &str = "4";

/// How a call to `server` ends that the app thinks about, for much longer than [`AT_ONCE`].
fn thought_about(port: u16) -> String {
    static TAG: AtomicU64 = AtomicU64::new(1 << 57);
    let tag = TAG.fetch_add(1, Ordering::Relaxed);
    let call =
        async { unary(&connect(port).await.expect("a connection"), "server", tag, 400).await };
    match runtime().block_on(call) {
        End::Ok => "0".to_owned(),
        End::Status(status, _) => status.to_string(),
        End::Lost(why) => why,
    }
}

fn becomes(caller: &mut Sidecar, status: &str, after: &str) {
    let port = caller.ports.grpc;
    let found = until(|| (thought_about(port) == status).then_some(()));
    assert!(found.is_some(), "no {status} after {after}\n{}", caller.process.tail());
}

fn resiliencies(sidecar: &Sidecar) -> serde_json::Value {
    let answer = http_get(sidecar.ports.http, "/v1.0/metadata").expect("metadata");
    let metadata: serde_json::Value = serde_json::from_str(&unchunked(&answer)).expect("JSON");
    metadata["resiliencies"].clone()
}

/// Resources come, change, turn wrong, and go: file by file, while streams go on under what they
/// began with.
#[test]
fn follows_resiliency_file_by_file() {
    let mut world = World::new("reload-resiliency");
    world.reserve(&["server", "client"]);
    let folder = world.folder("resources");
    let app = App::start();
    let _callee = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
    let mut caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let port = caller.ports.grpc;
    let streams = Streams::start(port, 4);
    streams.wait_for(20);
    assert_eq!(thought_about(port), "0");
    assert!(resiliencies(&caller).is_null());

    let file = folder.join("r.yaml");
    replace(&file, &within("rz", AT_ONCE));
    becomes(&mut caller, DEADLINE_EXCEEDED, "a new resource");
    assert_eq!(resiliencies(&caller)[0]["name"], "rz");
    streams.wait_for(20);

    for (wrong, error) in [
        ("kind: Resiliency\nspec: [\n".to_owned(), "error converting YAML to JSON: yaml: "),
        (within("rz", "soon"), "Could not read resiliency policy rz: invalid duration"),
        (String::new(), "Could not read resiliency file r.yaml: it holds nothing any more"),
    ] {
        replace(&file, &wrong);
        let line = caller.process.wait_for_line(error);
        assert!(line.contains("level=error") && line.contains(plain(&file)), "{line}");
        assert!(line.contains("what it said before stays in force"), "{line}");
        assert_eq!(thought_about(port), DEADLINE_EXCEEDED, "{error}");
        assert_eq!(figure(&caller, "ringside_config_last_reload_successful"), 0);
    }
    replace(&file, &within("rz", PATIENT));
    becomes(&mut caller, "0", "a longer time");
    assert_eq!(figure(&caller, "ringside_config_last_reload_successful"), 1);
    assert_eq!(figure(&caller, "ringside_config_reload_failures_total"), 3);

    // Later files lie over earlier ones, and only those that are for us.
    let others = format!("{}scopes: [other]\n", within("others", AT_ONCE));
    replace(&folder.join("s.yaml"), &others);
    let ours = format!("{}scopes: [client]\n", within("ours", AT_ONCE));
    replace(&folder.join("t.yaml"), &ours);
    becomes(&mut caller, DEADLINE_EXCEEDED, "a resource that lies over the other");
    let names = resiliencies(&caller);
    assert_eq!((&names[0]["name"], &names[1]["name"]), (&"rz".into(), &"ours".into()));
    fs::remove_file(folder.join("t.yaml")).expect("a file");
    becomes(&mut caller, "0", "its end");
    replace(&file, &within("rz", AT_ONCE));
    becomes(&mut caller, DEADLINE_EXCEEDED, "a short time");
    fs::remove_file(&file).expect("a file");
    becomes(&mut caller, "0", "the end of all");
    assert!(resiliencies(&caller).is_null());
    mount(&folder, "1", "r.yaml", &within("rz", AT_ONCE));
    symlink("..data/r.yaml", &file).expect("a link");
    becomes(&mut caller, DEADLINE_EXCEEDED, "a folder that is a ConfigMap");
    mount(&folder, "2", "r.yaml", &within("rz", PATIENT));
    becomes(&mut caller, "0", "its new version");

    streams.wait_for(20);
    let ends = streams.stop();
    assert!(ends.iter().all(|end| matches!(end, Ok(End::Ok))), "{ends:?}");
    assert_eq!(caller.process.log().matches(RUNNING).count(), 1);
}

/// Files that cannot be, beside one that is right: each is left out with an ERROR, at the start and
/// later, and nobody is held up.
#[test]
fn resiliency_files_that_cannot_be_are_left_out() {
    let mut world = World::new("reload-resources");
    world.reserve(&["server", "client"]);
    let folder = world.folder("resources");
    fs::write(folder.join("right.yaml"), within("right", AT_ONCE)).expect("a resource");
    let nested = "(".repeat(20_000);
    let nested = format!(
        "kind: Resiliency\nmetadata: {{name: nested}}\nspec:\n  policies:\n    circuitBreakers: \
         {{b: {{trip: \"{nested}\"}}}}\n"
    );
    let mut all = hostile();
    all.push((Hostile::Text(nested), "Could not read resiliency policy nested: "));
    // A folder is none of the folder's files.
    all.retain(|(hostile, _)| !matches!(hostile, Hostile::Folder));
    let put = || {
        for (number, (hostile, _)) in all.iter().enumerate() {
            hostile.put(&folder.join(format!("h{number}.yaml")));
        }
    };
    let wrong = |log: &str| {
        let lines = log.lines().filter(|line| line.contains("level=error"));
        let told = ["resource type: error", "Could not read resiliency"];
        lines.filter(|line| told.iter().any(|told| line.contains(told))).count()
    };
    put();
    let app = App::start();
    let mut callee = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    assert_eq!(wrong(&caller.process.log()), all.len(), "{}", caller.process.log());
    assert_eq!(thought_about(caller.ports.grpc), DEADLINE_EXCEEDED);
    assert_eq!(figure(&caller, "ringside_config_last_reload_successful"), 0);
    assert_eq!(callee.process.terminate().code(), Some(0));
    drop(caller);

    for number in 0..all.len() {
        fs::remove_file(folder.join(format!("h{number}.yaml"))).expect("a file");
    }
    let _callee = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
    let mut caller = Sidecar::caller(&world, Kind::Ringside, "client");
    assert_eq!(figure(&caller, "ringside_config_last_reload_successful"), 1);
    put();
    let expected = all.len();
    caller
        .process
        .wait("an error for each", |process| (wrong(&process.log()) == expected).then_some(()));
    assert_eq!(thought_about(caller.ports.grpc), DEADLINE_EXCEEDED);
    replace(&folder.join("right.yaml"), &within("right", PATIENT));
    becomes(&mut caller, "0", "a change beside them");
    assert_eq!(wrong(&caller.process.log()), expected, "each is told once");
}

/// daprd restarts for it; ringside does not.
#[test]
fn the_same_resiliency_beside_daprd() {
    for kind in [Kind::Daprd, Kind::Ringside] {
        let mut world = World::new(&format!("reload-resiliency-{}", kind.name()));
        world.reserve(&["server", "client"]);
        let app = App::start();
        let _callee = Sidecar::callee(&world, Kind::Ringside, "server", app.port);
        let file = world.folder("resources").join("r.yaml");
        fs::write(&file, within("rz", PATIENT)).expect("a resource");
        let mut caller = Sidecar::caller(&world, kind, "client");
        assert_eq!(thought_about(caller.ports.grpc), "0");
        fs::write(&file, within("rz", AT_ONCE)).expect("a resource");
        if kind == Kind::Daprd {
            caller.process.wait("a second start", |process| {
                (process.log().matches(RUNNING).count() == 2).then_some(())
            });
        }
        becomes(&mut caller, DEADLINE_EXCEEDED, "an edit");
        let starts = caller.process.log().matches(RUNNING).count();
        assert_eq!(starts, if kind == Kind::Daprd { 2 } else { 1 });
    }
}

/// Something in a resources folder that never rests holds up no change of access control.
#[test]
fn a_restless_neighbour_holds_nobody_up() {
    let mut world = World::new("reload-restless");
    let file = world.folder("conf").join("acl.yaml");
    fs::write(&file, by_default("allow", "")).expect("a Configuration");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    let busy = world.folder("resources").join("busy.yaml");
    let over = Arc::new(AtomicBool::new(false));
    let writer = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            for n in 0_u64.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                fs::write(&busy, format!("kind: Component\nmetadata: {{name: c{n}}}\n"))
                    .expect("it");
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    replace(&file, &by_default("deny", ""));
    subject.becomes(DENIED, "a change beside a restless file");
    let line = subject.sidecar.process.wait_for_line("something changes there all the time");
    assert!(line.contains("level=warning") && line.contains("resources"), "{line}");
    subject.sidecar.process.signal(Signal::HUP);
    replace(&file, &by_default("allow", ""));
    subject.becomes("0", "SIGHUP beside a restless file");
    over.store(true, Ordering::Relaxed);
    writer.join().expect("a writer");
}

/// A process that has no descriptor left can read nothing: nobody's policies change by that, and
/// what was written meanwhile holds once it can.
#[test]
fn no_descriptors_lose_no_policy() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let mut world = World::new("reload-descriptors");
    let file = world.folder("conf").join("acl.yaml");
    fs::write(&file, by_default("deny", "")).expect("a Configuration");
    fs::write(world.folder("resources").join("r.yaml"), within("rz", PATIENT)).expect("a resource");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    let pid = i32::try_from(subject.sidecar.process.pid()).ok().and_then(Pid::from_raw);
    let limit = |current| {
        let limit = Rlimit { current: Some(current), maximum: Some(4096) };
        prlimit(pid, Resource::Nofile, limit).expect("a limit");
    };
    // Each worker raises the limit as it starts, which is after the API is there.
    for worker in 0..workers().unwrap_or(1) {
        subject.sidecar.process.wait_for_line(&format!("worker {worker}: "));
    }
    limit(3);
    replace(&file, &by_default("allow", ""));
    // It meets another Configuration first.
    for error in [".yaml: too many open files", "resources: too many open files"] {
        let line = subject.sidecar.process.wait_for_line(error);
        assert!(line.contains("level=error") && line.contains("stays in force"), "{line}");
    }
    limit(4096);
    subject.becomes("0", "descriptors");
    let good = || (subject.figure("ringside_config_last_reload_successful") == 1).then_some(());
    assert!(until(good).is_some(), "{}", subject.sidecar.process.tail());
    assert_eq!(resiliencies(&subject.sidecar)[0]["name"], "rz");
    let log = subject.sidecar.process.log();
    assert!(!log.contains("Resiliency reloaded"), "{log}");
    assert_eq!(log.matches("reloaded: spec.accessControl changed").count(), 1, "{log}");
}
