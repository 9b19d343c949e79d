//! Which instances of an app were heard of, and when. PURE: `now` is an argument.
//!
//! 1. An instance counts for [`LIFETIME`] after it was last heard of, and until it says goodbye.
//! 2. The last ones known are kept when all of them are too old: an old address is better than
//!    none, and the network may only be quiet.
//! 3. Bounded: [`APPS_MAX`] apps, [`INSTANCES_MAX`] instances of each; what does not fit is not
//!    kept.

use crate::resolve::Endpoint;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const APPS_MAX: usize = 4096;
pub const INSTANCES_MAX: usize = 64;
pub const LIFETIME: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Cache {
    apps: HashMap<Box<str>, Vec<Instance>>,
}

#[derive(Debug)]
struct Instance {
    name: Box<[u8]>,
    endpoint: Endpoint,
    seen: Instant,
}

/// What is known of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Newest instance first; never empty.
    pub endpoints: Arc<[Endpoint]>,
    /// False: nobody was heard of for [`LIFETIME`].
    pub fresh: bool,
}

impl Cache {
    /// From now on sightings of this app are kept. False at the limit.
    pub fn want(&mut self, app_id: &str) -> bool {
        if self.apps.contains_key(app_id) {
            return true;
        }
        if self.apps.len() >= APPS_MAX {
            return false;
        }
        self.apps.insert(app_id.into(), Vec::new());
        true
    }

    pub fn forget(&mut self, app_id: &str) {
        self.apps.remove(app_id);
    }

    pub fn wanted(&self) -> impl Iterator<Item = &str> {
        self.apps.keys().map(|app_id| &**app_id)
    }

    /// True when the app's endpoints changed.
    pub fn sighted(&mut self, app_id: &str, name: &[u8], at: Endpoint, now: Instant) -> bool {
        let Some(instances) = self.apps.get_mut(app_id) else { return false };
        let known = instances.iter_mut().find(|instance| *instance.name == *name);
        if let Some(instance) = known {
            let moved = instance.endpoint != at;
            instance.endpoint = at;
            instance.seen = now;
            return moved;
        }
        // Somebody is here: those that were only kept for want of better may go.
        instances.retain(|instance| now.duration_since(instance.seen) < LIFETIME);
        if instances.len() >= INSTANCES_MAX {
            return false;
        }
        instances.insert(0, Instance { name: name.into(), endpoint: at, seen: now });
        true
    }

    /// An instance said goodbye. True when the app's endpoints changed.
    pub fn gone(&mut self, app_id: &str, name: &[u8]) -> bool {
        let Some(instances) = self.apps.get_mut(app_id) else { return false };
        let before = instances.len();
        instances.retain(|instance| *instance.name != *name);
        instances.len() != before
    }

    /// Drops what is too old, but not all of an app; names the apps whose endpoints changed.
    pub fn expire(&mut self, now: Instant) -> Vec<Box<str>> {
        let mut changed = Vec::new();
        for (app_id, instances) in &mut self.apps {
            let old = |instance: &Instance| now.duration_since(instance.seen) >= LIFETIME;
            if instances.iter().all(old) || !instances.iter().any(old) {
                continue;
            }
            instances.retain(|instance| !old(instance));
            changed.push(app_id.clone());
        }
        changed
    }

    pub fn known(&self, app_id: &str, now: Instant) -> Option<Known> {
        let instances = self.apps.get(app_id).filter(|instances| !instances.is_empty())?;
        let mut endpoints = Vec::with_capacity(instances.len());
        for instance in instances {
            // A restarted sidecar: a new name at the same address.
            if !endpoints.contains(&instance.endpoint) {
                endpoints.push(instance.endpoint);
            }
        }
        let fresh = |instance: &Instance| now.duration_since(instance.seen) < LIFETIME;
        Some(Known { endpoints: endpoints.into(), fresh: instances.iter().any(fresh) })
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint(([10, 0, 0, 1], port).into())
    }

    fn ports(cache: &Cache, now: Instant) -> Vec<u16> {
        let known = cache.known("a", now);
        known.iter().flat_map(|known| known.endpoints.iter()).map(|e| e.0.port()).collect()
    }

    #[test]
    fn keeps_only_what_is_wanted() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        assert!(!cache.sighted("a", b"1", at(1), now));
        assert_eq!(cache.known("a", now), None);
        assert!(cache.want("a"));
        assert_eq!(cache.known("a", now), None);
        assert!(cache.sighted("a", b"1", at(1), now));
        assert!(!cache.sighted("a", b"1", at(1), now), "nothing new");
        assert!(cache.sighted("a", b"1", at(2), now), "moved");
        assert!(cache.sighted("a", b"2", at(3), now));
        assert_eq!(ports(&cache, now), [3, 2], "newest first");
        assert!(cache.sighted("a", b"3", at(3), now));
        assert_eq!(ports(&cache, now), [3, 2], "each endpoint once");
        assert!(cache.gone("a", b"1"));
        assert!(!cache.gone("a", b"1"));
        assert_eq!(ports(&cache, now), [3]);
    }

    #[test]
    fn the_last_known_good_survives() {
        let (mut cache, begun) = (Cache::default(), Instant::now());
        cache.want("a");
        cache.sighted("a", b"1", at(1), begun);
        cache.sighted("a", b"2", at(2), begun + Duration::from_secs(30));
        let later = begun + LIFETIME;
        assert_eq!(cache.expire(later), ["a".into()]);
        assert_eq!(ports(&cache, later), [2]);
        let much_later = begun + 10 * LIFETIME;
        assert!(cache.expire(much_later).is_empty());
        let known = cache.known("a", much_later).unwrap();
        assert!(!known.fresh);
        assert_eq!(ports(&cache, much_later), [2]);
        cache.sighted("a", b"3", at(3), much_later);
        assert_eq!(ports(&cache, much_later), [3], "somebody is here: the old one goes");
    }

    #[test]
    fn is_bounded() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.want("a");
        for n in 0..=INSTANCES_MAX {
            let kept = cache.sighted("a", &n.to_be_bytes(), at(n as u16 + 1), now);
            assert_eq!(kept, n < INSTANCES_MAX);
        }
        for n in 1..APPS_MAX {
            assert!(cache.want(&n.to_string()));
        }
        assert!(!cache.want("more"));
        cache.forget("1");
        assert!(cache.want("more"));
    }
}
