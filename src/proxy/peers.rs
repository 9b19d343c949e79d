//! A worker's connections, by their keys.
//!
//! 1. Each has a place of its own in memory: where they are listed is small, so that it grows at
//!    little cost, and what a connection holds goes back when it ends.
//!
//! Refuses to know what a connection is.

use super::ConnKey;
use super::peer::Peer;
use slotmap::SlotMap;
use std::ops::{Index, IndexMut};

/// See the file's text.
#[derive(Debug)]
pub(super) struct Peers {
    list: SlotMap<ConnKey, Box<Peer>>,
}

impl Peers {
    pub(super) fn new() -> Self {
        Self { list: SlotMap::with_key() }
    }

    pub(super) fn insert(&mut self, peer: Peer) -> ConnKey {
        self.list.insert(Box::new(peer))
    }

    pub(super) fn remove(&mut self, key: ConnKey) -> Option<Box<Peer>> {
        self.list.remove(key)
    }

    #[inline]
    pub(super) fn get(&self, key: ConnKey) -> Option<&Peer> {
        self.list.get(key).map(|peer| &**peer)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: ConnKey) -> Option<&mut Peer> {
        self.list.get_mut(key).map(|peer| &mut **peer)
    }

    pub(super) fn contains_key(&self, key: ConnKey) -> bool {
        self.list.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = ConnKey> + '_ {
        self.list.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Peer> {
        self.list.values().map(|peer| &**peer)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.list.values_mut().map(|peer| &mut **peer)
    }
}

impl Index<ConnKey> for Peers {
    type Output = Peer;

    fn index(&self, key: ConnKey) -> &Peer {
        &self.list[key]
    }
}

impl IndexMut<ConnKey> for Peers {
    fn index_mut(&mut self, key: ConnKey) -> &mut Peer {
        &mut self.list[key]
    }
}
