//! What a worker does with a turn: the connections that were read or may be written again, then the
//! tasks, then what is to be sent.
//!
//! 1. A key of a connection that is gone finds nothing, whoever has its place now.
//! 2. Listed is who is read, and who waits for room to write what it owes, even when its peer has
//!    ended: so it lives until that is written, or given up.
//!
//! Decides nothing: the proxy is told.

use super::conn::{self, Conn};
use super::driver::{Next, Turns};
use super::reactor::{Event, Key};
use super::worker::Worker;
use std::cell::RefCell;
use std::rc::Rc;

impl Turns for Rc<Worker> {
    fn happened(&self, events: &mut Vec<Event>) {
        self.core.borrow_mut().pace.turns.record(events.len());
        self.deal_with(events);
    }

    fn settle(&self) -> Next {
        if !self.core.borrow().dirty.is_empty() {
            self.flush();
            return Next::Tasks;
        }
        if self.served.borrow().is_some() { Next::End } else { Next::Wait }
    }
}

/// Connections that are read, by the index of their socket's key.
#[derive(Debug, Default)]
pub(super) struct Listed(RefCell<Vec<Option<Rc<Conn>>>>);

impl Listed {
    pub(super) fn put(&self, conn: &Rc<Conn>) {
        let index = conn.socket.key().index as usize;
        let mut listed = self.0.borrow_mut();
        if index >= listed.len() {
            listed.resize_with(index + 1, || None);
        }
        listed[index] = Some(Rc::clone(conn));
    }

    /// Nothing more will be read of it.
    pub(super) fn take(&self, conn: &Conn) {
        let key = conn.socket.key();
        let taken = match self.0.borrow_mut().get_mut(key.index as usize) {
            Some(place) if place.as_ref().is_some_and(|conn| conn.socket.key() == key) => {
                place.take()
            }
            Some(_) | None => None,
        };
        drop(taken);
    }

    fn get(&self, key: Key) -> Option<Rc<Conn>> {
        let listed = self.0.borrow();
        let conn = listed.get(key.index as usize)?.as_ref()?;
        (conn.socket.key() == key).then(|| Rc::clone(conn))
    }
}

impl Worker {
    pub(super) fn deal_with(self: &Rc<Self>, events: &mut Vec<Event>) {
        for event in events.drain(..) {
            if self.runtime.clock.look_at(&event) {
                continue;
            }
            let (Event::Read(key, _) | Event::Ready(key)) = event;
            let Some(conn) = self.listed.get(key) else { continue };
            match event {
                Event::Read(_, read) => conn::read(self, &conn, read),
                Event::Ready(_) => {
                    conn.unblock();
                    self.mark_dirty(&conn);
                    if conn.has_ended() {
                        self.listed.take(&conn);
                    }
                }
            }
        }
    }
}
