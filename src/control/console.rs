//! The admin socket: a look inside a running sidecar.
//!
//! 1. Who asks must be root or this process's own user: the kernel says who it is, whatever the
//!    mode of the file.
//! 2. A line is asked and a line of JSON answered; `tap` gets one for each call, until either side
//!    has had enough.
//! 3. Everything is bounded by a name below; what a tap is too slow for is dropped and counted.
//! 4. No answer holds a token, a key, or what a call carried.

mod answer;
mod limits;
pub mod names;
mod question;
mod tap;

use crate::control::publish::Workers;
use crate::control::state::State;
use crate::mailbox::ToWorker;
use crate::observe::log::Severity;
use crate::observe::report::WorkerReport;
use question::Question;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::net::UnixListener;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, Notify};

const CONNECTIONS_MAX: usize = 16;
/// Of a question.
const LINE_OCTETS_MAX: usize = 4 << 10;
const LINE_TIME_MAX: Duration = Duration::from_secs(10);
/// A reader that takes nothing for so long is gone.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long workers are waited for.
const REPORT_TIME_MAX: Duration = Duration::from_secs(1);
/// After accept failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The level of the log, which is not control's to keep.
pub trait LogLevel {
    fn level(&self) -> Severity;
    fn set_level(&self, level: Severity);
}

/// What the console tells of.
pub struct Console {
    state: Rc<State>,
    workers: Rc<Workers>,
    log: Box<dyn LogLevel>,
    /// What does not change: flags as they were understood.
    facts: Value,
    reports: Reports,
    taps: tap::Taps,
    connections: Cell<usize>,
}

/// What workers say of themselves.
#[derive(Default)]
struct Reports {
    /// Whoever asks is asked alone.
    asking: Mutex<()>,
    /// By worker; `None`: it has not answered.
    told: RefCell<Vec<Option<Box<WorkerReport>>>>,
    arrived: Notify,
}

impl Console {
    pub fn new(
        state: Rc<State>,
        workers: Rc<Workers>,
        log: Box<dyn LogLevel>,
        facts: Value,
    ) -> Rc<Self> {
        Rc::new(Self {
            state,
            workers,
            log,
            facts,
            reports: Reports::default(),
            taps: tap::Taps::default(),
            connections: Cell::new(0),
        })
    }

    /// A worker's answer to [`ToWorker::Report`].
    pub fn reported(&self, worker: usize, report: Box<WorkerReport>) {
        if let Some(place) = self.reports.told.borrow_mut().get_mut(worker) {
            *place = Some(report);
        }
        self.reports.arrived.notify_waiters();
    }

    /// By worker; `None`: one that did not answer in time. All that workers were told before has
    /// reached those that answer.
    async fn reports(&self) -> Vec<Option<Box<WorkerReport>>> {
        let _alone = self.reports.asking.lock().await;
        let places = (0..self.workers.count()).map(|_| None).collect();
        self.reports.told.replace(places);
        self.workers.tell(|| ToWorker::Report);
        let all = async {
            loop {
                let next = self.reports.arrived.notified();
                if self.reports.told.borrow().iter().all(Option::is_some) {
                    return;
                }
                next.await;
            }
        };
        // Those who are late are missing in the answer.
        let _ = tokio::time::timeout(REPORT_TIME_MAX, all).await;
        self.reports.told.take()
    }
}

/// Serves until the HTTP ports close. Must run inside a tokio `LocalSet`.
pub async fn serve(listener: UnixListener, console: Rc<Console>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let mut closed = pin!(console.state.http_closed());
    loop {
        tokio::select! {
            biased;
            () = &mut closed => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => take(&console, stream),
                Err(error) => {
                    tracing::warn!("admin socket: accept failed: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

fn take(console: &Rc<Console>, stream: UnixStream) {
    let own = rustix::process::geteuid().as_raw();
    let uid = stream.peer_cred().map(|credentials| credentials.uid());
    if !uid.as_ref().is_ok_and(|uid| may_ask(*uid, own)) {
        let who = uid.map_or_else(|error| error.to_string(), |uid| format!("user {uid}"));
        return tracing::warn!("admin socket: refused to {who}: it is for root and user {own}");
    }
    if console.connections.get() >= CONNECTIONS_MAX {
        return;
    }
    console.connections.set(console.connections.get() + 1);
    let console = Rc::clone(console);
    tokio::task::spawn_local(async move {
        // How it ends is the asker's affair.
        let _ = attend(&console, stream).await;
        console.connections.set(console.connections.get() - 1);
    });
}

fn may_ask(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

async fn attend(console: &Rc<Console>, mut stream: UnixStream) -> io::Result<()> {
    let line = tokio::time::timeout(LINE_TIME_MAX, read_line(&mut stream)).await;
    let line = line.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    match Question::parse(&line) {
        Err(error) => say(&mut stream, &json!({ "error": error })).await,
        Ok(Question::Tap(filter)) => console.tap(filter, stream).await,
        Ok(question) => {
            let answer = console.answer(question).await;
            say(&mut stream, &answer).await
        }
    }
}

/// Up to a line break, or all that comes.
async fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut octets = [0; 512];
    while !line.contains(&b'\n') {
        let count = stream.read(&mut octets).await?;
        line.extend_from_slice(octets.get(..count).unwrap_or_default());
        if count == 0 {
            break;
        }
        if line.len() > LINE_OCTETS_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
    }
    let line = line.split(|octet| *octet == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

async fn say(stream: &mut UnixStream, answer: &Value) -> io::Result<()> {
    write(stream, format!("{answer}\n").as_bytes()).await
}

async fn write(stream: &mut UnixStream, octets: &[u8]) -> io::Result<()> {
    let written = tokio::time::timeout(WRITE_TIME_MAX, stream.write_all(octets)).await;
    written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
pub(crate) mod tests;
