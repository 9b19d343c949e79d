//! What passes between a call's two streams: heads, DATA by reference, trailers, resets.
//!
//! 1. DATA whose call is gone has its window returned where it came in.
//! 2. A peer that answers in HTTP instead of gRPC is translated; a caller always gets a status.

use super::call::{Call, Up};
use super::failure::Failure;
use super::guard::{Cause, Guard};
use super::head::{self, is_grpc};
use super::replay::Unseen;
use super::{CallKey, ConnKey, Leg, Proxy, rewrite};
use crate::grpc::{Code, TooLarge, status};
use crate::http2::{ErrorCode, FieldSection, StreamError, StreamId};
use bytes::Bytes;
use std::time::Instant;

impl Proxy {
    /// DATA from either side.
    pub(super) fn relay_data(
        &mut self,
        conn: ConnKey,
        stream: StreamId,
        key: CallKey,
        data: Bytes,
        end_stream: bool,
        now: Instant,
    ) {
        match self.calls.get(key) {
            Some(Call { down, .. }) if down.conn == conn && down.stream == stream => {
                self.relay_request(key, data, end_stream, now);
            }
            Some(Call { up: Up::Open(up), .. }) if up.conn == conn && up.stream == stream => {
                self.relay_response(key, data, end_stream, now);
            }
            Some(_) | None => {
                if let Some(peer) = self.peers.get_mut(conn) {
                    peer.h2.release(stream, data.len() as u32);
                }
            }
        }
    }

    fn relay_request(&mut self, key: CallKey, data: Bytes, end_stream: bool, now: Instant) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if let Some(witness) = &mut call.witness {
            witness.saw_request(&data);
        }
        let max = self.snapshot.config.max_body_size;
        if let Err(TooLarge { len, .. }) = call.request_scanner.scan(&data, max) {
            self.cells.limit_hit("message_size");
            self.fail(key, &Failure::too_large(len, max), now);
            return;
        }
        let several = call.request_scanner.messages() > 1;
        if several && self.guards.get(key).is_some_and(Guard::retries) {
            return self.refuse_messages(key, now);
        }
        call.request_ended |= end_stream;
        match &mut call.up {
            Up::Parked(parked) => parked.pending.push(data),
            Up::Open(Leg { conn, stream, .. }) => {
                if let Some(peer) = self.peers.get_mut(*conn) {
                    if let Some(fields) = self.keeper.data(&mut call.kept, &data) {
                        peer.h2.give_head(*stream, fields);
                    }
                    peer.h2.send_data(*stream, data, end_stream);
                    peer.touch(*conn, &mut self.outputs);
                }
            }
            Up::Local(_) => self.local_data(key, &data, now),
            Up::None if self.guards.get(key).is_some_and(Guard::is_between) => {
                // Too much of it: the next attempt finds that out.
                drop(self.keeper.data(&mut call.kept, &data));
            }
            Up::None => {
                let Leg { conn, stream, .. } = call.down;
                if let Some(peer) = self.peers.get_mut(conn) {
                    peer.h2.release(stream, data.len() as u32);
                }
            }
        }
    }

    fn relay_response(&mut self, key: CallKey, data: Bytes, end_stream: bool, now: Instant) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if let Some(witness) = &mut call.witness {
            witness.saw_response(&data);
        }
        let max = response_max(self.snapshot.config.max_body_size);
        if let Err(TooLarge { len, before }) = call.response_scanner.scan(&data, max) {
            self.cells.limit_hit("message_size");
            let Leg { conn, stream, .. } = call.down;
            self.release_head(key, now);
            if let Some(peer) = self.peers.get_mut(conn) {
                peer.h2.send_data(stream, data.slice(..before), false);
            }
            self.fail(key, &Failure::too_large(len, max), now);
            return;
        }
        let Leg { conn, stream, .. } = call.down;
        call.response_ended |= end_stream;
        if !call.head_sent {
            self.release_head(key, now);
        }
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.h2.send_data(stream, data, false);
            peer.touch(conn, &mut self.outputs);
            if peer.h2.queued_in_all() > self.bounds.unread {
                return self.close_unread(conn, now);
            }
        }
        if end_stream {
            let text = "server closed the stream without sending trailers";
            self.fail_by_upstream(key, Code::Internal, text, now);
        }
    }

    /// A caller's connection holds more than is ever kept for one that does not read.
    fn close_unread(&mut self, conn: ConnKey, now: Instant) {
        self.limit_reached("unread_connection", "closed: responses are not read", conn, now);
        self.give_up(conn, "responses are not read", now);
    }

    /// The final response head; with `end_stream` it is all there is ("Trailers-Only").
    pub(super) fn relay_head(
        &mut self,
        from: ConnKey,
        key: CallKey,
        mut fields: FieldSection,
        end_stream: bool,
        now: Instant,
    ) {
        let head = head::read_response(&fields);
        let ours = head.status == b"200" && head.content_type.is_some_and(is_grpc);
        // A peer that tells a gRPC status tells enough, whatever else its head looks like.
        let told = head.grpc_status.map(status::parse_code);
        let status = told.unwrap_or(Code::Unknown as u8);
        let foreign = !ours && told.is_none();
        let foreign = foreign.then(|| Failure::of_response(head.status, head.content_type));
        let failed = end_stream && status != Code::Ok as u8 && foreign.is_none();
        let undelivered = end_stream && self.take_proof(from, &mut fields);
        if failed && self.status_again(key, status, undelivered, &fields, now) {
            return self.recycle(from, fields);
        }
        let Some(call) = self.calls.get_mut(key) else { return self.recycle(from, fields) };
        if let Some(witness) = &mut call.witness {
            witness.answered(now);
        }
        call.response_ended |= end_stream;
        if let Some((code, text)) = foreign {
            self.recycle(from, fields);
            return self.fail_by_upstream(key, code, &text, now);
        }
        if told == Some(Code::Canceled as u8) && call.is_late(now) {
            self.recycle(from, fields);
            return self.fail(key, &Failure::deadline(), now);
        }
        rewrite::response(&mut fields, call.content_type.field(&self.fixed));
        if !ours {
            fields.replace(b":status", b"200");
        }
        if end_stream && told.is_none() {
            add_status(&mut fields);
        }
        if !end_stream
            && call.kept.is_some()
            && let Some(guard) = self.guards.get_mut(key)
            && guard.holds()
        {
            guard.hold(fields);
            let section = self.keeper.section();
            return self.recycle(from, section);
        }
        if end_stream {
            call.trace_status(status, &fields);
        }
        self.send_head(key, fields, end_stream, now);
        if end_stream {
            self.complete(key, status, now);
        }
    }

    /// From now on the call is not made again.
    pub(super) fn send_head(
        &mut self,
        key: CallKey,
        mut fields: FieldSection,
        end_stream: bool,
        now: Instant,
    ) {
        if self.calls.get(key).is_some_and(|call| call.baggage.is_some()) {
            self.give_baggage(key, &mut fields, end_stream);
        }
        let Some(call) = self.calls.get_mut(key) else { return };
        call.head_sent = true;
        let Leg { conn, stream, .. } = call.down;
        let (kept, up) = (call.kept.take(), call.up.leg());
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.h2.send_headers(stream, fields, end_stream);
            peer.touch(conn, &mut self.outputs);
            if peer.h2.queued_in_all() > self.bounds.unread {
                self.close_unread(conn, now);
            }
        }
        let Some(kept) = kept else { return };
        let fields = self.keeper.forget(kept);
        if let Some(up) = up {
            self.recycle(up.conn, fields);
        }
    }

    pub(super) fn relay_trailers(
        &mut self,
        from: ConnKey,
        key: CallKey,
        mut fields: FieldSection,
        now: Instant,
    ) {
        let Some(call) = self.calls.get_mut(key) else { return self.recycle(from, fields) };
        if call.down.conn == from {
            // gRPC has no request trailers: their end of stream counts, they do not.
            self.recycle(from, fields);
            self.relay_request(key, Bytes::new(), true, now);
            return;
        }
        call.response_ended = true;
        let told = head::read_response(&fields).grpc_status.map(status::parse_code);
        if told.is_none() {
            add_status(&mut fields);
        }
        // Whose timer rings first is chance: after the deadline a cancelled call is a late one.
        if told == Some(Code::Canceled as u8) && call.is_late(now) {
            self.recycle(from, fields);
            return self.fail(key, &Failure::deadline(), now);
        }
        let Leg { conn, stream, .. } = call.down;
        let status = told.unwrap_or(Code::Unknown as u8);
        call.trace_status(status, &fields);
        if !call.head_sent {
            if status != Code::Ok as u8 && self.status_again(key, status, false, &fields, now) {
                return self.recycle(from, fields);
            }
            self.release_head(key, now);
        }
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.h2.send_headers(stream, fields, true);
            peer.touch(conn, &mut self.outputs);
            // A call takes one section from the caller's connection and two from the callee's,
            // and leaves them the other way round: this one goes home.
            let spare = peer.h2.spare();
            let unread = peer.h2.queued_in_all() > self.bounds.unread;
            self.recycle(from, spare);
            if unread {
                return self.close_unread(conn, now);
            }
        }
        self.complete(key, status, now);
    }

    /// RST_STREAM from either side.
    pub(super) fn stream_reset(
        &mut self,
        from: ConnKey,
        key: CallKey,
        code: ErrorCode,
        now: Instant,
    ) {
        let Some(call) = self.calls.get(key) else { return };
        if call.down.conn == from {
            return self.cancel(key, now);
        }
        let late = call.is_late(now);
        let refused = code == ErrorCode::REFUSED_STREAM;
        if refused && self.replay(key, Unseen::Refused, now) {
            return;
        }
        self.detach(from, key);
        // The callee keeps the deadline too, and may be the first to act on it (grpc-go's client
        // reads a CANCEL past the deadline the same way).
        if late && code == ErrorCode::CANCEL {
            return self.fail(key, &Failure::deadline(), now);
        }
        if code == ErrorCode::CANCEL && self.is_attempt_late(key, now) {
            return self.attempt_timed_out(key, now);
        }
        let (code, text) = Failure::reset(code);
        let (failure, cause) = (Failure::new(code, self.blame(from, &text)), code as u8);
        if refused {
            return self.fail_attempt(key, &failure.undelivered(), Cause::Undelivered(cause), now);
        }
        self.fail_attempt(key, &failure, Cause::Status(cause), now);
    }

    /// What the upstream did ends the call, whose stream it still has.
    #[cold]
    fn fail_by_upstream(&mut self, key: CallKey, code: Code, text: &str, now: Instant) {
        let Some(Call { up: Up::Open(up), .. }) = self.calls.get(key) else { return };
        let failure = Failure::new(code, self.blame(up.conn, text));
        self.fail_attempt(key, &failure, Cause::Status(code as u8), now);
    }

    /// A peer broke a rule on one stream; the engine has reset it.
    pub(super) fn stream_failed(
        &mut self,
        from: ConnKey,
        key: CallKey,
        error: StreamError,
        now: Instant,
    ) {
        let Some(call) = self.calls.get(key) else { return };
        if call.down.conn == from {
            return self.cancel(key, now);
        }
        self.detach(from, key);
        let StreamError { code, reason } = error;
        let name = code.name();
        let text = format!("ringside: the callee broke HTTP/2 on this stream ({name}): {reason}");
        let failure = Failure::new(Code::Internal, self.blame(from, &text));
        self.fail_attempt(key, &failure, Cause::Status(failure.code as u8), now);
    }
}

/// What grpc-go makes of an end without a status.
fn add_status(fields: &mut FieldSection) {
    fields.push(b"grpc-status", Code::Unknown.text().as_bytes());
}

/// Responses under `--max-body-size 0` get grpc-go's default (spec 03 §3.7).
fn response_max(max_body_size: u64) -> u64 {
    const DEFAULT: u64 = 4 << 20;
    if max_body_size == 0 { DEFAULT } else { max_body_size }
}
