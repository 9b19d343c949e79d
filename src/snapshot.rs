//! The immutable view that control publishes and workers read.
//!
//! 1. A snapshot is never changed, only replaced whole; epochs rise.
//! 2. A worker holds one `Arc` per epoch; nothing is cloned per call.

use crate::config::metric::LATENCY_BUCKETS_DEFAULT;
use crate::config::{Config, SocketPath};
use crate::identity::Identity;
use crate::policy::Policies;
use crate::policy::resiliency::Targets;
use crate::resolve::Endpoint;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Rises with every published snapshot; starts at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub epoch: Epoch,
    pub config: Arc<Config>,
    pub policies: Arc<Policies>,
    /// `None`: there are no Resiliency resources.
    pub resiliency: Option<Arc<Targets>>,
    /// Present iff `config.mtls`.
    pub identity: Option<Arc<Identity>>,
    /// Of Dapr's latencies, in milliseconds; read once, at a worker's start.
    pub latency_bounds: Arc<[u64]>,
    /// Where the app is, looked up by control; `None` without an app or while the lookup fails.
    pub app: Option<Way>,
}

/// Where a connection leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    Tcp(Endpoint),
    /// To our app.
    Unix(SocketPath),
}

impl Way {
    pub fn endpoint(&self) -> Option<Endpoint> {
        match self {
            Self::Tcp(endpoint) => Some(*endpoint),
            Self::Unix(_) => None,
        }
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.endpoint().map(|Endpoint(address)| address)
    }

    /// The other end is on this machine.
    pub fn is_local(&self) -> bool {
        self.address().is_none_or(|address| address.ip().is_loopback())
    }

    /// As Go names a network.
    pub fn network(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Unix(_) => "unix",
        }
    }
}

impl From<Endpoint> for Way {
    fn from(endpoint: Endpoint) -> Self {
        Self::Tcp(endpoint)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(Endpoint(address)) => address.fmt(f),
            Self::Unix(path) => path.fmt(f),
        }
    }
}

impl Snapshot {
    /// Its resiliency policies, if they are others than those of an earlier one.
    pub fn resiliency_instead_of(&self, earlier: &Self) -> Option<&Targets> {
        let targets = self.resiliency.as_ref()?;
        let same = earlier.resiliency.as_ref().is_some_and(|known| Arc::ptr_eq(known, targets));
        (!same).then_some(targets)
    }

    /// The first one: what the flags say, and nothing that is found out later.
    pub fn new(config: Arc<Config>) -> Self {
        let policies = Arc::default();
        let (identity, app, resiliency) = (None, None, None);
        let latency_bounds = LATENCY_BUCKETS_DEFAULT.into();
        Self { epoch: Epoch(1), config, policies, resiliency, identity, latency_bounds, app }
    }
}
