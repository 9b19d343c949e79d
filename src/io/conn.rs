//! One connection: its reader, and what it has to write.
//!
//! 1. What was read comes in order, until the peer's end or an error, which comes once; it ends
//!    for us, too, when the socket is shut down.
//! 2. Until `Output::Close` the connection has an ID; afterwards what is read is thrown away.
//! 3. Closing: what was transmitted is written, then close_notify, then the write side is shut
//!    down, and reading goes on a while, since closing with unread data would make the kernel
//!    reset the connection and the peer lose what we said last (RFC 9113 §5.4.1, GOAWAY).
//! 4. Plaintext of a DATA frame is not copied here: what is read is handed on as slices.
//!
//! Refuses to know what the bytes mean.

use super::clock::{Clock, Sleep};
use super::dial::errno_static;
use super::driver::Runtime;
use super::local::Place;
use super::output::{self, Rest};
use super::socket::{Shutdown, Socket};
use super::tls::{self, Session};
use super::worker::Worker;
use crate::proxy::Transmit;
use crate::proxy::{CloseReason, ConnId};
use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// How long what was transmitted before a close may take to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long, and how much, we read on after our end was shut down.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_OCTETS_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) socket: Rc<Socket>,
    transport: RefCell<Transport>,
    id: Cell<Option<ConnId>>,
    write: Cell<WriteState>,
    /// In the flusher's queue.
    pub(super) queued: Cell<bool>,
    /// What came after the close; nothing more comes after the end.
    reader: Cell<ReaderState>,
    /// Why a write failed; the reader reports it.
    fault: Cell<Option<&'static str>>,
    runtime: Rc<Runtime>,
    _place: Place,
}

#[derive(Debug)]
enum Transport {
    Plain(Option<Box<Rest>>),
    Tls(Box<Session>),
}

/// ```text
/// Ready <-> Blocked (the socket takes no more)
/// Ready -> Finished (closing, all written, write side shut down)
/// any   -> Broken   (a write failed)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteState {
    Ready,
    Blocked,
    Finished,
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReaderState {
    Reading { thrown_away: usize },
    Ended,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    All,
    /// The socket is full; the rest goes when it can take more.
    Blocked,
    /// Broken, or closed: nothing is ever written again.
    Never,
}

impl Conn {
    pub(super) fn new(
        socket: Rc<Socket>,
        session: Option<Session>,
        runtime: &Rc<Runtime>,
        place: Place,
    ) -> Self {
        let transport = match session {
            Some(session) => Transport::Tls(Box::new(session)),
            None => Transport::Plain(None),
        };
        Self {
            socket,
            transport: RefCell::new(transport),
            id: Cell::new(None),
            write: Cell::new(WriteState::Ready),
            queued: Cell::new(false),
            reader: Cell::new(ReaderState::Reading { thrown_away: 0 }),
            fault: Cell::new(None),
            runtime: Rc::clone(runtime),
            _place: place,
        }
    }

    pub(super) fn id(&self) -> Option<ConnId> {
        self.id.get()
    }

    pub(super) fn name(&self, id: ConnId) {
        self.id.set(Some(id));
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(&*self.transport.borrow(), Transport::Tls(_))
    }

    /// Writes what an earlier send left over.
    pub(super) fn send_rest(&self) -> Written {
        if let Some(state) = self.stuck() {
            return state;
        }
        let result = match &mut *self.transport.borrow_mut() {
            Transport::Plain(rest) => output::send_rest(&self.socket, rest),
            Transport::Tls(session) => session.send_rest(&self.socket),
        };
        self.judge(result)
    }

    /// Writes `transmit`, which is empty afterwards. In `room` small ones are put together, and
    /// records made.
    pub(super) fn send(&self, transmit: &mut Transmit, room: &mut Vec<u8>) -> Written {
        if let Some(state) = self.stuck() {
            debug_assert!(state == Written::Never, "the rest goes first");
            transmit.clear();
            return state;
        }
        let result = match &mut *self.transport.borrow_mut() {
            Transport::Plain(rest) => output::send(&self.socket, transmit, room, rest),
            Transport::Tls(session) => {
                let sent = session.send(&self.socket, transmit, room);
                transmit.clear();
                sent
            }
        };
        self.judge(result)
    }

    fn stuck(&self) -> Option<Written> {
        match self.write.get() {
            WriteState::Ready => None,
            WriteState::Blocked => Some(Written::Blocked),
            WriteState::Finished | WriteState::Broken => Some(Written::Never),
        }
    }

    fn judge(&self, result: io::Result<bool>) -> Written {
        match result {
            Ok(true) => Written::All,
            Ok(false) => {
                self.write.set(WriteState::Blocked);
                Written::Blocked
            }
            Err(error) => {
                self.write.set(WriteState::Broken);
                self.fault.set(Some(errno_static(&error)));
                // Ends the pending read, after what the peer sent before.
                self.socket.shutdown(Shutdown::Both);
                Written::Never
            }
        }
    }

    /// True while room in the socket is waited for.
    pub(super) fn is_blocked(&self) -> bool {
        self.write.get() == WriteState::Blocked
    }

    /// Nothing more is read of it.
    pub(super) fn has_ended(&self) -> bool {
        self.reader.get() == ReaderState::Ended
    }

    /// A blocked connection may write again. An error shows at the next send.
    pub(super) fn unblock(&self) {
        if self.write.get() == WriteState::Blocked {
            self.write.set(WriteState::Ready);
        }
    }

    /// The proxy has done with it. What is left happens in [`Self::finish`].
    pub(super) fn begin_close(self: &Rc<Self>) {
        self.id.set(None);
        if self.is_blocked() {
            self.bound_flush();
        }
    }

    /// A closing connection waits for room in its socket: not for ever.
    pub(super) fn bound_flush(self: &Rc<Self>) {
        self.abort_after(FLUSH_TIMEOUT);
    }

    /// All that was transmitted is written: say goodbye.
    pub(super) fn finish(self: &Rc<Self>) -> Written {
        debug_assert!(self.id.get().is_none());
        if let Transport::Tls(session) = &mut *self.transport.borrow_mut() {
            session.close();
        }
        match self.send_rest() {
            Written::All => {}
            other => return other,
        }
        self.write.set(WriteState::Finished);
        self.socket.shutdown(Shutdown::Write);
        if self.reader.get() != ReaderState::Ended {
            self.abort_after(LINGER_TIMEOUT);
        }
        Written::Never
    }

    fn abort_after(self: &Rc<Self>, time: Duration) {
        let sleep = self.runtime.clock.sleep(time);
        self.runtime.spawn(abort_after(sleep, Rc::downgrade(self)));
    }

    /// Octets that came after the close: looked at by nobody, and not for ever.
    fn throw_away(&self, octets: usize) {
        if let ReaderState::Reading { thrown_away } = self.reader.get() {
            let thrown_away = thrown_away + octets;
            self.reader.set(ReaderState::Reading { thrown_away });
            if thrown_away > LINGER_OCTETS_MAX {
                self.socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// True when records wait that nobody asked for: answers to key updates, alerts.
    fn owes_records(&self) -> bool {
        match &*self.transport.borrow() {
            Transport::Plain(_) => false,
            Transport::Tls(session) => session.wants_send(),
        }
    }

    /// Takes what was read, in which a session finds plaintext.
    fn push(&self, octets: BytesMut) -> Option<Bytes> {
        match &mut *self.transport.borrow_mut() {
            Transport::Plain(_) => Some(octets.freeze()),
            Transport::Tls(session) => {
                session.push(octets);
                None
            }
        }
    }

    /// The next plaintext. An error is the reason to close: the end, or a text for the log.
    fn open(&self) -> Result<Option<Bytes>, CloseReason> {
        match &mut *self.transport.borrow_mut() {
            Transport::Plain(_) => Ok(None),
            Transport::Tls(session) => match session.open() {
                Ok(None) if session.is_closed_by_peer() => Err(CloseReason::Eof),
                Ok(plaintext) => Ok(plaintext),
                Err(fault) => Err(CloseReason::Error(tls::failure(&fault))),
            },
        }
    }
}

/// Ends a connection's pending operations if it is still there by then.
async fn abort_after(sleep: Sleep, conn: Weak<Conn>) {
    sleep.await;
    if let Some(conn) = conn.upgrade() {
        conn.socket.shutdown(Shutdown::Both);
    }
}

/// From now on what is read comes to [`read`]; what came behind the handshake does so at once.
pub(super) fn start(worker: &Rc<Worker>, conn: &Rc<Conn>) {
    worker.listed.put(conn);
    if conn.is_tls()
        && let Some(reason) = digest(worker, conn, BytesMut::new())
    {
        worker.closed(conn, reason);
    }
    let mut events = Vec::new();
    conn.socket.deliver(&mut events);
    worker.deal_with(&mut events);
}

/// Takes what was read: nothing at the end, after which there is no more, nor after an error.
pub(super) fn read(worker: &Rc<Worker>, conn: &Rc<Conn>, read: Result<BytesMut, Errno>) {
    let reason = match read {
        Ok(octets) if octets.is_empty() => CloseReason::Eof,
        Ok(octets) if conn.id().is_none() => return conn.throw_away(octets.len()),
        Ok(octets) => {
            if let Some(reason) = digest(worker, conn, octets) {
                worker.closed(conn, reason);
            }
            return;
        }
        Err(error) => CloseReason::Error(errno_static(&error.into())),
    };
    conn.reader.set(ReaderState::Ended);
    // What it still owes is written when there is room, which is told to who is listed.
    if !conn.is_blocked() {
        worker.listed.take(conn);
    }
    let reason = match conn.fault.get() {
        Some(fault) => CloseReason::Error(fault),
        None => reason,
    };
    worker.closed(conn, reason);
}

/// Hands on what was read; the reason when that was the last.
fn digest(worker: &Rc<Worker>, conn: &Rc<Conn>, octets: BytesMut) -> Option<CloseReason> {
    conn.id()?;
    if let Some(plaintext) = conn.push(octets) {
        worker.received(conn, plaintext);
        return None;
    }
    let outcome = loop {
        match conn.open() {
            Ok(Some(plaintext)) => worker.received(conn, plaintext),
            Ok(None) => break None,
            Err(reason) => break Some(reason),
        }
    };
    if conn.owes_records() {
        worker.mark_dirty(conn);
    }
    outcome
}

/// Closes a socket that never became a connection, so that the peer sees an end and no reset.
pub(super) async fn part(socket: &Socket, clock: &Rc<Clock>) {
    socket.shutdown(Shutdown::Write);
    let limit = clock.sleep(LINGER_TIMEOUT);
    let drain = async {
        let mut octets = 0;
        while let Ok(read) = socket.read().await
            && !read.is_empty()
            && octets <= LINGER_OCTETS_MAX
        {
            octets += read.len();
        }
    };
    super::local::deadline(limit, socket, drain).await;
}
