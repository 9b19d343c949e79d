//! The two ends of a run: callers and apps, each a plain HTTP/2 connection that plays its part of
//! the scripts and checks what the other end sends.

use super::policy::{Fate, Policy};
use super::script::{ATTEMPT, Fields, RequestEnd, ResponseEnd, Script, Whom, owned, value};
use super::seed::Seed;
use bytes::Bytes;
use ringside::grpc::timeout;
use ringside::http2::{
    Connection, ErrorCode, Event, FieldSection, OpenError, SectionKind, StreamId,
};
use std::time::{Duration, Instant};

/// Octets that an end lets wait in its own outbox.
const QUEUED_MAX: usize = 64 << 10;

/// How a call ended for its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Status {
        code: u8,
        message: String,
        /// The app said so, not a sidecar.
        by_app: bool,
    },
    /// Left out by a GOAWAY: not processed.
    Refused,
    /// The caller's own connection was lost.
    Lost,
    Cancelled,
    /// END_STREAM without a status.
    Bare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppStage {
    /// The app has not heard of it.
    Unseen,
    Open,
    /// It has said its last word, and may still listen.
    Said,
    Over,
}

/// A call, seen from both ends.
#[derive(Debug)]
pub struct Call {
    pub script: Script,
    pub caller: usize,
    pub stream: StreamId,
    pub begun: Instant,
    pub begun_step: u64,
    pub sent: usize,
    pub sent_end: bool,
    pub received: usize,
    pub held: u32,
    pub head: Option<Fields>,
    pub outcome: Option<Outcome>,
    pub ended: Option<Instant>,
    /// The caller does not read.
    pub stalled: bool,
    /// Which attempt's response it gets.
    pub answer: Option<usize>,
    /// The last attempt that reached an app.
    pub app: AppSide,
    pub earlier: Vec<AppSide>,
    /// Octets of the request that left the caller, of the last response that left the app.
    pub left_caller: usize,
    pub left_app: usize,
}

#[derive(Debug)]
pub struct AppSide {
    pub stage: AppStage,
    pub conn: usize,
    pub stream: StreamId,
    pub received: usize,
    pub held: u32,
    pub request_ended: bool,
    pub head_sent: bool,
    pub sent: usize,
    /// It reset the stream with this code.
    pub reset: Option<ErrorCode>,
    /// Does not read.
    pub stalled: bool,
    /// When it heard of a reset.
    pub reset_at: Option<Instant>,
    /// When it said how it failed, as was its fate.
    pub said_at: Option<Instant>,
}

impl AppSide {
    fn new() -> Self {
        Self {
            stage: AppStage::Unseen,
            conn: usize::MAX,
            stream: StreamId(0),
            received: 0,
            held: 0,
            request_ended: false,
            head_sent: false,
            sent: 0,
            reset: None,
            stalled: false,
            reset_at: None,
            said_at: None,
        }
    }
}

impl AppSide {
    /// An attempt that is not meant to be the last one.
    fn meet(
        &mut self,
        fate: Fate,
        script: &Script,
        attempt: usize,
        may_end: bool,
        h2: &mut Connection,
        now: Instant,
    ) {
        if fate == Fate::Silent || !may_end {
            return;
        }
        if let Fate::Reset(code) = fate {
            h2.send_reset(self.stream, code);
            (self.reset, self.stage) = (Some(code), AppStage::Over);
            return;
        }
        let only = script.is_trailers_only(attempt);
        h2.send_headers(self.stream, script.head_fields(attempt), only);
        if !only {
            h2.send_headers(self.stream, script.trailer_fields(attempt), true);
        }
        (self.head_sent, self.stage, self.said_at) = (!only, AppStage::Said, Some(now));
        if !self.request_ended {
            h2.send_reset(self.stream, ErrorCode::NO_ERROR);
        }
    }
}

impl Call {
    pub fn new(script: Script, caller: usize, stream: StreamId, now: Instant, step: u64) -> Self {
        let app = AppSide::new();
        Self {
            script,
            caller,
            stream,
            begun: now,
            begun_step: step,
            sent: 0,
            sent_end: false,
            received: 0,
            held: 0,
            head: None,
            outcome: None,
            ended: None,
            stalled: false,
            answer: None,
            app,
            earlier: Vec::new(),
            left_caller: 0,
            left_app: 0,
        }
    }

    pub fn is_open(&self) -> bool {
        self.outcome.is_none()
    }

    /// Each attempt that reached an app, by its number.
    pub fn side(&mut self, attempt: usize) -> &mut AppSide {
        self.earlier.get_mut(attempt).unwrap_or(&mut self.app)
    }

    pub fn sides(&self) -> impl Iterator<Item = &AppSide> {
        self.earlier.iter().chain([&self.app])
    }

    /// What the app's connection calls the last attempt.
    pub fn tag(&self) -> u64 {
        u64::from(self.script.id) | (self.earlier.len() as u64) << 32
    }

    fn end(&mut self, outcome: Outcome, now: Instant) {
        assert!(self.outcome.is_none(), "call {} ends twice", self.script.id);
        self.outcome = Some(outcome);
        self.ended = Some(now);
    }

    /// Opens the stream; `None` when the connection takes none.
    pub fn begin(
        script: Script,
        caller: usize,
        h2: &mut Connection,
        now: Instant,
        step: u64,
    ) -> Option<Self> {
        let fused = script.request.is_empty() && script.request_end == RequestEnd::Fused;
        let stream = match h2.open(script.request_fields(), fused, u64::from(script.id)) {
            Ok(stream) => stream,
            Err(OpenError::Full | OpenError::Retired) => return None,
        };
        let mut call = Self::new(script, caller, stream, now, step);
        call.sent_end = fused;
        Some(call)
    }

    /// The caller goes on: sends a piece, reads on, gives up.
    pub fn speak(&mut self, h2: &mut Connection, seed: &mut Seed, hurry: bool, now: Instant) {
        if self.held > 0 && !self.stalled && (hurry || seed.one_in(2)) {
            let octets = if hurry { self.held } else { 1 + seed.below(self.held as usize) as u32 };
            self.held -= octets;
            h2.release(self.stream, octets);
        }
        if self.script.cancel_at.is_some_and(|at| self.sent + self.received >= at) {
            h2.send_reset(self.stream, ErrorCode::CANCEL);
            return self.end(Outcome::Cancelled, now);
        }
        if self.sent_end || h2.queued(self.stream) > QUEUED_MAX {
            return;
        }
        let left = self.script.request.len() - self.sent;
        let step = if hurry { left } else { seed.below(20_000).min(left) };
        let piece = self.script.request.slice(self.sent..self.sent + step);
        self.sent += step;
        let whole = self.sent == self.script.request.len();
        match self.script.request_end {
            RequestEnd::Fused => h2.send_data(self.stream, piece, whole),
            RequestEnd::Apart | RequestEnd::Trailers => {
                h2.send_data(self.stream, piece, false);
                if !whole || (!hurry && seed.one_in(2)) {
                    return;
                }
                match self.script.request_end {
                    RequestEnd::Trailers => {
                        let mut fields = FieldSection::new();
                        fields.push(b"x-sim-request-trailer", b"ignored");
                        h2.send_headers(self.stream, fields, true);
                    }
                    RequestEnd::Fused | RequestEnd::Apart => {
                        h2.send_data(self.stream, Bytes::new(), true);
                    }
                }
            }
        }
        self.sent_end = whole;
    }

    /// What the caller's connection says about this call.
    pub fn on_caller_event(&mut self, event: &Event, now: Instant) {
        let id = self.script.id;
        if !self.is_open() {
            let after = matches!(event, Event::Reset { .. } | Event::Refused { .. });
            let cancelled = self.outcome == Some(Outcome::Cancelled);
            assert!(after || cancelled, "call {id}: {event:?} after {:?}", self.outcome);
            return;
        }
        match event {
            Event::Headers { kind: SectionKind::Response, fields, end_stream, .. } => {
                assert!(self.head.is_none(), "call {id}: two heads");
                let fields = owned(fields);
                assert_eq!(value(&fields, ":status"), Some("200"), "call {id}: {fields:?}");
                let kind = value(&fields, "content-type");
                assert_eq!(kind, Some(self.script.content_type), "call {id}: {fields:?}");
                self.head = Some(fields.clone());
                let attempt = self.hear_attempt(&fields);
                match end_stream {
                    true => self.on_status(&fields, true, now),
                    false => {
                        let expected = self.expected_head(attempt.expect("an app's head"));
                        assert_eq!(fields, expected, "call {id}: initial metadata");
                    }
                }
            }
            Event::Headers { kind: SectionKind::Trailers, fields, .. } => {
                assert!(self.head.is_some(), "call {id}: trailers before the head");
                self.on_status(&owned(fields), false, now);
            }
            Event::Data { data, end_stream, .. } => {
                let response = self.script.response_to(self.answer.expect("an app's head"));
                let expected = response.get(self.received..self.received + data.len());
                assert_eq!(expected, Some(&data[..]), "call {id}: response octets");
                self.received += data.len();
                self.held += data.len() as u32;
                if *end_stream {
                    self.end(Outcome::Bare, now);
                }
            }
            Event::Refused { .. } => self.end(Outcome::Refused, now),
            other => panic!("call {id}: the caller hears {other:?}"),
        }
    }

    /// Whose fields these are, if they are an app's: always the last attempt's that there was.
    fn hear_attempt(&mut self, fields: &Fields) -> Option<usize> {
        let id = self.script.id;
        let attempt = value(fields, ATTEMPT)?.parse().expect("a number");
        assert_eq!(attempt, self.earlier.len(), "call {id}: of an attempt that is over");
        assert_eq!(*self.answer.get_or_insert(attempt), attempt, "call {id}: of another attempt");
        Some(attempt)
    }

    fn expected_head(&self, attempt: usize) -> Fields {
        let mut fields = owned(&self.script.head_fields(attempt));
        for (name, value) in &mut fields {
            if name == "content-type" {
                *value = self.script.content_type.to_owned();
            }
        }
        fields
    }

    fn on_status(&mut self, fields: &Fields, only: bool, now: Instant) {
        let id = self.script.id;
        let by_app = value(fields, "x-sim-end").is_some();
        let code = value(fields, "grpc-status").and_then(|text| text.parse().ok());
        let code = code.unwrap_or_else(|| panic!("call {id}: no status in {fields:?}"));
        let message = value(fields, "grpc-message").unwrap_or_default().to_owned();
        if by_app {
            let attempt = self.hear_attempt(fields).expect("an attempt's end");
            let expected = match only {
                true => self.expected_head(attempt),
                false => self.script.trailers_of(attempt),
            };
            assert_eq!(fields, &expected, "call {id}: trailers");
            let failed = matches!(self.script.fates.get(attempt), Some(Fate::Status { .. }));
            let whole = if failed { 0 } else { self.script.response_to(attempt).len() };
            assert_eq!(self.received, whole, "call {id}: octets are missing");
            assert!(self.app.stage != AppStage::Unseen, "call {id}: the app has not seen it");
        }
        self.end(Outcome::Status { code, message, by_app }, now);
    }

    pub fn lose(&mut self, now: Instant) {
        if self.is_open() {
            self.end(Outcome::Lost, now);
        }
    }

    /// The request head reached an app.
    pub fn on_app_head(
        &mut self,
        fields: &FieldSection,
        (conn, own_app): (usize, bool),
        end: bool,
        policy: &Policy,
        now: Instant,
    ) {
        let id = self.script.id;
        if self.app.stage != AppStage::Unseen {
            assert!(self.answer.is_none(), "call {id} comes again though it is being answered");
            let before = std::mem::replace(&mut self.app, AppSide::new());
            let begun = before.head_sent && !policy.repeats(self);
            assert!(!begun, "call {id} was begun to be answered");
            self.earlier.push(before);
            self.left_app = 0;
            policy.check_another(self, now);
        }
        let expected = match self.script.whom {
            Whom::Own => true,
            Whom::Remote => false,
            Whom::Unknown | Whom::Malformed => panic!("call {id} has no app to go to"),
        };
        assert_eq!(own_app, expected, "call {id} reaches the wrong app");
        self.check_request_fields(&owned(fields), own_app, policy.time(self));
        self.app.stage = AppStage::Open;
        self.app.conn = conn;
        self.app.request_ended = end;
    }

    /// Spec 03 §3.5.
    fn check_request_fields(&self, fields: &Fields, own_app: bool, time: Option<Duration>) {
        let id = self.script.id;
        const HOPS: [&str; 9] = [
            ":method",
            ":scheme",
            ":path",
            ":authority",
            "content-type",
            "te",
            "grpc-timeout",
            "dapr-caller-app-id",
            "dapr-callee-app-id",
        ];
        let passed = fields.iter().filter(|(name, _)| !HOPS.contains(&name.as_str()));
        let mut expected = vec![("x-sim-call".to_owned(), id.to_string())];
        if self.script.stream {
            expected.push(("dapr-stream".to_owned(), "true".to_owned()));
        }
        expected.extend(self.script.metadata.iter().cloned());
        assert!(passed.eq(expected.iter()), "call {id}: metadata {fields:?}");
        let all = |name: &str| {
            let values = fields.iter().filter(|(key, _)| key == name);
            values.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(all(":path"), ["/sim.Tagged/Call"], "call {id}");
        assert_eq!(all("content-type"), ["application/grpc+proto"], "call {id}");
        assert_eq!(all("te"), ["trailers"], "call {id}");
        let port = if own_app { "127.0.0.1:5000" } else { "127.0.0.1:6000" };
        assert_eq!(all(":authority"), [port], "call {id}");
        let ids: [&[&str]; 2] = if own_app { [&[], &[]] } else { [&["alpha"], &["beta"]] };
        assert_eq!([all("dapr-caller-app-id"), all("dapr-callee-app-id")], ids, "call {id}");
        let left = all("grpc-timeout").first().and_then(|text| timeout::parse(text.as_bytes()));
        let least = self.script.timeout.into_iter().chain(time).min();
        assert_eq!(left.is_some(), least.is_some(), "call {id}: grpc-timeout");
        assert!(left <= least, "call {id}: grpc-timeout grows");
    }

    pub fn on_app_event(&mut self, attempt: usize, event: &Event, now: Instant) {
        let id = self.script.id;
        let request = self.script.request.clone();
        let app = self.side(attempt);
        match event {
            Event::Data { data, end_stream, .. } => {
                let expected = request.get(app.received..app.received + data.len());
                assert_eq!(expected, Some(&data[..]), "call {id}: request octets");
                assert!(!app.request_ended, "call {id}: DATA after the end");
                app.received += data.len();
                app.held += data.len() as u32;
                app.request_ended = *end_stream;
            }
            Event::Reset { .. } => {
                app.stage = AppStage::Over;
                app.reset_at = Some(now);
            }
            Event::Headers { kind: SectionKind::Trailers, .. } => {
                panic!("call {id}: request trailers are not passed on")
            }
            other => panic!("call {id}: the app hears {other:?}"),
        }
        if app.request_ended {
            assert_eq!(app.received, request.len(), "call {id}: cut short");
        }
    }

    /// The app goes on.
    pub fn act(
        &mut self,
        attempt: usize,
        h2: &mut Connection,
        seed: &mut Seed,
        hurry: bool,
        now: Instant,
    ) {
        let Self { script, app, earlier, .. } = self;
        let app = earlier.get_mut(attempt).unwrap_or(app);
        if app.held > 0 && !app.stalled && (hurry || seed.one_in(2)) {
            let octets = if hurry { app.held } else { 1 + seed.below(app.held as usize) as u32 };
            app.held -= octets;
            h2.release(app.stream, octets);
        }
        if app.stage != AppStage::Open || script.silent {
            return;
        }
        let may_end = app.request_ended || script.early;
        if let Some(fate) = script.fates.get(attempt) {
            return app.meet(*fate, script, attempt, may_end, h2, now);
        }
        if let Some((at, code)) = script.reset_at
            && app.sent + app.received >= at
        {
            h2.send_reset(app.stream, code);
            app.reset = Some(code);
            app.stage = AppStage::Over;
            return;
        }
        if script.response_end == ResponseEnd::TrailersOnly {
            if may_end {
                h2.send_headers(app.stream, script.head_fields(attempt), true);
                app.stage = AppStage::Said;
            }
            return;
        }
        if (script.waits && !may_end) || h2.queued(app.stream) > QUEUED_MAX {
            return;
        }
        if !app.head_sent {
            h2.send_headers(app.stream, script.head_fields(attempt), false);
            app.head_sent = true;
        }
        let response = script.response_to(attempt);
        let left = response.len() - app.sent;
        let step = if hurry { left } else { seed.below(20_000).min(left) };
        let piece = response.slice(app.sent..app.sent + step);
        app.sent += step;
        let ends = app.sent == response.len() && may_end && (hurry || seed.one_in(3));
        let bare = script.response_end == ResponseEnd::None;
        h2.send_data(app.stream, piece, ends && bare);
        if !ends {
            return;
        }
        if !bare {
            h2.send_headers(app.stream, script.trailer_fields(attempt), true);
        }
        app.stage = AppStage::Said;
        if !app.request_ended && (hurry || seed.one_in(2)) {
            h2.send_reset(app.stream, ErrorCode::NO_ERROR);
        }
    }
}
