//! Files that change while calls are served: what holds when, what is told, and who notices.

mod configuration;
mod resiliency;

use crate::peer::bare::exchange;
use crate::peer::process::until;
use crate::peer::sidecar::{Options, http_get, unchunked};
use crate::peer::tagged::{self, App, Checker, End, Wish, connect, message, open, runtime};
use crate::peer::{Kind, Sidecar, World};
use http::Request;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::task::JoinSet;

const DENIED: &str = "7";
const REFUSED: &str = "what was in force stays in force";
const RUNNING: &str = "dapr initialized. Status: Running";

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

/// As a ConfigMap is mounted: the folder of a version behind two links.
fn mount(folder: &Path, version: &str, file: &str, text: &str) {
    let version = format!("..{version}");
    fs::create_dir(folder.join(&version)).expect("a version");
    fs::write(folder.join(&version).join(file), text).expect("a file of the version");
    symlink(&version, folder.join("..data_tmp")).expect("a link");
    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("the new version");
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

/// A Resiliency resource: calls to `server` may take so long.
fn within(name: &str, timeout: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {{name: {name}}}\nspec:\n  \
         policies: {{timeouts: {{t: {timeout}}}}}\n  targets: {{apps: {{server: {{timeout: t}}}}}}\n"
    )
}

const AT_ONCE: &str = "1ms";
const PATIENT: &str = "10m";
