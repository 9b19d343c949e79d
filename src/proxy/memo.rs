//! What was found out about a method and its target, so that it is found out once.
//!
//! 1. An entry speaks for the very octets that it was made of, for the port they came by, and for
//!    callers of the same standing.
//! 2. It tells what follows from those and the configuration alone; what else a call must show
//!    (content type, token) is asked of each.
//! 3. Bounded: [`SETS`] sets of two, of which the older makes way; long names are not kept.

use super::access::Door;
use super::endpoint::Endpoint;
use super::head::RequestHead;
use super::local::Aside;
use super::route::{self, Destination};
use super::{ConnKey, Listener, PoolKey, Proxy, call, tally};
use crate::observe::callers::Ruling;
use crate::observe::cells::MethodId;
use crate::policy::acl::Standing;
use std::rc::Rc;
use std::time::Instant;

const SETS: usize = 512;
const _: () = assert!(SETS.is_power_of_two());
/// Path and app IDs of one entry; longer ones are looked at each time.
const OCTETS_MAX: usize = 512;

/// What is known.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// May be gone by now.
    pub pool: PoolKey,
    /// `None`: calls that no series of Dapr's tells.
    pub method: Option<MethodId>,
    /// How access control let it pass, if it was asked.
    pub ruling: Option<Ruling>,
    /// The policy for its calls, if there is one.
    pub endpoint: Option<Rc<Endpoint>>,
}

#[derive(Debug)]
struct Entry {
    listener: Listener,
    standing: Standing,
    path: Box<[u8]>,
    app_id: Option<Box<[u8]>>,
    callee_app_id: Option<Box<[u8]>>,
    route: Route,
}

/// See the file's text.
#[derive(Debug, Default)]
pub struct Memo {
    /// Empty until there is something to keep; in each set the younger entry comes first.
    sets: Vec<[Option<Box<Entry>>; 2]>,
    /// How often all of it was forgotten.
    generation: u64,
}

impl Memo {
    pub fn find(&self, door: Door, head: &RequestHead<'_>) -> Option<Route> {
        let set = self.sets.get(place(door, head))?;
        let entry = set.iter().flatten().find(|entry| entry.is_of(door, head))?;
        Some(entry.route.clone())
    }

    pub fn keep(&mut self, door: Door, head: &RequestHead<'_>, route: Route) {
        let ids = [head.app_id, head.callee_app_id].into_iter().flatten();
        if head.path.len() + ids.map(<[u8]>::len).sum::<usize>() > OCTETS_MAX {
            return;
        }
        if self.sets.is_empty() {
            self.sets.resize_with(SETS, Default::default);
        }
        let Some([younger, older]) = self.sets.get_mut(place(door, head)) else { return };
        *older = younger.replace(Box::new(Entry {
            listener: door.listener,
            standing: door.standing,
            path: head.path.into(),
            app_id: head.app_id.map(Into::into),
            callee_app_id: head.callee_app_id.map(Into::into),
            route,
        }));
    }

    /// The configuration changed.
    pub fn clear(&mut self) {
        self.sets.clear();
        self.generation += 1;
    }

    /// What was found out under another number may not hold any more.
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

impl Proxy {
    /// Finds the way of a call that no other has shown.
    #[cold]
    pub(super) fn explore(
        &mut self,
        head: &RequestHead<'_>,
        door: Door,
        conn: ConnKey,
        now: Instant,
    ) -> Result<Route, Aside> {
        let (config, listener) = (&self.snapshot.config, door.listener);
        let destination = route::judge(head, listener, config, &self.snapshot.policies.apis)?;
        // Told before a target that is none, or one too many.
        head.timeout.map(call::parse_timeout).transpose()?;
        let (pool, ruling) = match destination {
            Destination::App => (self.pools.app(), self.rule(conn, door, head.path, now)?),
            Destination::Remote(text) => (self.pools.remote(text, &config.namespace)?, None),
            Destination::Here(method) => return Err(Aside::Local(method)),
        };
        let config = &self.snapshot.config;
        let method = tally::method(head, listener, config, &mut self.cells);
        let endpoint = match pool == self.pools.app() {
            true => None,
            false => self.endpoint(head, listener),
        };
        let route = Route { pool, method, ruling, endpoint };
        self.memo.keep(door, head, route.clone());
        Ok(route)
    }
}

impl Entry {
    fn is_of(&self, door: Door, head: &RequestHead<'_>) -> bool {
        self.listener == door.listener
            && self.standing == door.standing
            && *self.path == *head.path
            && self.app_id.as_deref() == head.app_id
            && self.callee_app_id.as_deref() == head.callee_app_id
    }
}

/// A set by hash. Those who make theirs collide on purpose push out entries, no more.
fn place(door: Door, head: &RequestHead<'_>) -> usize {
    let standing = match door.standing {
        Standing::Malformed | Standing::Unlisted => 0,
        Standing::Listed(index) => u64::from(index) + 1,
    };
    let hash = fold(head.path.len() as u64 ^ standing << 32, head.path);
    let hash = fold(hash, head.app_id.or(head.callee_app_id).unwrap_or_default());
    (hash >> 32) as usize % SETS
}

/// Multiplies word by word, in the manner of FxHash.
fn fold(hash: u64, octets: &[u8]) -> u64 {
    let mix =
        |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = octets.as_chunks();
    let hash = words.iter().fold(hash, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    // What is left, or the last word again.
    let rest = match octets.last_chunk() {
        Some(last) => u64::from_le_bytes(*last),
        None => rest.iter().fold(0, |word, octet| word << 8 | u64::from(*octet)),
    };
    mix(hash, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::callers::CallerId;

    fn head(path: &'static [u8], app_id: &'static [u8]) -> RequestHead<'static> {
        RequestHead { path, app_id: Some(app_id), ..RequestHead::default() }
    }

    fn route(method: u32) -> Route {
        let (method, ruling) = (Some(MethodId(method)), Some(Ruling::AllowedByApp));
        Route { pool: PoolKey::default(), method, ruling, endpoint: None }
    }

    fn door(listener: Listener, standing: Standing) -> Door {
        Door { listener, standing, caller: CallerId::NOBODY }
    }

    fn found(memo: &Memo, door: Door, head: &RequestHead<'_>) -> Option<u32> {
        memo.find(door, head)?.method.map(|MethodId(number)| number)
    }

    #[test]
    fn speaks_for_the_very_octets() {
        let mut memo = Memo::default();
        let api = door(Listener::Api, Standing::Unlisted);
        let internal = door(Listener::Internal, Standing::Unlisted);
        let known = head(b"/a.B/C", b"server");
        assert!(memo.find(api, &known).is_none());
        memo.keep(api, &known, route(1));
        assert_eq!(found(&memo, api, &known), Some(1));
        assert!(memo.find(internal, &known).is_none());
        for standing in [Standing::Malformed, Standing::Listed(0), Standing::Listed(1)] {
            assert!(memo.find(door(Listener::Api, standing), &known).is_none());
        }
        assert!(memo.find(api, &head(b"/a.B/D", b"server")).is_none());
        assert!(memo.find(api, &head(b"/a.B/C", b"serves")).is_none());
        let bare = RequestHead { app_id: None, ..head(b"/a.B/C", b"") };
        assert!(memo.find(api, &bare).is_none());
        let both = RequestHead { callee_app_id: Some(b"server"), ..head(b"/a.B/C", b"server") };
        assert!(memo.find(api, &both).is_none());
    }

    /// Methods that are more than there is room for push out each other, nothing else.
    #[test]
    fn is_bounded() {
        let mut memo = Memo::default();
        let api = door(Listener::Api, Standing::Unlisted);
        for number in 0..10_000_u32 {
            let path = format!("/a.B/{number}").into_bytes();
            let head = RequestHead { path: &path, ..RequestHead::default() };
            memo.keep(api, &head, route(number));
            assert_eq!(found(&memo, api, &head), Some(number));
        }
        let kept = memo.sets.iter().flatten().flatten().count();
        assert!(kept <= 2 * SETS && kept > SETS, "{kept}");
        let long = [b'x'; OCTETS_MAX + 1];
        let head = RequestHead { path: &long, ..RequestHead::default() };
        memo.keep(api, &head, route(1));
        assert!(memo.find(api, &head).is_none());
    }
}
