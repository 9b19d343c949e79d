//! Spans on their way to who collects them.
//!
//! ```text
//! worker ▶ mailbox ▶ Spans::take ▶ a queue for each exporter ▶ its task: a batch at a time
//! ```
//! 1. Nobody who makes spans waits here: what a queue has no room for is dropped and counted.
//! 2. A queue is bounded in spans and in octets; a batch is too, and takes a bounded time.
//! 3. What an exporter could not deliver is dropped and counted; the log is told once in
//!    [`WARNING_PERIOD`].
//!
//! Sources: OpenTelemetry's batch span processor, with its defaults, which daprd uses as it is.

mod gzip;
mod http;
mod otlp;
mod tls;
mod zipkin;

use super::state::{Counters, State};
use crate::config::traces::{Batching, Exporters, OtlpProtocol};
use crate::observe::span::Span;
use crate::observe::trace::write_digits;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Octets of the spans in one queue, and in one batch.
const QUEUE_OCTETS_MAX: usize = 8 << 20;
const BATCH_OCTETS_MAX: usize = 1 << 20;
const WARNING_PERIOD: Duration = Duration::from_secs(60);
/// The name of daprd's tracer.
const SCOPE: &str = "dapr-diagnostics";
const STDOUT: &str = "dapr.runtime.trace";

/// A span, and when it was by the calendar.
#[derive(Debug)]
pub struct Finished {
    span: Span,
    begun: SystemTime,
    ended: SystemTime,
}

/// See the file's text.
#[derive(Debug, Default)]
pub struct Spans {
    lines: Vec<Rc<Line>>,
    tasks: RefCell<JoinSet<()>>,
}

/// What waits for one exporter.
#[derive(Debug)]
struct Line {
    batching: Batching,
    queue: RefCell<Queue>,
    changed: Notify,
    closing: Cell<bool>,
}

#[derive(Debug, Default)]
struct Queue {
    spans: VecDeque<Rc<Finished>>,
    octets: usize,
    /// When the first of them came.
    since: Option<tokio::time::Instant>,
}

enum Exporter {
    Stdout,
    Zipkin(zipkin::Zipkin),
    OtlpHttp(otlp::Http),
    OtlpGrpc(otlp::Grpc),
}

impl Spans {
    /// Inside a `LocalSet`.
    pub fn start(exporters: Exporters, state: &Rc<State>) -> Result<Rc<Self>, String> {
        let batching = exporters.batching;
        let mut spans = Self::default();
        let exporters = Exporter::all(exporters)
            .map_err(|error| format!("failed to setup tracing: {error}"))?;
        for exporter in exporters {
            let line = Rc::new(Line::new(batching));
            spans.lines.push(Rc::clone(&line));
            let state = Rc::clone(state);
            let serving = async move { line.serve(exporter, &state.counters).await };
            spans.tasks.get_mut().spawn_local(serving);
        }
        Ok(Rc::new(spans))
    }

    /// Spans that a worker hands over, and how many it could not hand over before.
    #[expect(clippy::disallowed_methods, reason = "control may ask for both times")]
    pub fn take(&self, spans: Vec<Span>, lost: usize, counters: &Counters) {
        let (now, today) = (Instant::now(), SystemTime::now());
        let at = |time: Instant| {
            let ago = now.saturating_duration_since(time);
            today.checked_sub(ago).unwrap_or(UNIX_EPOCH)
        };
        drop_spans(counters, lost * self.lines.len());
        for span in spans {
            let (begun, ended) = (at(span.begun), at(span.ended));
            let span = Rc::new(Finished { span, begun, ended });
            for line in &self.lines {
                if !line.push(&span) {
                    drop_spans(counters, 1);
                }
            }
        }
    }

    /// Delivers what there is. To be given up when the time is over.
    pub async fn close(&self) {
        for line in &self.lines {
            line.closing.set(true);
            line.changed.notify_one();
        }
        let mut tasks = self.tasks.take();
        while tasks.join_next().await.is_some() {}
    }
}

impl Line {
    fn new(batching: Batching) -> Self {
        let (queue, changed) = (RefCell::default(), Notify::new());
        Self { batching, queue, changed, closing: Cell::new(false) }
    }

    fn push(&self, span: &Rc<Finished>) -> bool {
        let mut queue = self.queue.borrow_mut();
        let octets = queue.octets + span.span.charge();
        if queue.spans.len() >= self.batching.queue_max || octets > QUEUE_OCTETS_MAX {
            return false;
        }
        queue.octets = octets;
        queue.spans.push_back(Rc::clone(span));
        if queue.spans.len() == 1 {
            queue.since = Some(tokio::time::Instant::now());
            self.changed.notify_one();
        } else if queue.is_batch(self.batching) {
            self.changed.notify_one();
        }
        true
    }

    /// Until there is enough for a batch, or it has waited long enough, or there will be no more.
    async fn ready(&self) {
        loop {
            let since = {
                let queue = self.queue.borrow();
                if self.closing.get() || queue.is_batch(self.batching) {
                    return;
                }
                queue.since
            };
            let changed = self.changed.notified();
            match since {
                None => changed.await,
                Some(since) => {
                    let due = since + self.batching.delay;
                    if tokio::time::timeout_at(due, changed).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn cut(&self) -> Vec<Rc<Finished>> {
        let mut queue = self.queue.borrow_mut();
        let (mut batch, mut octets) = (Vec::new(), 0);
        while let Some(span) = queue.spans.front() {
            let charge = span.span.charge();
            let full = batch.len() >= self.batching.batch_max || octets + charge > BATCH_OCTETS_MAX;
            if full && !batch.is_empty() {
                break;
            }
            octets += charge;
            batch.extend(queue.spans.pop_front());
        }
        queue.octets -= octets;
        queue.since = (!queue.spans.is_empty()).then(tokio::time::Instant::now);
        batch
    }

    async fn serve(&self, mut exporter: Exporter, counters: &Counters) {
        let mut warned: Option<tokio::time::Instant> = None;
        loop {
            self.ready().await;
            let batch = self.cut();
            if batch.is_empty() {
                return;
            }
            let limit = self.batching.timeout;
            let exported = tokio::time::timeout(limit, exporter.export(&batch)).await;
            let error = match exported {
                Ok(Ok(refused)) => {
                    let taken = batch.len().saturating_sub(refused.spans);
                    let exported = &counters.spans_exported;
                    exported.set(exported.get().saturating_add(taken as u64));
                    drop_spans(counters, batch.len() - taken);
                    match taken < batch.len() {
                        true => format!("{} spans are refused: {}", refused.spans, refused.why),
                        false => continue,
                    }
                }
                Ok(Err(error)) => {
                    drop_spans(counters, batch.len());
                    error
                }
                Err(_) => {
                    drop_spans(counters, batch.len());
                    format!("no answer within {limit:?}")
                }
            };
            if warned.is_none_or(|at| at.elapsed() >= WARNING_PERIOD) {
                warned = Some(tokio::time::Instant::now());
                let dropped = counters.spans_dropped.get();
                tracing::warn!("traces export to {exporter}: {error} ({dropped} dropped so far)");
            }
        }
    }
}

impl Queue {
    fn is_batch(&self, batching: Batching) -> bool {
        self.spans.len() >= batching.batch_max || self.octets >= BATCH_OCTETS_MAX
    }
}

fn drop_spans(counters: &Counters, spans: usize) {
    let dropped = &counters.spans_dropped;
    dropped.set(dropped.get().saturating_add(spans as u64));
}

/// What a collector took a batch without.
#[derive(Debug, Default, PartialEq, Eq)]
struct Refused {
    spans: usize,
    why: String,
}

impl Exporter {
    fn all(exporters: Exporters) -> Result<Vec<Self>, String> {
        let Exporters { stdout, zipkin, otlp, resource, .. } = exporters;
        let resource: Rc<[(String, String)]> = resource.into();
        let mut all = Vec::new();
        if stdout {
            all.push(Self::Stdout);
        }
        if let Some(url) = zipkin {
            all.push(Self::Zipkin(zipkin::Zipkin::new(url, Rc::clone(&resource))?));
        }
        if let Some(otlp) = otlp {
            all.push(match otlp.protocol {
                OtlpProtocol::Http => Self::OtlpHttp(otlp::Http::new(otlp, resource)?),
                OtlpProtocol::Grpc => Self::OtlpGrpc(otlp::Grpc::new(otlp, resource)?),
            });
        }
        Ok(all)
    }

    async fn export(&mut self, batch: &[Rc<Finished>]) -> Result<Refused, String> {
        match self {
            Self::Stdout => {
                batch.iter().for_each(|span| tracing::info!(scope = STDOUT, "{span}"));
                Ok(Refused::default())
            }
            Self::Zipkin(zipkin) => zipkin.export(batch).await,
            Self::OtlpHttp(http) => http.export(batch).await,
            Self::OtlpGrpc(grpc) => grpc.export(batch).await,
        }
    }
}

impl fmt::Display for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("the log"),
            Self::Zipkin(zipkin) => zipkin.fmt(f),
            Self::OtlpHttp(http) => http.fmt(f),
            Self::OtlpGrpc(grpc) => grpc.fmt(f),
        }
    }
}

/// The line of daprd's `StdoutExporter`.
impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { span, begun, ended } = self;
        let (trace, own) = (hex(&span.context.trace_id), hex(&span.context.span_id));
        let parent = hex(&span.parent.unwrap_or_default());
        let (begun, ended) = (go_time(*begun), go_time(*ended));
        let name = &span.name;
        write!(
            f,
            "[{name}] Trace: {trace} Span: {parent}/{own} Time: [{begun} ->  {ended}] \
             Annotations: []"
        )
    }
}

fn hex(octets: &[u8]) -> String {
    let mut text = vec![0; 2 * octets.len()];
    write_digits(&mut text, octets);
    String::from_utf8(text).unwrap_or_default()
}

/// As Go prints a `time.Time` in UTC: no zeros at the end of the fraction.
fn go_time(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let fraction = format!(".{:09}", time.nanosecond());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let (date, (hour, minute, second)) = (time.date(), time.time().as_hms());
    format!("{date} {hour:02}:{minute:02}:{second:02}{fraction} +0000 UTC")
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
