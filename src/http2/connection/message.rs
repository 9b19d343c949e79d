//! Messages of the peer (RFC 9113 §5.1, §6.1, §6.2, §8.1): field sections and DATA.
//!
//! 1. Every field block goes through the decoder, whatever becomes of its stream: the peer's
//!    table moves with it (§4.3).
//! 2. Every octet of DATA is charged to the connection's window when its frame begins, and
//!    given back by somebody: the owner, or here if it never reaches the owner.
//!
//! Refuses to know what a message says.

use super::recv::{on_a_stream, wrong_length};
use super::{Connection, Known, OpenBlock, OpenData};
use crate::http2::closed::Closed;
use crate::http2::error::{ConnectionError, ErrorCode, StreamError};
use crate::http2::field::FieldSection;
use crate::http2::frame::{self, FrameHeader, flag};
use crate::http2::hpack::{BlockLimits, Decoded};
use crate::http2::message;
use crate::http2::stream::{ContentLeft, RecvHalf, SendHalf, Stream};
use crate::http2::table::Slot;
use crate::http2::{Event, Limits, Role, SectionKind, StreamId};
use bytes::Bytes;

type Judged = Result<(), ConnectionError>;

/// A field section, as decoded, before anybody has judged it.
struct Section {
    stream: StreamId,
    end_stream: bool,
    self_dependent: bool,
    decoded: Decoded,
    fields: FieldSection,
}

impl Section {
    /// What is wrong with it wherever it stands.
    fn fault(&self) -> Option<StreamError> {
        if self.self_dependent {
            return Some(StreamError::protocol("a stream that depends on itself"));
        }
        // As Go's HTTP/2 servers answer a header list above their limit.
        let too_large = StreamError::new(ErrorCode::FRAME_SIZE_ERROR, "field section too large");
        self.decoded.over.map(|_| too_large)
    }
}

impl Connection {
    /// §6.2.
    pub(super) fn on_headers(&mut self, header: FrameHeader, payload: &[u8]) -> Judged {
        let stream = on_a_stream(&header)?;
        let (block, self_dependent) = strip_headers(&header, payload)?;
        let end_stream = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.on_block(stream, end_stream, self_dependent, block);
        }
        // COPY: a block in several frames, together; bounded by `continuations_max` frames.
        let octets = block.to_vec();
        let block = OpenBlock { stream, end_stream, self_dependent, continuations: 0, octets };
        self.block = Some(Box::new(block));
        Ok(())
    }

    /// §6.10.
    pub(super) fn on_continuation(&mut self, header: FrameHeader, payload: &[u8]) -> Judged {
        on_a_stream(&header)?;
        let Some(mut block) = self.block.take() else {
            return Err(ConnectionError::protocol("CONTINUATION without HEADERS"));
        };
        block.continuations += 1;
        if block.continuations > self.limits.continuations_max {
            let reason = "too many CONTINUATION frames";
            return Err(ConnectionError::new(ErrorCode::ENHANCE_YOUR_CALM, reason));
        }
        block.octets.extend_from_slice(payload);
        if !header.has(flag::END_HEADERS) {
            self.block = Some(block);
            return Ok(());
        }
        let OpenBlock { stream, end_stream, self_dependent, octets, .. } = *block;
        self.on_block(stream, end_stream, self_dependent, &octets)
    }

    fn on_block(
        &mut self,
        stream: StreamId,
        end_stream: bool,
        self_dependent: bool,
        block: &[u8],
    ) -> Judged {
        let mut fields = self.spare();
        let limits = BlockLimits {
            list_size: self.limits.header_list_size,
            fields_max: self.limits.fields_max,
        };
        let decoded = self.decoder.decode(block, limits, &mut fields)?;
        let section = Section { stream, end_stream, self_dependent, decoded, fields };
        match (self.known(stream), self.role) {
            (Known::Live(slot), Role::Client | Role::Server) => self.on_later(slot, section),
            (Known::Idle, Role::Server) => self.on_request(section),
            (Known::Idle, Role::Client) => {
                Err(ConnectionError::protocol("HEADERS on an idle stream"))
            }
            (Known::Closed(closed), Role::Client | Role::Server) => {
                self.recycle(section.fields);
                self.on_headers_of_closed(stream, closed)
            }
        }
    }

    fn on_headers_of_closed(&mut self, stream: StreamId, closed: Closed) -> Judged {
        match closed {
            Closed::Reset => Ok(()),
            Closed::Forgotten => self.refuse_unseen(stream, ErrorCode::STREAM_CLOSED),
            Closed::Ended => {
                let reason = "HEADERS on a closed stream";
                Err(ConnectionError::new(ErrorCode::STREAM_CLOSED, reason))
            }
            // §5.1.1: IDs rise.
            Closed::Skipped => Err(ConnectionError::protocol("HEADERS on a lower stream")),
        }
    }

    /// RST_STREAM for a stream that the owner never saw, for the peer's error.
    fn refuse_unseen(&mut self, stream: StreamId, code: ErrorCode) -> Judged {
        self.budgets.error(self.now)?;
        self.reset_unseen(stream, code);
        Ok(())
    }

    /// Server role: a new stream.
    fn on_request(&mut self, section: Section) -> Judged {
        let id = section.stream;
        if id.0.is_multiple_of(2) {
            return Err(ConnectionError::protocol("a client's stream with an even number"));
        }
        self.next_id = id.0 + 2;
        let Limits { max_concurrent_streams, streams_max, .. } = self.limits;
        let streams_max = max_concurrent_streams.unwrap_or(streams_max).min(streams_max);
        if id > self.accept_max || self.table.len() >= streams_max as usize {
            self.recycle(section.fields);
            // No error of the peer's: it may not know our limit yet, or our GOAWAY.
            self.budgets.control(self.now)?;
            self.reset_unseen(id, ErrorCode::REFUSED_STREAM);
            return Ok(());
        }
        let request = match judge_request(&section) {
            Ok(request) => request,
            Err(error) => {
                self.recycle(section.fields);
                return self.refuse_unseen(id, error.code);
            }
        };
        let recv = if section.end_stream { RecvHalf::Ended } else { RecvHalf::Body };
        let send_window = self.peer.initial_window;
        let mut stream = Stream::new(id, recv, SendHalf::Head, send_window, self.stream_window);
        stream.content_left = content_left(request.content_length);
        let tag = stream.tag;
        self.table.insert(stream);
        self.accepted = id;
        self.budgets.earn();
        let Section { end_stream, fields, .. } = section;
        let kind = SectionKind::Request;
        self.events.push_back(Event::Headers { stream: id, tag, kind, fields, end_stream });
        Ok(())
    }

    /// A section on a live stream: a response head, or trailers.
    fn on_later(&mut self, slot: Slot, section: Section) -> Judged {
        let stream = self.table.stream_mut(slot);
        let judged = match (stream.recv, section.fault()) {
            (RecvHalf::Discarded(_), _) => {
                if section.end_stream {
                    stream.recv = RecvHalf::Ended;
                    self.remove_if_closed(slot);
                }
                self.recycle(section.fields);
                return Ok(());
            }
            (RecvHalf::Ended, _) => {
                let reason = "HEADERS after END_STREAM";
                Err(StreamError::new(ErrorCode::STREAM_CLOSED, reason))
            }
            (RecvHalf::Head | RecvHalf::Body, Some(fault)) => Err(fault),
            (RecvHalf::Head, None) => judge_response(stream, &section),
            (RecvHalf::Body, None) => judge_trailers(&section),
        };
        let kind = match judged {
            Ok(kind) => kind,
            Err(error) => {
                self.recycle(section.fields);
                return self.fail_stream(slot, error);
            }
        };
        if kind == SectionKind::Response {
            stream.recv = RecvHalf::Body;
        }
        let (tag, ended) = (stream.tag, section.end_stream.then(|| stream.recv_end()));
        if let Some(Err(error)) = ended {
            self.recycle(section.fields);
            return self.fail_stream(slot, error);
        }
        self.budgets.earn();
        let Section { stream, end_stream, fields, .. } = section;
        self.events.push_back(Event::Headers { stream, tag, kind, fields, end_stream });
        self.remove_if_closed(slot);
        Ok(())
    }

    /// §6.1: the frame's header and padding; `padding` octets are no data.
    pub(super) fn data_begins(&mut self, header: FrameHeader, padding: u32) -> Judged {
        let id = on_a_stream(&header)?;
        let end_stream = header.has(flag::END_STREAM);
        self.data = OpenData { stream: id, end_stream };
        self.recv_window.begin_frame(header.len).map_err(|_| {
            let reason = "DATA beyond the connection's window";
            ConnectionError::new(ErrorCode::FLOW_CONTROL_ERROR, reason)
        })?;
        self.recv_window.skip(padding);
        self.update_connection_window();
        let content = header.len - padding;
        match content {
            0 if !end_stream => self.budgets.control(self.now)?,
            0 => {}
            _ => self.budgets.earn(),
        }
        match self.known(id) {
            Known::Live(slot) => {
                let stream = self.table.stream_mut(slot);
                match charge_stream(stream, header.len, padding, content) {
                    Ok(()) => {
                        self.update_stream_window(slot);
                        Ok(())
                    }
                    Err(error) => self.fail_stream(slot, error),
                }
            }
            Known::Idle => Err(ConnectionError::protocol("DATA on an idle stream")),
            Known::Closed(Closed::Reset | Closed::Forgotten) => Ok(()),
            Known::Closed(Closed::Ended) => self.refuse_unseen(id, ErrorCode::STREAM_CLOSED),
            Known::Closed(Closed::Skipped) => {
                Err(ConnectionError::protocol("DATA on a stream that was never opened"))
            }
        }
    }

    pub(super) fn data_piece(&mut self, data: Bytes, last: bool) -> Judged {
        let id = self.data.stream;
        let len = data.len() as u32;
        let end_stream = last && self.data.end_stream;
        let receiver = self.table.find(id).filter(|slot| self.table.stream(*slot).is_receiving());
        let Some(slot) = receiver else {
            return self.drop_piece(id, len, end_stream);
        };
        let stream = self.table.stream_mut(slot);
        let tag = stream.tag;
        if end_stream && let Err(error) = stream.recv_end() {
            self.recv_window.skip(len);
            self.update_connection_window();
            return self.fail_stream(slot, error);
        }
        if len > 0 || end_stream {
            stream.recv_window.hold(len);
            self.recv_window.hold(len);
            self.events.push_back(Event::Data { stream: id, tag, data, end_stream });
            self.update_connection_window();
        }
        if end_stream {
            self.remove_if_closed(slot);
        }
        Ok(())
    }

    /// Nobody wants it: the window goes back at once.
    fn drop_piece(&mut self, id: StreamId, len: u32, end_stream: bool) -> Judged {
        self.recv_window.skip(len);
        self.update_connection_window();
        if end_stream && let Some(slot) = self.table.find(id) {
            let stream = self.table.stream_mut(slot);
            if stream.is_discarded() {
                stream.recv = RecvHalf::Ended;
                self.remove_if_closed(slot);
            }
        }
        Ok(())
    }
}

fn content_left(content_length: Option<u64>) -> ContentLeft {
    content_length.map_or(ContentLeft::Unsaid, ContentLeft::Octets)
}

/// Charges the stream for a DATA frame, if it may come at all.
fn charge_stream(
    stream: &mut Stream,
    len: u32,
    padding: u32,
    content: u32,
) -> Result<(), StreamError> {
    match stream.recv {
        RecvHalf::Head => Err(StreamError::protocol("DATA before the response head")),
        RecvHalf::Ended => Err(StreamError::new(ErrorCode::STREAM_CLOSED, "DATA after END_STREAM")),
        RecvHalf::Discarded(_) => Ok(()),
        RecvHalf::Body => {
            stream.recv_window.begin_frame(len).map_err(|_| {
                let reason = "DATA beyond the stream's window";
                StreamError::new(ErrorCode::FLOW_CONTROL_ERROR, reason)
            })?;
            stream.recv_window.skip(padding);
            stream.count_content(content)
        }
    }
}

fn judge_request(section: &Section) -> Result<message::Request, StreamError> {
    if let Some(fault) = section.fault() {
        return Err(fault);
    }
    let request = message::check_request(&section.fields, section.decoded.flags)
        .map_err(StreamError::protocol)?;
    match (section.end_stream, request.content_length) {
        (true, Some(1..)) => Err(StreamError::protocol("content-length without DATA")),
        (true, Some(0) | None) | (false, _) => Ok(request),
    }
}

/// Client role. §8.1: any number of informational heads, then one final head.
fn judge_response(stream: &mut Stream, section: &Section) -> Result<SectionKind, StreamError> {
    let response = message::check_response(&section.fields, section.decoded.flags)
        .map_err(StreamError::protocol)?;
    if response.status < 200 {
        return match section.end_stream {
            true => Err(StreamError::protocol("END_STREAM on an informational head")),
            false => Ok(SectionKind::Informational),
        };
    }
    // RFC 9110 §8.6: these say what another response would have carried.
    let bodiless = matches!(response.status, 204 | 304);
    if stream.content_left != ContentLeft::Ignored && !bodiless {
        stream.content_left = content_left(response.content_length);
    }
    Ok(SectionKind::Response)
}

fn judge_trailers(section: &Section) -> Result<SectionKind, StreamError> {
    if !section.end_stream {
        return Err(StreamError::protocol("trailers without END_STREAM"));
    }
    message::check_trailers(&section.fields, section.decoded.flags)
        .map_err(StreamError::protocol)?;
    Ok(SectionKind::Trailers)
}

/// The field block within HEADERS, without padding and priority; whether the stream is said to
/// depend on itself.
fn strip_headers<'a>(
    header: &FrameHeader,
    payload: &'a [u8],
) -> Result<(&'a [u8], bool), ConnectionError> {
    let mut block = payload;
    if header.has(flag::PADDED) {
        let (padding, rest) = block.split_first().ok_or(wrong_length("length of HEADERS"))?;
        let end = rest.len().checked_sub(usize::from(*padding));
        block = end
            .and_then(|end| rest.get(..end))
            .ok_or(ConnectionError::protocol("padding longer than its HEADERS"))?;
    }
    let mut self_dependent = false;
    if header.has(flag::PRIORITY) {
        let (dependency, rest) =
            block.split_first_chunk::<4>().ok_or(wrong_length("length of HEADERS"))?;
        let (_weight, rest) = rest.split_first().ok_or(wrong_length("length of HEADERS"))?;
        self_dependent = frame::parse_dependency(*dependency) == header.stream;
        block = rest;
    }
    Ok((block, self_dependent))
}
