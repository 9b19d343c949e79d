//! One connection of an attack, on either side: writes what it is told, hears what comes back.
//!
//! 1. Nothing blocks beyond the attack's end, and nothing is kept of DATA but its length.
//! 2. A polite line acknowledges SETTINGS and PING and gives windows back; a rude one says only
//!    what it is told. A deaf one never reads.
//! 3. What was sent and heard enters the [`Tally`] when the line ends.
//!
//! Refuses to know what an attack is about.

use super::wire;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ClientConnection;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Written in one go.
pub const BATCH_OCTETS: usize = 64 << 10;
/// Read in one go, so that a flood of answers does not stop the attack.
const READ_OCTETS_MAX: usize = 1 << 20;
/// Streams on which somebody began to speak, kept for who asks for them.
const HEADS_MAX: usize = 1 << 16;
/// A larger frame than this is nobody's.
const FRAME_OCTETS_MAX: usize = 1 << 20;

/// What an attack did and met, over all its connections.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    pub connections: u64,
    /// Connections that could not be made.
    pub refused: u64,
    /// What is counted is the attack's business.
    pub units: u64,
    pub octets_sent: u64,
    pub octets_heard: u64,
    /// Streams that the sidecar ended regularly.
    pub answers: u64,
    /// By error code.
    pub goaways: BTreeMap<u32, u64>,
    pub resets: BTreeMap<u32, u64>,
    /// Connections that the sidecar closed.
    pub closed: u64,
    /// Of the frames that reached an app of the attack's own.
    pub request_octets: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.refused += other.refused;
        self.units += other.units;
        self.octets_sent += other.octets_sent;
        self.octets_heard += other.octets_heard;
        self.answers += other.answers;
        self.closed += other.closed;
        self.request_octets += other.request_octets;
        for (sum, more) in [(&mut self.goaways, &other.goaways), (&mut self.resets, &other.resets)]
        {
            for (code, count) in more {
                *sum.entry(*code).or_default() += count;
            }
        }
    }
}

/// Shared by the lines of one side.
pub type SharedTally = Arc<Mutex<Tally>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    Polite,
    Rude,
    Deaf,
}

pub struct Line {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    pub manners: Manners,
    /// What is to be sent; what lies before `sent` is.
    pub out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    /// Of a payload, or of the preface: not looked at.
    skip: usize,
    open: bool,
    until: Instant,
    /// Streams whose HEADERS came, for who takes them out.
    pub heads: VecDeque<u32>,
    /// The app's side: its frames are requests.
    serves: bool,
    pub heard: Tally,
    shared: SharedTally,
}

impl Line {
    /// `tls`: what is pushed is sealed by it.
    pub fn new(
        stream: TcpStream,
        tls: Option<Box<ClientConnection>>,
        until: Instant,
        shared: SharedTally,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            tls,
            manners: Manners::Polite,
            out: Vec::with_capacity(BATCH_OCTETS * 2),
            sent: 0,
            input: Vec::new(),
            skip: 0,
            open: true,
            until,
            heads: VecDeque::new(),
            serves: false,
            heard: Tally::default(),
            shared,
        })
    }

    /// The app's end of a sidecar's connection.
    pub fn accepted(stream: TcpStream, until: Instant, shared: SharedTally) -> io::Result<Self> {
        let mut line = Self::new(stream, None, until, shared)?;
        line.skip = wire::PREFACE.len();
        line.serves = true;
        Ok(line)
    }

    /// Neither closed by the peer nor past the attack's end.
    pub fn is_open(&self) -> bool {
        self.open && now() < self.until
    }

    pub fn was_closed(&self) -> bool {
        !self.open
    }

    pub fn tls(&mut self) -> Option<&mut ClientConnection> {
        self.tls.as_deref_mut()
    }

    /// Calls without an end yet, of so many.
    pub fn outstanding(&self, asked: u64) -> u64 {
        asked.saturating_sub(self.heard.answers + self.heard.resets.values().sum::<u64>())
    }

    /// Writes all of `out`, hearing what comes meanwhile; false when the line is over.
    pub fn flush(&mut self) -> bool {
        loop {
            self.read_some();
            self.write_some();
            if !self.is_open() {
                return false;
            }
            if !self.is_pending() {
                return true;
            }
            self.wait(Duration::from_millis(50));
        }
    }

    /// As [`Self::flush`], once there is enough for a write.
    pub fn flush_batch(&mut self) -> bool {
        if self.out.len() - self.sent < BATCH_OCTETS { self.open } else { self.flush() }
    }

    /// Writes and hears what goes at once, then waits so long at most for more.
    pub fn listen(&mut self, patience: Duration) -> bool {
        self.write_some();
        self.wait(patience);
        self.read_some();
        self.write_some();
        self.is_open()
    }

    /// Writes and hears what goes at once.
    pub fn turn(&mut self) {
        self.read_some();
        self.write_some();
    }

    /// From now on the octets pushed are records that the caller seals; nothing is heard any more.
    pub fn take_tls(&mut self) -> Option<Box<ClientConnection>> {
        self.manners = Manners::Deaf;
        self.tls.take()
    }

    /// For who hears nothing: looks whether the peer closes within so long.
    pub fn close_soon(&mut self, patience: Duration) {
        let peek = self.stream.set_nonblocking(false);
        let _ = peek.and_then(|()| self.stream.set_read_timeout(Some(patience)));
        let mut buffer = [0; 4096];
        while self.open {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.end_by_peer(),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.end_by_peer(),
            }
        }
    }

    /// Closes it from our side, what was pushed unsent.
    pub fn hang_up(&mut self) {
        self.open = false;
        // It may be closed already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn wait(&self, patience: Duration) {
        let mut flags = PollFlags::empty();
        let sealed = self.tls.as_ref().is_none_or(|tls| tls.wants_write());
        if sealed && self.is_pending() {
            flags |= PollFlags::OUT;
        }
        if self.manners != Manners::Deaf {
            flags |= PollFlags::IN;
        }
        let left = self.until.saturating_duration_since(now()).min(patience);
        let nanos = i64::from(left.subsec_nanos());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: nanos };
        // An interrupted wait is a short one.
        let _ = poll(&mut [PollFd::new(&self.stream, flags)], Some(&left));
    }

    fn is_pending(&self) -> bool {
        let sealed = self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        sealed || self.sent < self.out.len()
    }

    fn write_some(&mut self) {
        while self.open && self.is_pending() {
            let plain = self.out.get(self.sent..).unwrap_or_default();
            let written = match &mut self.tls {
                None => self.stream.write(plain),
                Some(tls) => {
                    self.sent += tls.writer().write(plain).unwrap_or(0);
                    if !tls.wants_write() {
                        // Until the handshake is over it takes so much and no more.
                        return;
                    }
                    tls.write_tls(&mut self.stream)
                }
            };
            match written {
                Ok(octets) => {
                    self.heard.octets_sent += octets as u64;
                    self.sent += if self.tls.is_none() { octets } else { 0 };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.end_by_peer(),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
    }

    fn end_by_peer(&mut self) {
        self.heard.closed += u64::from(self.open);
        self.open = false;
    }

    fn read_some(&mut self) {
        let mut buffer = [0; 16 << 10];
        let mut octets = 0;
        while self.open && self.manners != Manners::Deaf && octets < READ_OCTETS_MAX {
            let read = match &mut self.tls {
                None => self.stream.read(&mut buffer),
                Some(tls) => read_tls(tls, &mut self.stream, &mut buffer),
            };
            match read {
                Ok(0) => self.end_by_peer(),
                Ok(read) => {
                    octets += read;
                    self.heard.octets_heard += read as u64;
                    self.absorb(buffer.get(..read).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.end_by_peer(),
            }
        }
    }

    fn absorb(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        let mut at = 0;
        loop {
            let skipped = self.skip.min(self.input.len() - at);
            self.skip -= skipped;
            at += skipped;
            let Some(head) = self.input.get(at..at + wire::HEAD_OCTETS) else { break };
            let &[a, b, c, kind, flags, s0, s1, s2, s3] = head else { break };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
            at += wire::HEAD_OCTETS;
            let seen =
                matches!(kind, wire::SETTINGS | wire::PING | wire::GOAWAY | wire::RST_STREAM);
            if !seen || length > FRAME_OCTETS_MAX {
                self.skip = length;
                self.on_frame(kind, flags, stream, length);
                continue;
            }
            let Some(payload) = self.input.get(at..at + length) else {
                at -= wire::HEAD_OCTETS;
                break;
            };
            let payload = payload.to_vec();
            at += length;
            self.on_control(kind, flags, &payload);
        }
        self.input.drain(..at.min(self.input.len()));
    }

    fn on_frame(&mut self, kind: u8, flags: u8, stream: u32, length: usize) {
        let is_message = matches!(kind, wire::HEADERS | wire::DATA);
        if kind == wire::HEADERS && self.heads.len() < HEADS_MAX {
            self.heads.push_back(stream);
        }
        if self.serves {
            self.heard.request_octets += (wire::HEAD_OCTETS + length) as u64;
        } else if is_message && flags & wire::END_STREAM != 0 {
            self.heard.answers += 1;
        }
        if kind == wire::DATA && length > 0 && self.manners == Manners::Polite {
            wire::window_update(&mut self.out, 0, length as u32);
            if flags & wire::END_STREAM == 0 {
                wire::window_update(&mut self.out, stream, length as u32);
            }
        }
    }

    /// GOAWAY, RST_STREAM, SETTINGS, PING.
    fn on_control(&mut self, kind: u8, flags: u8, payload: &[u8]) {
        let code = |at: usize| {
            let octets = payload.get(at..at + 4).and_then(|octets| octets.try_into().ok());
            octets.map_or(0, u32::from_be_bytes)
        };
        match kind {
            wire::GOAWAY => *self.heard.goaways.entry(code(4)).or_default() += 1,
            wire::RST_STREAM => *self.heard.resets.entry(code(0)).or_default() += 1,
            _ if flags & wire::ACK == 0 && self.manners == Manners::Polite => {
                let echo = if kind == wire::PING { payload } else { &[] };
                wire::frame(&mut self.out, kind, wire::ACK, 0, echo);
            }
            _ => {}
        }
    }
}

fn read_tls(
    tls: &mut ClientConnection,
    stream: &mut TcpStream,
    buffer: &mut [u8],
) -> io::Result<usize> {
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
        if tls.read_tls(stream)? == 0 {
            return Ok(0);
        }
        tls.process_new_packets().map_err(io::Error::other)?;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).add(&self.heard);
    }
}

pub fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (Line, TcpStream, SharedTally) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let tally = SharedTally::default();
        let line = Line::new(near, None, now() + Duration::from_secs(20), tally.clone());
        (line.unwrap(), far, tally)
    }

    /// What a server may say, in pieces of every length.
    #[test]
    fn hears_frames_however_they_are_cut() {
        let mut said = Vec::new();
        wire::settings(&mut said, &[]);
        wire::frame(&mut said, wire::HEADERS, wire::END_HEADERS, 1, b"abc");
        wire::frame(&mut said, wire::DATA, wire::END_STREAM, 1, &[7; 300]);
        wire::reset(&mut said, 3, 0xb);
        wire::frame(&mut said, wire::GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 1, b'x']);
        for cut in 1..40 {
            let (mut line, mut far, tally) = pair();
            for piece in said.chunks(cut) {
                far.write_all(piece).unwrap();
                line.listen(Duration::from_secs(20));
            }
            drop(far);
            while line.listen(Duration::from_secs(20)) {}
            drop(line);
            let tally = tally.lock().unwrap();
            assert_eq!((tally.answers, tally.closed), (1, 1), "in pieces of {cut}");
            assert_eq!(tally.goaways, BTreeMap::from([(1, 1)]));
            assert_eq!(tally.resets, BTreeMap::from([(0xb, 1)]));
        }
    }

    #[test]
    fn politeness_acknowledges_and_gives_windows_back() {
        let (mut line, mut far, _) = pair();
        let mut said = Vec::new();
        wire::settings(&mut said, &[]);
        wire::frame(&mut said, wire::DATA, 0, 1, b"12345");
        far.write_all(&said).unwrap();
        line.listen(Duration::from_secs(20));
        let mut expected = Vec::new();
        wire::frame(&mut expected, wire::SETTINGS, wire::ACK, 0, &[]);
        wire::window_update(&mut expected, 0, 5);
        wire::window_update(&mut expected, 1, 5);
        assert!(line.flush());
        let mut got = vec![0; expected.len()];
        far.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
    }
}
