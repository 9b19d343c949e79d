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
use crate::http2::abuse::TINY_BELOW;
use crate::http2::closed::Closed;
use crate::http2::deframer::Piece;
use crate::http2::error::{ConnectionError, ErrorCode, Limit, StreamError};
use crate::http2::field::FieldSection;
use crate::http2::frame::{self, FrameHeader, flag};
use crate::http2::hpack::{BlockLimits, Decoded, Decoder};
use crate::http2::message::{self, Verdicts};
use crate::http2::stream::{ContentLeft, RecvHalf, SendHalf, Stream};
use crate::http2::table::Slot;
use crate::http2::{Event, HEADER_LIST_EXPANSION, Limits};
use crate::http2::{Role, SectionKind, StreamId, Tag};

type Judged = Result<(), ConnectionError>;

/// What is known of a field section besides its fields, before anybody has judged it.
#[derive(Clone, Copy)]
struct Section {
    stream: StreamId,
    end_stream: bool,
    self_dependent: bool,
    decoded: Decoded,
}

/// Where a section stands on its stream, if it is the owner's to have.
type Placed = Result<Option<(SectionKind, Tag)>, ConnectionError>;

impl Section {
    /// What is wrong with it wherever it stands.
    fn fault(&self) -> Option<StreamError> {
        if self.self_dependent {
            return Some(StreamError::protocol("a stream that depends on itself"));
        }
        // As Go's HTTP/2 servers answer a header list above their limit.
        let too_large = StreamError::new(ErrorCode::FRAME_SIZE_ERROR, Limit::FieldSection.reason());
        self.decoded.over.map(|_| too_large)
    }
}

impl Connection {
    /// §6.2.
    #[inline]
    pub(super) fn on_headers(&mut self, header: FrameHeader, event: &mut Option<Event>) -> Judged {
        let stream = on_a_stream(&header)?;
        let end_stream = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            let mut fields = self.spare();
            let (block, self_dependent) = strip_headers(&header, self.deframer.payload())?;
            let limits = block_limits(&self.limits, block.len());
            let decoded = self.decoder.decode(block, limits, &mut fields)?;
            let section = Section { stream, end_stream, self_dependent, decoded };
            return self.on_section(section, fields, event);
        }
        let (block, self_dependent) = strip_headers(&header, self.deframer.payload())?;
        // COPY: a block in several frames, together; bounded by `continuations_max` frames.
        let octets = block.to_vec();
        self.block = Some(Box::new(OpenBlock {
            stream,
            end_stream,
            self_dependent,
            continuations: 0,
            since: self.now,
            octets,
        }));
        Ok(())
    }

    /// §6.10.
    #[cold]
    pub(super) fn on_continuation(
        &mut self,
        header: FrameHeader,
        event: &mut Option<Event>,
    ) -> Judged {
        on_a_stream(&header)?;
        let Some(mut block) = self.block.take() else {
            return Err(ConnectionError::protocol("CONTINUATION without HEADERS"));
        };
        block.continuations += 1;
        if block.continuations > self.limits.continuations_max {
            return Err(ConnectionError::calm(Limit::Continuations));
        }
        block.octets.extend_from_slice(self.deframer.payload());
        if !header.has(flag::END_HEADERS) {
            self.block = Some(block);
            return Ok(());
        }
        let OpenBlock { stream, end_stream, self_dependent, octets, .. } = *block;
        let mut fields = self.spare();
        let limits = block_limits(&self.limits, octets.len());
        let decoded = self.decoder.decode(&octets, limits, &mut fields)?;
        self.on_section(Section { stream, end_stream, self_dependent, decoded }, fields, event)
    }

    #[inline(always)]
    fn on_section(
        &mut self,
        section: Section,
        fields: FieldSection,
        event: &mut Option<Event>,
    ) -> Judged {
        let Section { stream, end_stream, .. } = section;
        if section.decoded.over.is_some() {
            self.events.push_back(Event::Limited(Limit::FieldSection));
        }
        let placed = match (self.known(stream), self.role) {
            (Known::Live(slot), Role::Client | Role::Server) => {
                self.on_later(slot, section, &fields)
            }
            (Known::Idle, Role::Server) => self.on_request(section, &fields),
            (Known::Idle, Role::Client) => {
                Err(ConnectionError::protocol("HEADERS on an idle stream"))
            }
            (Known::Closed(closed), Role::Client | Role::Server) => {
                self.on_headers_of_closed(stream, closed).map(|()| None)
            }
        };
        let Some((kind, tag)) = placed? else {
            self.recycle(fields);
            return Ok(());
        };
        match kind {
            // Callers of many calls can ask for one with each (RFC 9110 §10.1.1).
            SectionKind::Informational => {
                self.budgets.control(Limit::InformationalHeads, self.now)?;
            }
            SectionKind::Request | SectionKind::Response | SectionKind::Trailers => {
                self.budgets.earn();
            }
        }
        let repeat = section.decoded.repeat;
        *event = Some(Event::Headers { stream, tag, kind, fields, end_stream, repeat });
        Ok(())
    }

    #[cold]
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
    #[cold]
    fn refuse_unseen(&mut self, stream: StreamId, code: ErrorCode) -> Judged {
        self.budgets.error(self.now)?;
        self.reset_unseen(stream, code);
        Ok(())
    }

    /// Server role: a new stream.
    fn on_request(&mut self, section: Section, fields: &FieldSection) -> Placed {
        let id = section.stream;
        if id.0.is_multiple_of(2) {
            return Err(ConnectionError::protocol("a client's stream with an even number"));
        }
        self.next_id = id.0 + 2;
        let Limits { max_concurrent_streams, streams_max, .. } = self.limits;
        let streams_max = max_concurrent_streams.unwrap_or(streams_max).min(streams_max);
        if id > self.accept_max || self.table.len() >= streams_max as usize {
            // No error of the peer's: it may not know our limit yet, or our GOAWAY.
            self.budgets.control(Limit::RefusedStreams, self.now)?;
            if id <= self.accept_max {
                self.events.push_back(Event::Limited(Limit::Streams));
            }
            self.reset_unseen(id, ErrorCode::REFUSED_STREAM);
            return Ok(None);
        }
        let request = match judge_request(section, fields, &mut self.decoder) {
            Ok(request) => request,
            Err(error) => return self.refuse_unseen(id, error.code).map(|()| None),
        };
        let recv = if section.end_stream { RecvHalf::Ended } else { RecvHalf::Body };
        let send_window = self.peer.initial_window;
        let mut stream = Stream::new(id, recv, SendHalf::Head, send_window, self.stream_window);
        stream.content_left = content_left(request.content_length);
        stream.born = self.breath;
        let tag = stream.tag;
        self.table.insert(stream);
        self.accepted = id;
        Ok(Some((SectionKind::Request, tag)))
    }

    /// A section on a live stream: a response head, or trailers.
    fn on_later(&mut self, slot: Slot, section: Section, fields: &FieldSection) -> Placed {
        let stream = self.table.stream_mut(slot);
        let judged = match (stream.recv, section.fault()) {
            (RecvHalf::Discarded(_), _) => {
                // Whatever it says, it has seen this stream.
                self.answered = self.answered.max(stream.id);
                if section.end_stream {
                    stream.recv = RecvHalf::Ended;
                    self.remove_if_closed(slot);
                }
                return Ok(None);
            }
            (RecvHalf::Ended, _) => {
                let reason = "HEADERS after END_STREAM";
                Err(StreamError::new(ErrorCode::STREAM_CLOSED, reason))
            }
            (RecvHalf::Head | RecvHalf::Body, Some(fault)) => Err(fault),
            (RecvHalf::Head, None) => judge_response(stream, section, fields, &mut self.decoder),
            (RecvHalf::Body, None) => judge_trailers(section, fields, &mut self.decoder),
        };
        let ended = judged.and_then(|kind| match section.end_stream {
            true => stream.recv_end().map(|()| kind),
            false => Ok(kind),
        });
        let kind = match ended {
            Ok(kind) => kind,
            Err(error) => return self.fail_stream(slot, error).map(|()| None),
        };
        let tag = stream.tag;
        if kind == SectionKind::Response {
            self.answered = self.answered.max(stream.id);
        }
        match section.end_stream {
            true => self.remove_if_closed(slot),
            false if kind == SectionKind::Response => stream.recv = RecvHalf::Body,
            false => {}
        }
        Ok(Some((kind, tag)))
    }

    /// §6.1: the frame's header and padding.
    /// Returns who gets its pieces.
    #[inline]
    pub(super) fn data_begins(
        &mut self,
        header: FrameHeader,
    ) -> Result<Option<Slot>, ConnectionError> {
        let id = on_a_stream(&header)?;
        let end_stream = header.has(flag::END_STREAM);
        let content = self.deframer.data_left();
        let padding = header.len - content;
        self.data = OpenData { stream: id, end_stream };
        self.recv_window.begin_frame(header.len).map_err(|_| {
            let reason = "DATA beyond the connection's window";
            ConnectionError::new(ErrorCode::FLOW_CONTROL_ERROR, reason)
        })?;
        if padding > 0 {
            self.recv_window.skip(padding);
            self.update_connection_window();
        }
        match content {
            0 if !end_stream => self.budgets.control(Limit::EmptyData, self.now)?,
            // The last of a message may be short, and comes once.
            ..TINY_BELOW if end_stream || !self.limits.tiny_data_limited => {}
            octets => self.budgets.data(octets, self.now)?,
        }
        let Known::Live(slot) = self.known(id) else {
            self.data_of_none(id)?;
            return Ok(None);
        };
        let stream = self.table.stream_mut(slot);
        match charge_stream(stream, header.len, padding, content) {
            Ok(()) => {
                let receives = stream.is_receiving();
                self.update_stream_window(slot);
                Ok(receives.then_some(slot))
            }
            Err(error) => self.fail_stream(slot, error).map(|()| None),
        }
    }

    /// DATA on a stream that is not live.
    #[cold]
    fn data_of_none(&mut self, id: StreamId) -> Judged {
        match self.known(id) {
            Known::Live(_) | Known::Closed(Closed::Reset | Closed::Forgotten) => Ok(()),
            Known::Idle => Err(ConnectionError::protocol("DATA on an idle stream")),
            Known::Closed(Closed::Ended) => self.refuse_unseen(id, ErrorCode::STREAM_CLOSED),
            Known::Closed(Closed::Skipped) => {
                Err(ConnectionError::protocol("DATA on a stream that was never opened"))
            }
        }
    }

    /// The stream, if it is live and somebody listens to it.
    pub(super) fn receiver(&self, id: StreamId) -> Option<Slot> {
        self.table.find(id).filter(|slot| self.table.stream(*slot).is_receiving())
    }

    /// What has come of the DATA frame's next piece.
    #[inline]
    pub(super) fn data_piece(
        &mut self,
        receiver: Option<Slot>,
        event: &mut Option<Event>,
    ) -> Judged {
        let Some(Piece { data, last }) = self.deframer.piece() else { return Ok(()) };
        let len = data.len() as u32;
        let OpenData { stream: id, end_stream } = self.data;
        let end_stream = last && end_stream;
        let Some(slot) = receiver else {
            self.drop_piece(id, len, end_stream);
            return Ok(());
        };
        let stream = self.table.stream_mut(slot);
        let tag = stream.tag;
        if end_stream && let Err(error) = stream.recv_end() {
            self.recv_window.skip(len);
            self.update_connection_window();
            return self.fail_stream(slot, error);
        }
        if len > 0 {
            stream.recv_window.hold(len);
            self.recv_window.hold(len);
            self.update_connection_window();
        } else if !end_stream {
            return Ok(());
        }
        if end_stream {
            self.remove_if_closed(slot);
        }
        *event = Some(Event::Data { stream: id, tag, data, end_stream });
        Ok(())
    }

    /// Nobody wants it: the window goes back at once.
    #[cold]
    fn drop_piece(&mut self, id: StreamId, len: u32, end_stream: bool) {
        self.recv_window.skip(len);
        self.update_connection_window();
        if end_stream && let Some(slot) = self.table.find(id) {
            let stream = self.table.stream_mut(slot);
            if stream.is_discarded() {
                stream.recv = RecvHalf::Ended;
                self.remove_if_closed(slot);
            }
        }
    }
}

/// What a section may be, given the octets of its block.
#[inline]
fn block_limits(limits: &Limits, block: usize) -> BlockLimits {
    // A block is bounded by its frames.
    let expanded = limits.header_list_assured.saturating_add(HEADER_LIST_EXPANSION * block as u32);
    BlockLimits { list_size: limits.header_list_size.min(expanded), fields_max: limits.fields_max }
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

fn judge_request(
    section: Section,
    fields: &FieldSection,
    decoder: &mut Decoder,
) -> Result<message::Request, StreamError> {
    if let Some(fault) = section.fault() {
        return Err(fault);
    }
    let request =
        Verdicts(decoder).request(fields, section.decoded).map_err(StreamError::protocol)?;
    match (section.end_stream, request.content_length) {
        (true, Some(1..)) => Err(StreamError::protocol("content-length without DATA")),
        (true, Some(0) | None) | (false, _) => Ok(request),
    }
}

/// Client role. §8.1: any number of informational heads, then one final head.
fn judge_response(
    stream: &mut Stream,
    section: Section,
    fields: &FieldSection,
    decoder: &mut Decoder,
) -> Result<SectionKind, StreamError> {
    let response =
        Verdicts(decoder).response(fields, section.decoded).map_err(StreamError::protocol)?;
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

fn judge_trailers(
    section: Section,
    fields: &FieldSection,
    decoder: &mut Decoder,
) -> Result<SectionKind, StreamError> {
    if !section.end_stream {
        return Err(StreamError::protocol("trailers without END_STREAM"));
    }
    Verdicts(decoder).trailers(fields, section.decoded).map_err(StreamError::protocol)?;
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
