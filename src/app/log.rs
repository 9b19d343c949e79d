//! Log lines: from `tracing` to a bounded queue to one thread that writes.
//!
//! 1. Logging never blocks: a line that finds the queue full, of lines or of octets, is dropped and
//!    counted, and the count is told in the log itself.
//! 2. A line is laid out by whoever logs it; only finished lines travel.
//! 3. [`Log::flush`] returns when all that was logged before is written, or after
//!    [`FLUSH_TIME_MAX`]: a reader of stdout that has stopped must not keep us from ending.
//! 4. Warnings that repeat themselves are left out and counted (`repeats`): by the writer, so that
//!    who logs takes no lock.
//! 5. The level may change at any time, for all threads.
//!
//! Only our own events are taken: a library's have other targets.

pub mod care;
mod repeats;

use crate::config::{DAPR_VERSION, Flags};
use crate::mailbox::queue::{Inlet, Queue, queue};
use crate::observe::log::{Event, Field, Layout, Severity, Value};
use repeats::{Kind, Repeats};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};
use tracing::field::{Field as Name, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Lines that wait for the writer.
const LINES_MAX: usize = 8192;
/// And their octets: lines tell what peers sent, which may be long.
const LINES_OCTETS_MAX: usize = 8 << 20;
/// Octets written by one call, when more than one line waits.
const WRITE_OCTETS: usize = 64 << 10;
/// Octets of one message; the rest is cut.
const MESSAGE_OCTETS_MAX: usize = 64 << 10;
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);

const SCOPE: &str = "dapr.runtime";
/// daprd fixes these two at INFO when it makes them, whatever `--log-level` says.
const PINNED: [&str; 2] = ["dapr.runtime.http-info", "dapr.runtime.grpc.api-info"];

/// The way to the writer.
#[derive(Clone, Debug)]
pub struct Log {
    layout: Arc<Layout>,
    queue: Inlet<Message>,
    books: Arc<Books>,
    /// A [`Severity`].
    level: Arc<AtomicU8>,
}

/// What threads that log and the writer both count.
#[derive(Debug, Default)]
struct Books {
    /// Lines that found the queue full.
    drops: AtomicU64,
    /// Octets of those that wait.
    octets: AtomicUsize,
}

impl Books {
    /// Is there room for a line of so many octets? Then they are taken.
    fn take(&self, octets: usize) -> bool {
        let fits = self.octets.fetch_add(octets, Ordering::Relaxed) + octets <= LINES_OCTETS_MAX;
        if !fits {
            self.give_back(octets);
        }
        fits
    }

    fn give_back(&self, octets: usize) {
        self.octets.fetch_sub(octets, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Message {
    Line(String),
    /// One that is left out when it repeats itself.
    Warning(String, Kind),
    Flush(SyncSender<()>),
}

impl Message {
    /// Those that it takes, as they are held against [`LINES_OCTETS_MAX`].
    fn octets(&self) -> usize {
        match self {
            Self::Line(line) => line.capacity(),
            Self::Warning(line, kind) => line.capacity() + kind.message.capacity(),
            Self::Flush(_) => 0,
        }
    }
}

impl Log {
    /// Starts the writer thread and makes `tracing` log through it.
    pub fn start(flags: &Flags, instance: String) -> Result<Self, (Self, String)> {
        let (queue, lines) = queue(LINES_MAX);
        let layout = Layout {
            json: flags.log_as_json,
            app_id: flags.app_id.clone(),
            instance,
            version: DAPR_VERSION,
        };
        let level = Severity::parse(&flags.log_level);
        let now = level.unwrap_or(Severity::Info) as u8;
        let level_now = Arc::new(AtomicU8::new(now));
        let (layout, books) = (Arc::new(layout), Arc::default());
        let log = Self { layout, queue, books, level: level_now };
        let opened = open(&flags.log_file);
        let (sink, failure) = match opened {
            Ok(sink) => (sink, None),
            Err(error) => (Sink::Stdout(io::stdout()), Some(error)),
        };
        let writer = Writer::new(lines, sink, &log);
        let spawned = std::thread::Builder::new().name("log".to_owned()).spawn(|| writer.run());
        let failure = failure.or_else(|| spawned.err().map(|error| error.to_string()));
        let bad_level = || format!("invalid value for --log-level: {}", flags.log_level);
        if let Some(failure) = failure.or_else(|| level.is_none().then(bad_level)) {
            return Err((log, failure));
        }
        let layer = LogLayer { log: log.clone() };
        let subscriber = tracing_subscriber::registry().with(layer);
        // Fails only when there is one already: a test that runs the app twice.
        let _ = tracing::subscriber::set_global_default(subscriber);
        Ok(log)
    }

    /// The line that ends a process which cannot go on.
    pub fn fatal(&self, message: &str) {
        self.line(Severity::Fatal, SCOPE, message, &[]);
    }

    /// What is told from now on.
    pub fn set_level(&self, level: Severity) {
        self.level.store(level as u8, Ordering::Relaxed);
        // What was found out of each place that logs holds no more.
        tracing::callsite::rebuild_interest_cache();
        self.line(Severity::Info, SCOPE, &format!("Log level set to: {}", level.flag()), &[]);
    }

    pub fn level(&self) -> Severity {
        Severity::of(self.level.load(Ordering::Relaxed))
    }

    /// Lines that found the queue full, since the start.
    pub fn drops(&self) -> u64 {
        self.books.drops.load(Ordering::Relaxed)
    }

    /// See the file's text.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        // A full queue has a writer that works or never will; both are waited for, briefly.
        let mut message = Message::Flush(done);
        for _ in 0..100 {
            match self.queue.try_send(message) {
                Ok(()) => {
                    let _ = wait.recv_timeout(FLUSH_TIME_MAX);
                    return;
                }
                Err(std::sync::mpsc::TrySendError::Full(back)) => message = back,
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return,
            }
            std::thread::park_timeout(FLUSH_TIME_MAX / 100);
        }
    }

    fn line(&self, severity: Severity, scope: &str, message: &str, fields: &[Field]) {
        let message = cut(message);
        let mut line = String::with_capacity(192 + message.len());
        let event = Event { at: now(), severity, scope, message, fields };
        self.layout.write(&mut line, event);
        let warning = matches!(severity, Severity::Warning | Severity::Error);
        let message = match warning && fields.is_empty() {
            true => {
                let (scope, message) = (scope.to_owned(), message.to_owned());
                Message::Warning(line, Kind { severity, scope, message })
            }
            false => Message::Line(line),
        };
        let octets = message.octets();
        if !self.books.take(octets) {
            self.books.drops.fetch_add(1, Ordering::Relaxed);
        } else if self.queue.try_send(message).is_err() {
            self.books.give_back(octets);
            self.books.drops.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn clone_without_queue(&self) -> Dropped {
        Dropped { layout: Arc::clone(&self.layout), books: Arc::clone(&self.books), told: 0 }
    }
}

#[allow(clippy::disallowed_methods, reason = "a log line carries the time")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[allow(clippy::disallowed_methods, reason = "repeated lines are counted by the second")]
fn clock() -> Instant {
    Instant::now()
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_OCTETS_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

fn open(path: &str) -> Result<Sink, String> {
    if path.is_empty() {
        return Ok(Sink::Stdout(io::stdout()));
    }
    match OpenOptions::new().create(true).append(true).open(path) {
        Ok(file) => Ok(Sink::File(file)),
        Err(error) => {
            let error = super::listen::plain(&error);
            Err(format!("failed to open log file {path:?}: open {path}: {error}"))
        }
    }
}

enum Sink {
    Stdout(io::Stdout),
    File(File),
}

impl Sink {
    /// What cannot be written is lost: there is nowhere to say so.
    fn write(&mut self, text: &[u8]) {
        let _ = match self {
            Self::Stdout(stdout) => stdout.write_all(text).and_then(|()| stdout.flush()),
            Self::File(file) => file.write_all(text),
        };
    }
}

/// What the writer needs to tell of drops.
struct Dropped {
    layout: Arc<Layout>,
    books: Arc<Books>,
    told: u64,
}

struct Writer {
    lines: Queue<Message>,
    sink: Sink,
    log: Dropped,
    repeats: Repeats,
}

impl Writer {
    fn new(lines: Queue<Message>, sink: Sink, log: &Log) -> Self {
        Self { lines, sink, log: log.clone_without_queue(), repeats: Repeats::default() }
    }

    /// Ends with the last [`Log`].
    fn run(mut self) {
        let mut batch = String::new();
        while let Ok(first) = self.next() {
            batch.clear();
            let mut flushed = first.and_then(|first| self.take(first, &mut batch));
            while flushed.is_none() && batch.len() < WRITE_OCTETS {
                let Ok(next) = self.lines.try_recv() else { break };
                flushed = self.take(next, &mut batch);
            }
            self.tell_drops(&mut batch);
            self.tell_left_out(&mut batch, flushed.is_some());
            self.sink.write(batch.as_bytes());
            if let Some(done) = flushed {
                let _ = done.try_send(());
            }
        }
    }

    /// A message, or nothing when it is time to tell what was left out; an error at the end.
    fn next(&self) -> Result<Option<Message>, ()> {
        let Some(due) = self.repeats.due() else {
            return self.lines.recv().map(Some).map_err(drop);
        };
        match self.lines.recv_timeout(due.saturating_duration_since(clock())) {
            Ok(message) => Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(()),
        }
    }

    fn take(&mut self, message: Message, batch: &mut String) -> Option<SyncSender<()>> {
        self.log.books.give_back(message.octets());
        match message {
            Message::Line(line) => {
                batch.push_str(&line);
                None
            }
            Message::Warning(line, kind) => {
                if self.repeats.admit(kind, clock()) {
                    batch.push_str(&line);
                }
                None
            }
            Message::Flush(done) => Some(done),
        }
    }

    fn tell_left_out(&mut self, batch: &mut String, all: bool) {
        for (kind, count) in self.repeats.left_out(clock(), all) {
            let Kind { severity, scope, message } = kind;
            let message = format!("{message} ({count} more such lines were left out)");
            let event =
                Event { at: now(), severity, scope: &scope, message: &message, fields: &[] };
            self.log.layout.write(batch, event);
        }
    }

    fn tell_drops(&mut self, batch: &mut String) {
        let drops = self.log.books.drops.load(Ordering::Relaxed);
        if drops == self.log.told {
            return;
        }
        let message = format!(
            "{} log lines were dropped: they came faster than they could be written",
            drops - self.log.told
        );
        self.log.told = drops;
        let severity = Severity::Warning;
        let event = Event { at: now(), severity, scope: SCOPE, message: &message, fields: &[] };
        self.log.layout.write(batch, event);
    }
}

/// `tracing`'s events as lines.
struct LogLayer {
    log: Log,
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let ours = metadata.target().starts_with("ringside") || scope_of(metadata).is_some();
        ours && *metadata.level() <= self.most()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.most()))
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut found = Found::default();
        event.record(&mut found);
        let scope = found.scope.as_deref().or_else(|| scope_of(event.metadata()));
        let scope = scope.unwrap_or(SCOPE);
        let severity = severity(*event.metadata().level());
        if severity >= self.log.level() || PINNED.contains(&scope) {
            self.log.line(severity, scope, &found.message, &found.fields);
        }
    }
}

impl LogLayer {
    /// The pinned loggers speak at INFO, so that much must pass the filter in front.
    fn most(&self) -> Level {
        if self.log.level() == Severity::Debug { Level::DEBUG } else { Level::INFO }
    }
}

/// A target may name the scope.
fn scope_of<'a>(metadata: &'a Metadata<'_>) -> Option<&'a str> {
    Some(metadata.target()).filter(|target| target.starts_with("dapr."))
}

fn severity(level: Level) -> Severity {
    match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warning,
        Level::INFO => Severity::Info,
        _ => Severity::Debug,
    }
}

/// The fields of an event.
#[derive(Default)]
struct Found {
    message: String,
    scope: Option<String>,
    fields: Vec<Field>,
}

impl Found {
    fn put(&mut self, name: &Name, value: Value) {
        match (name.name(), value) {
            ("message", Value::Text(text)) => self.message = text,
            ("scope", Value::Text(text)) => self.scope = Some(text),
            (name, value) => self.fields.push(Field { name, value }),
        }
    }
}

impl Visit for Found {
    fn record_debug(&mut self, name: &Name, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.put(name, Value::Text(text));
    }

    fn record_str(&mut self, name: &Name, value: &str) {
        self.put(name, Value::Text(value.to_owned()));
    }

    fn record_i64(&mut self, name: &Name, value: i64) {
        self.put(name, Value::Number(value.to_string()));
    }

    fn record_u64(&mut self, name: &Name, value: u64) {
        self.put(name, Value::Number(value.to_string()));
    }

    fn record_bool(&mut self, name: &Name, value: bool) {
        self.put(name, Value::Bool(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(queue: Inlet<Message>) -> Log {
        let layout = Layout {
            json: false,
            app_id: "a".to_owned(),
            instance: "vm".to_owned(),
            version: DAPR_VERSION,
        };
        let level = Arc::new(AtomicU8::new(Severity::Warning as u8));
        Log { layout: Arc::new(layout), queue, books: Arc::default(), level }
    }

    fn taken(messages: &Queue<Message>) -> impl Iterator<Item = Message> + '_ {
        std::iter::from_fn(|| messages.try_recv().ok())
    }

    fn lines(messages: &Queue<Message>) -> Vec<String> {
        let lines = taken(messages).map(|message| match message {
            Message::Line(line) | Message::Warning(line, _) => line,
            Message::Flush(_) => "flush".to_owned(),
        });
        lines.collect()
    }

    #[test]
    fn events_become_lines() {
        let (queue, messages) = queue(8);
        let layer = LogLayer { log: log(queue) };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(scope = "dapr.runtime.grpc.api", code = 7, "text {}", 1);
            tracing::info!("below the level");
            tracing::info!(scope = "dapr.runtime.http-info", "HTTP API Called");
            tracing::error!(target: "dapr.runtime.security", "by target");
            tracing::error!(target: "h2::codec", "a library's");
        });
        let lines = lines(&messages);
        assert_eq!(lines.len(), 3, "{lines:?}");
        let first = "level=warning msg=\"text 1\" app_id=a code=7 instance=vm \
                     scope=dapr.runtime.grpc.api type=log ver=1.18.1\n";
        assert!(lines[0].ends_with(first), "{}", lines[0]);
        assert!(lines[1].contains("HTTP API Called"));
        assert!(lines[2].contains("scope=dapr.runtime.security"));
    }

    #[test]
    fn a_full_queue_drops_and_tells() {
        let (queue, messages) = queue(1);
        let log = log(queue);
        for _ in 0..3 {
            log.fatal("x");
        }
        assert_eq!(log.drops(), 2);
        assert_eq!(lines(&messages).len(), 1);
        let mut writer = Writer::new(messages, Sink::Stdout(io::stdout()), &log);
        let mut batch = String::new();
        writer.tell_drops(&mut batch);
        assert!(batch.contains("2 log lines were dropped"), "{batch}");
        batch.clear();
        writer.tell_drops(&mut batch);
        assert_eq!(batch, "");
    }

    /// Long lines are fewer, and what the writer took makes room.
    #[test]
    fn what_waits_is_bounded_in_octets() {
        let (queue, messages) = queue(LINES_MAX);
        let log = log(queue);
        let long = "x".repeat(MESSAGE_OCTETS_MAX);
        let fit = LINES_OCTETS_MAX / (MESSAGE_OCTETS_MAX + 200);
        for _ in 0..2 * fit {
            log.fatal(&long);
        }
        let waiting = 2 * fit as u64 - log.drops();
        assert!((fit as u64..=fit as u64 + 2).contains(&waiting), "{waiting} wait");
        let mut writer = Writer::new(messages, Sink::Stdout(io::stdout()), &log);
        for _ in 0..waiting {
            let message = writer.lines.try_recv().unwrap();
            assert!(writer.take(message, &mut String::new()).is_none());
        }
        assert_eq!(log.books.octets.load(Ordering::Relaxed), 0);
        let drops = log.drops();
        log.fatal(&long);
        assert_eq!((log.drops(), taken(&writer.lines).count()), (drops, 1));
    }

    /// A line takes the room that it is counted with, however much it was before it was cut.
    #[test]
    fn what_is_cut_takes_no_room() {
        let (queue, messages) = queue(8);
        let log = log(queue);
        for character in ["x", "\"", "\u{e4}"] {
            log.fatal(&character.repeat(64 * MESSAGE_OCTETS_MAX));
            let message = messages.try_recv().unwrap();
            let Message::Line(line) = &message else { panic!("{message:?}") };
            assert!(line.capacity() < 4 * MESSAGE_OCTETS_MAX, "{}", line.capacity());
            assert!(message.octets() >= line.capacity());
        }
    }

    /// What the writer made of some lines.
    fn written(say: impl FnOnce(&Log)) -> String {
        let (queue, messages) = queue(64);
        let log = log(queue);
        let name = format!("ringside-log-{:?}", std::thread::current().id());
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let writer = Writer::new(messages, Sink::File(File::create(&path).unwrap()), &log);
        let thread = std::thread::Builder::new().spawn(|| writer.run()).unwrap();
        say(&log);
        log.flush();
        drop(log);
        thread.join().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        text
    }

    #[test]
    fn repeated_warnings_are_counted_not_written() {
        let text = written(|log| {
            for _ in 0..20 {
                log.line(Severity::Warning, SCOPE, "again", &[]);
                log.line(Severity::Info, SCOPE, "calm", &[]);
            }
            log.line(Severity::Warning, "dapr.other", "again", &[]);
        });
        assert_eq!(text.matches("msg=calm ").count(), 20);
        assert_eq!(text.matches("msg=again ").count(), 6, "five and the other scope's: {text}");
        let left_out = "level=warning msg=\"again (15 more such lines were left out)\"";
        assert!(text.contains(left_out), "{text}");
    }

    #[test]
    fn the_level_changes_while_it_runs() {
        let (queue, messages) = queue(8);
        let log = log(queue);
        let layer = LogLayer { log: log.clone() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for level in [Severity::Debug, Severity::Error] {
                log.set_level(level);
                assert_eq!(log.level(), level);
                for _ in 0..2 {
                    tracing::debug!("of {}", level.flag());
                }
            }
        });
        let lines = lines(&messages);
        let told = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!((told("\"of debug\""), told("\"of error\"")), (2, 0), "{lines:?}");
        assert_eq!(told("\"Log level set to: debug\""), 1);
        assert_eq!(told("\"Log level set to: error\""), 1, "told at any level");
    }

    #[test]
    fn a_huge_message_is_cut_between_characters() {
        let text = "é".repeat(MESSAGE_OCTETS_MAX);
        assert_eq!(cut(&text).len(), MESSAGE_OCTETS_MAX);
        assert_eq!(cut(&format!("x{text}")).len(), MESSAGE_OCTETS_MAX - 1);
        assert_eq!(cut("short"), "short");
    }

    #[test]
    fn flush_waits_for_the_writer() {
        let (queue, messages) = queue(8);
        let log = log(queue);
        let file = File::options().write(true).open("/dev/null").unwrap();
        let writer = Writer::new(messages, Sink::File(file), &log);
        let thread = std::thread::Builder::new().spawn(|| writer.run()).unwrap();
        log.fatal("x");
        log.flush();
        drop(log);
        thread.join().unwrap();
    }
}
