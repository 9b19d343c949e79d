//! Frames of the peer, judged (RFC 9113 §6): all but what belongs to messages.
//!
//! 1. What is wrong with the connection is an `Err`, and ends it; what is wrong with a stream
//!    resets that stream and goes on.
//! 2. Each frame is charged to a budget before it costs anything.
//!
//! Refuses to know field sections and DATA: `message` does.

use super::{Connection, Known, OpenBlock, Phase, Settling};
use crate::http2::deframer::Cut;
use crate::http2::error::{ConnectionError, ErrorCode, Limit, StreamError};
use crate::http2::frame::{self, FrameHeader, FrameType, flag};
use crate::http2::settings::{INITIAL_WINDOW_DEFAULT, PeerSettings};
use crate::http2::table::Slot;
use crate::http2::{Event, Role, StreamId};
use bytes::Bytes;
use std::time::Duration;

type Judged = Result<(), ConnectionError>;

impl Connection {
    /// One step through what was received: `Ok(false)` when all of it is done. What the peer did
    /// is in `event`, or queued in `events` where several things come of one frame.
    #[inline]
    pub(super) fn step(&mut self, event: &mut Option<Event>) -> Result<bool, ConnectionError> {
        match self.deframer.cut()? {
            Cut::Hungry => {
                self.note_unended();
                return Ok(false);
            }
            Cut::Data => self.data_piece(self.receiver(self.data.stream), event)?,
            Cut::Frame(header) => {
                self.expect_frame(&header)?;
                self.frame(header, event)?;
            }
        }
        if self.outbox.answers_len() > self.limits.control_bytes_max as usize {
            return Err(ConnectionError::calm(Limit::UnreadAnswers));
        }
        Ok(true)
    }

    /// Order of frames: SETTINGS first (§3.4), nothing inside a field block (§4.3).
    #[inline]
    fn expect_frame(&self, header: &FrameHeader) -> Judged {
        match (self.settling, &self.block) {
            (Settling::Unacknowledged | Settling::Settled, None) => Ok(()),
            (settling, block) => expect_special(settling, block.as_deref(), header),
        }
    }

    #[inline]
    fn frame(&mut self, header: FrameHeader, event: &mut Option<Event>) -> Judged {
        match header.kind {
            FrameType::Data => {
                let receiver = self.data_begins(header)?;
                return self.data_piece(receiver, event);
            }
            FrameType::Headers => self.on_headers(header, event)?,
            FrameType::WindowUpdate => {
                self.on_window_update(header, frame::parse_u32(self.deframer.payload()))?;
            }
            _ => self.rare_frame(header, event)?,
        }
        self.deframer.done();
        Ok(())
    }

    #[cold]
    fn rare_frame(&mut self, header: FrameHeader, event: &mut Option<Event>) -> Judged {
        match header.kind {
            FrameType::Continuation => self.on_continuation(header, event),
            FrameType::Ping => self.on_ping(header, self.deframer.payload().try_into().ok(), event),
            FrameType::Priority => {
                self.on_priority(header, self.deframer.payload().try_into().ok())
            }
            FrameType::RstStream => {
                self.on_rst_stream(header, frame::parse_u32(self.deframer.payload()))
            }
            FrameType::Settings => self.on_settings(header, &self.deframer.keep_payload(), event),
            FrameType::Goaway => self.on_goaway(header, self.deframer.keep_payload()),
            // §8.4: a client cannot push, and we announced SETTINGS_ENABLE_PUSH 0.
            FrameType::PushPromise => Err(ConnectionError::protocol("PUSH_PROMISE")),
            FrameType::Unknown(_) => self.budgets.control(Limit::UnknownFrames, self.now),
            FrameType::Data | FrameType::Headers | FrameType::WindowUpdate => {
                unreachable!("these are not rare")
            }
        }
    }

    /// §6.3 and §5.3.2: checked and otherwise ignored.
    fn on_priority(&mut self, header: FrameHeader, payload: Option<[u8; 5]>) -> Judged {
        self.budgets.rare(Limit::Priorities, self.now)?;
        let id = on_a_stream(&header)?;
        let error = match payload {
            Some([a, b, c, d, _weight]) => {
                if frame::parse_dependency([a, b, c, d]) != id {
                    return Ok(());
                }
                StreamError::protocol("a stream that depends on itself")
            }
            None => StreamError::new(ErrorCode::FRAME_SIZE_ERROR, "length of PRIORITY"),
        };
        match self.known(id) {
            Known::Live(slot) => self.fail_stream(slot, error),
            // A stream that is not live cannot be reset; §5.4.2 allows the larger scope.
            Known::Idle | Known::Closed(_) => Err(ConnectionError::new(error.code, error.reason)),
        }
    }

    /// §6.4.
    fn on_rst_stream(&mut self, header: FrameHeader, code: Option<u32>) -> Judged {
        let id = on_a_stream(&header)?;
        let code = code.ok_or(wrong_length("length of RST_STREAM"))?;
        match self.known(id) {
            Known::Idle => Err(ConnectionError::protocol("RST_STREAM on an idle stream")),
            Known::Closed(_) => self.budgets.late_reset(self.now),
            Known::Live(slot) => {
                let stream = self.table.stream(slot);
                if self.role == Role::Server {
                    self.budgets.reset(stream.born == self.breath, self.now)?;
                }
                let (tag, discarded) = (stream.tag, stream.is_discarded());
                let stream = self.remove(slot);
                self.closed.ended(stream);
                if !discarded {
                    self.events.push_back(Event::Reset { stream, tag, code: ErrorCode(code) });
                }
                Ok(())
            }
        }
    }

    /// §6.5.
    fn on_settings(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        event: &mut Option<Event>,
    ) -> Judged {
        on_the_connection(&header)?;
        self.budgets.rare(Limit::Settings, self.now)?;
        if header.has(flag::ACK) {
            return match payload.is_empty() {
                true => self.settings_acknowledged(),
                false => Err(wrong_length("SETTINGS acknowledgement with a payload")),
            };
        }
        let after = self.peer.after(payload, self.role)?;
        let before = std::mem::replace(&mut self.peer, after);
        for size in PeerSettings::table_sizes(payload) {
            self.encoder.set_peer_table_size(size);
        }
        if after.initial_window != before.initial_window {
            self.shift_send_windows(
                i64::from(after.initial_window) - i64::from(before.initial_window),
            )?;
        }
        frame::write_settings_ack(self.outbox.control());
        if self.settling == Settling::Fresh {
            self.settling = Settling::Unacknowledged;
        }
        *event = Some(Event::Settings);
        Ok(())
    }

    /// §6.9.2.
    fn shift_send_windows(&mut self, difference: i64) -> Judged {
        for index in 0..self.table.slots_end() {
            let Some(slot) = self.table.occupied(index) else { continue };
            let shifted = self.table.stream_mut(slot).send_window.shift(difference);
            shifted.map_err(|_| {
                let reason = "SETTINGS_INITIAL_WINDOW_SIZE overflows a window";
                ConnectionError::new(ErrorCode::FLOW_CONTROL_ERROR, reason)
            })?;
            self.outbox.relink(&mut self.table, slot);
        }
        Ok(())
    }

    /// What we announced holds from here on. An acknowledgement that nothing asked for is
    /// harmless.
    fn settings_acknowledged(&mut self) -> Judged {
        if self.settling != Settling::Unacknowledged {
            return Ok(());
        }
        self.settling = Settling::Settled;
        self.deadline = None;
        self.decoder.set_table_size_max(self.limits.header_table_size);
        if self.limits.stream_window < INITIAL_WINDOW_DEFAULT {
            let difference = i64::from(self.limits.stream_window) - i64::from(self.stream_window);
            self.stream_window = self.limits.stream_window;
            for index in 0..self.table.slots_end() {
                let Some(slot) = self.table.occupied(index) else { continue };
                self.table.stream_mut(slot).recv_window.shift(difference);
                // What was not worth a frame for the large window may be for the small one, and
                // the peer may have nothing left.
                self.update_stream_window(slot);
            }
        }
        Ok(())
    }

    /// §6.7. The acknowledgement goes ahead of all DATA.
    fn on_ping(
        &mut self,
        header: FrameHeader,
        payload: Option<[u8; 8]>,
        event: &mut Option<Event>,
    ) -> Judged {
        on_the_connection(&header)?;
        let payload = payload.ok_or(wrong_length("length of PING"))?;
        self.budgets.control(Limit::Pings, self.now)?;
        match header.has(flag::ACK) {
            true => *event = Some(Event::Pong { payload }),
            // One at a time waits; a second one shows that the peer is in earnest.
            false if self.held_ping.is_none() && !self.limits.ping_ack_delay.is_zero() => {
                self.held_ping = Some((payload, self.now));
            }
            false => {
                self.answer_ping(Duration::ZERO);
                frame::write_ping(self.outbox.control(), payload, true);
            }
        }
        Ok(())
    }

    /// §6.8. Our streams above the last one may be tried elsewhere.
    fn on_goaway(&mut self, header: FrameHeader, payload: Bytes) -> Judged {
        on_the_connection(&header)?;
        self.budgets.rare(Limit::Goaways, self.now)?;
        let (Some(last), Some(code)) = (
            payload.first_chunk().map(|octets| frame::parse_dependency(*octets)),
            payload.get(4..8).and_then(frame::parse_u32),
        ) else {
            return Err(wrong_length("length of GOAWAY"));
        };
        self.phase = Phase::Retired;
        let debug = payload.slice(8..);
        self.events.push_back(Event::Goaway { last, code: ErrorCode(code), debug });
        if self.role == Role::Client {
            self.refuse_above(last);
        }
        Ok(())
    }

    fn refuse_above(&mut self, last: StreamId) {
        for index in 0..self.table.slots_end() {
            let Some(slot) = self.table.occupied(index) else { continue };
            let stream = self.table.stream(slot);
            if stream.id <= last {
                continue;
            }
            let (tag, discarded) = (stream.tag, stream.is_discarded());
            let stream = self.remove(slot);
            self.forget_head(stream);
            self.closed.reset(stream);
            if !discarded {
                self.events.push_back(Event::Refused { stream, tag });
            }
        }
    }

    /// §6.9.
    fn on_window_update(&mut self, header: FrameHeader, increment: Option<u32>) -> Judged {
        let increment = increment.ok_or(wrong_length("length of WINDOW_UPDATE"))?;
        let increment = increment & frame::WINDOW_MAX;
        self.budgets.control(Limit::WindowUpdates, self.now)?;
        if header.stream == StreamId(0) {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE of 0"));
            }
            return self.send_window.grow(increment).map_err(|_| {
                let reason = "WINDOW_UPDATE overflows the connection's window";
                ConnectionError::new(ErrorCode::FLOW_CONTROL_ERROR, reason)
            });
        }
        match self.known(header.stream) {
            Known::Idle => Err(ConnectionError::protocol("WINDOW_UPDATE on an idle stream")),
            Known::Closed(_) => Ok(()),
            Known::Live(slot) if increment == 0 => {
                self.fail_stream(slot, StreamError::protocol("WINDOW_UPDATE of 0"))
            }
            Known::Live(slot) => match self.table.stream_mut(slot).send_window.grow(increment) {
                Ok(()) => {
                    self.outbox.relink(&mut self.table, slot);
                    Ok(())
                }
                Err(_) => {
                    let reason = "WINDOW_UPDATE overflows a stream's window";
                    let error = StreamError::new(ErrorCode::FLOW_CONTROL_ERROR, reason);
                    self.fail_stream(slot, error)
                }
            },
        }
    }

    /// RFC 9113 §5.4.2: the peer broke a rule on a live stream.
    #[cold]
    pub(super) fn fail_stream(&mut self, slot: Slot, error: StreamError) -> Judged {
        self.budgets.error(self.now)?;
        let stream = self.table.stream(slot);
        let (id, tag, discarded) = (stream.id, stream.tag, stream.is_discarded());
        self.reset_stream(slot, error.code);
        if !discarded {
            self.events.push_back(Event::StreamFailed { stream: id, tag, error });
        }
        Ok(())
    }
}

#[cold]
fn expect_special(settling: Settling, block: Option<&OpenBlock>, header: &FrameHeader) -> Judged {
    if settling == Settling::Fresh && (header.kind != FrameType::Settings || header.has(flag::ACK))
    {
        return Err(ConnectionError::protocol("the first frame is not SETTINGS"));
    }
    match block {
        Some(block) if header.kind != FrameType::Continuation || header.stream != block.stream => {
            Err(ConnectionError::protocol("a frame inside a field block"))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn wrong_length(reason: &'static str) -> ConnectionError {
    ConnectionError::new(ErrorCode::FRAME_SIZE_ERROR, reason)
}

fn on_the_connection(header: &FrameHeader) -> Judged {
    match header.stream {
        StreamId(0) => Ok(()),
        _ => Err(ConnectionError::protocol("a connection's frame on a stream")),
    }
}

pub(super) fn on_a_stream(header: &FrameHeader) -> Result<StreamId, ConnectionError> {
    match header.stream {
        StreamId(0) => Err(ConnectionError::protocol("a stream's frame on stream 0")),
        id => Ok(id),
    }
}
