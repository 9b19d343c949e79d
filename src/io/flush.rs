//! The flusher: writes once per dirty connection and turn.
//!
//! 1. It runs when a turn's events have been handled and no task is ready: so it sees what the
//!    whole turn had to say, one send instead of many.
//! 2. Nothing is taken from the proxy for a connection whose socket is full: backpressure.
//! 3. Its queues and scratch are used again; a turn allocates nothing.
//!
//! Decides nothing: the proxy says what to transmit.

use super::conn::{Conn, Written};
use super::worker::{Core, Worker};
use std::rc::Rc;
use std::time::Duration;

/// Octets of one transmit in plaintext: two full socket reads of a peer.
const PLAIN_OCTETS_MAX: usize = 128 << 10;

/// With TLS: eight full records, sealed at one go.
const TLS_OCTETS_MAX: usize = 128 << 10;

/// See [`look_again`].
const PAUSE: Duration = Duration::from_millis(1);

impl Worker {
    /// Until no connection is dirty. Bounded: nothing is read meanwhile, so what the proxy holds
    /// runs out, or the sockets fill up.
    pub(super) fn flush(self: &Rc<Self>) {
        let mut core = self.core.borrow_mut();
        while !core.dirty.is_empty() {
            let spare = std::mem::take(&mut core.spare);
            let mut batch = std::mem::replace(&mut core.dirty, spare);
            core.pace.flushes.record(batch.len());
            for conn in batch.drain(..) {
                conn.queued.set(false);
                self.flush_one(&mut core, &conn);
            }
            core.spare = batch;
        }
        self.load.tell_busy(core.told);
    }

    fn flush_one(self: &Rc<Self>, core: &mut Core, conn: &Rc<Conn>) {
        if conn.is_blocked() {
            return;
        }
        let written = match conn.send_rest() {
            Written::All => self.transmit(core, conn),
            other => other,
        };
        if written == Written::Blocked {
            if conn.id().is_none() {
                conn.bound_flush();
            }
            self.blocked(conn);
        }
    }

    /// Its turn to write comes again when its socket takes more.
    pub(super) fn blocked(&self, conn: &Rc<Conn>) {
        self.listed.put(conn);
        conn.socket.writable_soon();
    }

    fn transmit(self: &Rc<Self>, core: &mut Core, conn: &Rc<Conn>) -> Written {
        let Some(id) = conn.id() else {
            return conn.finish();
        };
        let octets_max = if conn.is_tls() { TLS_OCTETS_MAX } else { PLAIN_OCTETS_MAX };
        let more = core.proxy.transmit(id, &mut core.transmit, octets_max);
        let progress = !core.transmit.is_empty();
        let Core { transmit, room, .. } = &mut *core;
        let written = conn.send(transmit, room);
        if more && written == Written::All {
            if progress {
                core.mark_dirty(conn);
            } else {
                self.runtime.spawn(look_again(Rc::clone(self), Rc::clone(conn)));
            }
        }
        self.carry_out(core);
        written
    }
}

/// More was announced than was given: never to be asked for in a circle.
async fn look_again(worker: Rc<Worker>, conn: Rc<Conn>) {
    worker.runtime.clock.sleep(PAUSE).await;
    worker.mark_dirty(&conn);
}
