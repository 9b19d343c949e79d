//! Calls that end here: Dapr's own methods and reflection, on the API port.
//!
//! ```text
//! request ──▶ whole message ──▶ Output::Control ──▶ Input::Answered ──▶ response
//! ```
//! 1. Such a call is a call like any other (deadline, cancel, drain, limits), but its other leg is
//!    control, which knows the answers; nothing of it is on the way of calls that are proxied.
//! 2. Control is asked one thing at a time of a call, and [`ASKED_MAX`] of all.
//! 3. Requests take [`OCTETS_MAX`] of a worker; one message is bounded by `--max-body-size`.
//!
//! Sources: Dapr's `pkg/api/grpc/server.go`, `pkg/api/universal/{metadata,shutdown}.go`.

use super::call::{Call, Plan, Up};
use super::contract::{ControlRequest, Listener, Output, Question};
use super::failure::Failure;
use super::head::{self, RequestHead};
use super::rewrite::ContentType;
use super::tally::Tally;
use super::tracer::{self, Begun, Callee, Caller};
use super::{CallKey, ConnKey, Leg, Proxy, call_of};
use crate::config::Tracing;
use crate::grpc::{Code, MessageScanner, timeout};
use crate::http2::{FieldSection, StreamId};
use crate::observe::span::{Span, SpanKind};
use crate::observe::trace::Context;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use slotmap::Key;
use std::time::Instant;

/// Questions of one worker that control has not answered yet.
pub(super) const ASKED_MAX: usize = 16;
/// What the requests of all such calls of a worker take.
pub(super) const OCTETS_MAX: usize = 16 << 20;
/// A flag and a 32-bit length.
const PREFIX: usize = 5;

const DAPR: &[u8] = b"/dapr.proto.runtime.v1.Dapr/";
const REFLECTION: [&[u8]; 2] = [
    b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// What is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    GetMetadata,
    SetMetadata,
    Shutdown,
    /// gRPC server reflection: a stream of questions.
    Reflection,
}

impl Method {
    /// `None`: a call for an app. Dapr's service is answered here whatever its metadata says;
    /// reflection only when it is for nobody else.
    pub(super) fn of(head: &RequestHead<'_>, listener: Listener) -> Option<Result<Self, Failure>> {
        if listener != Listener::Api {
            return None;
        }
        if let Some(name) = head.path.strip_prefix(DAPR) {
            return Some(match name {
                b"GetMetadata" => Ok(Self::GetMetadata),
                b"SetMetadata" => Ok(Self::SetMetadata),
                b"Shutdown" => Ok(Self::Shutdown),
                _ => Err(not_served(head.path)),
            });
        }
        let targeted = head.app_id.is_some() || head.callee_app_id.is_some();
        (!targeted && REFLECTION.contains(&head.path)).then_some(Ok(Self::Reflection))
    }

    /// daprd's series tell its unary methods.
    pub(super) fn is_unary(self) -> bool {
        match self {
            Self::GetMetadata | Self::SetMetadata | Self::Shutdown => true,
            Self::Reflection => false,
        }
    }
}

/// Why a request goes to no upstream.
pub(super) enum Aside {
    Failed(Failure),
    Local(Method),
}

impl From<Failure> for Aside {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn not_served(path: &[u8]) -> Failure {
    let path = String::from_utf8_lossy(path);
    let message = format!(
        "{path} is not served by ringside, a Dapr sidecar for gRPC service invocation only: it \
         proxies calls to apps, named by the metadata dapr-app-id"
    );
    Failure::new(Code::Unimplemented, message)
}

/// What such a call holds.
#[derive(Debug)]
pub(super) struct Local {
    method: Method,
    /// `dapr-force-shutdown: true`.
    force: bool,
    /// Of the request, what was not asked yet.
    body: BytesMut,
    /// Control was asked and has not answered.
    asked: bool,
    /// Of a unary request's message.
    octets: usize,
    /// What the answer tells of the trace.
    context: Option<Context>,
}

/// What all of them hold.
#[derive(Debug, Default)]
pub(super) struct Locals {
    octets: usize,
    asked: usize,
}

impl Locals {
    /// Octets that are held, and questions that control has not answered.
    pub(super) fn used(&self) -> (usize, usize) {
        (self.octets, self.asked)
    }
}

/// `dapr.proto.runtime.v1.SetMetadataRequest`.
#[derive(Clone, PartialEq, Message)]
struct SetMetadataRequest {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

impl Proxy {
    /// A request head arrived whose call ends here.
    #[cold]
    pub(super) fn begin_local(
        &mut self,
        (conn, stream): (ConnKey, StreamId),
        method: Method,
        fields: FieldSection,
        end_stream: bool,
        now: Instant,
    ) {
        let head = head::read_request(&fields);
        let told = method.is_unary().then(|| self.cells.method(b"", head.path));
        let witness = match self.witnesses.listen(Listener::Api) {
            true => self.witness(conn, &fields, None, now),
            false => None,
        };
        let baggage = match head.baggage {
            // It was judged before.
            true => self.baggage(&head, &fields, Listener::Api).ok().flatten(),
            false => None,
        };
        let (span, context) = self.local_span(method, &fields, now);
        let plan = Plan {
            pool: self.pools.app(),
            // A malformed one was refused before the path was looked at.
            deadline: head.timeout.and_then(timeout::parse).map(|left| now + left),
            content_type: ContentType::new(head.content_type),
            request_scanner: MessageScanner::default(),
            tally: Tally::new(Listener::Api, told, false),
            endpoint: None,
            witness,
            span,
            unsaid: None,
            baggage,
        };
        let force = fields.iter().any(|field| {
            field.name == b"dapr-force-shutdown" && field.value.eq_ignore_ascii_case(b"true")
        });
        self.recycle(conn, fields);
        let body = BytesMut::new();
        let local = Local { method, force, body, asked: false, octets: 0, context };
        let up = Up::Local(Box::new(local));
        if let Some(key) = self.enter(conn, stream, end_stream, plan, up, now)
            && end_stream
        {
            self.hear_local(key, now);
        }
    }

    /// daprd's unary interceptor: its stream interceptor makes reflection a call without a target.
    fn local_span(
        &mut self,
        method: Method,
        fields: &FieldSection,
        now: Instant,
    ) -> (Option<Box<Span>>, Option<Context>) {
        if !method.is_unary() {
            return (None, None);
        }
        let head = head::read_request(fields);
        let begun = self.tracer.begin(&head, fields, Caller::App, Callee::App);
        let mut span = self.tracer.record(begun.as_ref(), fields, SpanKind::Client, now);
        if let Some(span) = &mut span {
            span.push(b"dapr.protocol", b"grpc");
            span.push(b"dapr.api", head.path);
        }
        let context = match self.snapshot.config.tracing {
            Tracing::Off => None,
            Tracing::Passed => tracer::parent(&head, fields, Caller::App),
            Tracing::Sampled { .. } => {
                begun.as_ref().and_then(Begun::said).map(|said| said.context.context())
            }
        };
        (span, context)
    }

    /// DATA of such a call's request.
    #[cold]
    pub(super) fn local_data(&mut self, key: CallKey, data: &Bytes, now: Instant) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Leg { conn, stream, .. } = call.down;
        let Up::Local(local) = &mut call.up else { return };
        if self.locals.octets + data.len() > OCTETS_MAX {
            self.cells.limit_hit("local_octets");
            let message = "ringside: too many requests to Dapr's own methods; try again";
            return self.fail(key, &Failure::new(Code::ResourceExhausted, message), now);
        }
        // COPY: a request to the sidecar itself, once.
        local.body.extend_from_slice(data);
        self.locals.octets += data.len();
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.h2.release(stream, data.len() as u32);
        }
        self.hear_local(key, now);
    }

    /// Asks control what the request asks, as soon as that is known.
    fn hear_local(&mut self, key: CallKey, now: Instant) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let ended = call.request_ended;
        let Up::Local(local) = &mut call.up else { return };
        if local.asked || (local.method.is_unary() && !ended) {
            return;
        }
        let before = local.body.len();
        let message = match cut(&mut local.body) {
            Ok(message) => message,
            Err(failure) => return self.fail(key, &failure, now),
        };
        let left = local.body.len();
        self.locals.octets -= before - left;
        let Some(message) = message else {
            return match (local.method, ended) {
                (Method::Reflection, true) if left == 0 => self.end_local(key, now),
                (_, true) => self.fail(key, &malformed("it holds no whole message"), now),
                (_, false) => {}
            };
        };
        if local.method.is_unary() && left > 0 {
            return self.fail(key, &malformed("it holds more than one message"), now);
        }
        local.octets = message.len();
        match question(local, message) {
            Ok(question) => self.ask_control(key, question, now),
            Err(failure) => self.fail(key, &failure, now),
        }
    }

    fn ask_control(&mut self, key: CallKey, question: Question, now: Instant) {
        if self.locals.asked >= ASKED_MAX {
            self.cells.limit_hit("local_calls");
            let message = "ringside: too many calls of Dapr's own methods at once; try again";
            return self.fail(key, &Failure::new(Code::ResourceExhausted, message), now);
        }
        if let Some(Call { up: Up::Local(local), .. }) = self.calls.get_mut(key) {
            local.asked = true;
            self.locals.asked += 1;
            let call = key.data().as_ffi();
            self.outputs.push_back(Output::Control(ControlRequest { call, question }));
        }
    }

    /// Control has answered: once for each question, whether its call is still there or not.
    pub(super) fn answered(&mut self, call: u64, answer: Result<Bytes, &str>, now: Instant) {
        self.locals.asked = self.locals.asked.saturating_sub(1);
        let key = call_of(call);
        let Some(call) = self.calls.get_mut(key) else { return };
        let Up::Local(local) = &mut call.up else { return };
        local.asked = false;
        let (unary, octets) = (local.method.is_unary(), local.octets);
        if let Some(method) = call.tally.method().filter(|_| unary) {
            self.cells.sized(method, octets, answer.as_ref().map_or(0, Bytes::len));
        }
        let message = match answer {
            Ok(message) => message,
            Err(why) => {
                let failure = Failure::new(Code::ResourceExhausted, why.to_owned());
                return self.fail(key, &failure, now);
            }
        };
        self.send_local(key, &message);
        match unary {
            true => self.end_local(key, now),
            false => self.hear_local(key, now),
        }
    }

    /// A message, behind a head if it is the first one.
    fn send_local(&mut self, key: CallKey, message: &Bytes) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Leg { conn, stream, .. } = call.down;
        let Some(peer) = self.peers.get_mut(conn) else { return };
        if !std::mem::replace(&mut call.head_sent, true) {
            let mut fields = peer.h2.spare();
            fields.clear();
            fields.push(b":status", b"200");
            fields.push_prepared(call.content_type.field(&self.fixed));
            if let Some(baggage) = call.baggage.take() {
                fields.push_prepared(&baggage);
            }
            if let Up::Local(local) = &call.up
                && let Some(context) = local.context
            {
                fields.push(b"grpc-trace-bin", &context.binary());
            }
            peer.h2.send_headers(stream, fields, false);
        }
        let mut framed = BytesMut::with_capacity(PREFIX + message.len());
        framed.put_u8(0);
        // Control's answers are bounded far below 4 GiB.
        framed.put_u32(message.len() as u32);
        framed.extend_from_slice(message);
        if let Some(witness) = &mut call.witness {
            witness.saw_response(&framed);
        }
        peer.h2.send_data(stream, framed.freeze(), false);
        peer.touch(conn, &mut self.outputs);
    }

    fn end_local(&mut self, key: CallKey, now: Instant) {
        // OK is a status, and told like every other one.
        self.fail(key, &Failure::new(Code::Ok, ""), now);
    }

    /// The call is over.
    #[cold]
    pub(super) fn forget_local(&mut self, local: &Local) {
        self.locals.octets -= local.body.len();
    }

    pub(super) fn check_locals(&self) {
        let held = self.calls.values().filter_map(|call| match &call.up {
            Up::Local(local) => Some(local.body.len()),
            Up::Parked(_) | Up::Open(_) | Up::None => None,
        });
        assert_eq!(held.sum::<usize>(), self.locals.octets);
        assert!(self.locals.octets <= OCTETS_MAX && self.locals.asked <= ASKED_MAX);
    }
}

/// The first message, if it is whole.
fn cut(body: &mut BytesMut) -> Result<Option<Bytes>, Failure> {
    let Some([flag, a, b, c, d]) = body.first_chunk().copied() else { return Ok(None) };
    if flag != 0 {
        let message = "grpc: Decompressor is not installed: ringside's own methods take \
                       messages without compression";
        return Err(Failure::new(Code::Unimplemented, message));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if body.len() - PREFIX < length {
        return Ok(None);
    }
    body.advance(PREFIX);
    Ok(Some(body.split_to(length).freeze()))
}

fn question(local: &Local, message: Bytes) -> Result<Question, Failure> {
    match local.method {
        Method::GetMetadata => Ok(Question::Metadata),
        Method::Shutdown => Ok(Question::Shutdown { force: local.force }),
        Method::Reflection => Ok(Question::Reflection(message)),
        Method::SetMetadata => {
            let request = SetMetadataRequest::decode(message).map_err(|error| {
                let text = format!("grpc: error unmarshalling request: {error}");
                Failure::new(Code::Internal, text)
            })?;
            Ok(Question::SetMetadata { key: request.key, value: request.value })
        }
    }
}

fn malformed(why: &str) -> Failure {
    Failure::new(Code::Internal, format!("ringside: the request is no unary call: {why}"))
}
