//! The immutable view that control publishes and workers read.
//!
//! 1. A snapshot is never changed, only replaced whole; epochs rise.
//! 2. A worker holds one `Arc` per epoch; nothing is cloned per call.

use crate::config::Config;
use crate::identity::Identity;
use crate::policy::Policies;
use crate::policy::resiliency::Targets;
use crate::resolve::Endpoint;
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
    /// The app channel's address, looked up by control; `None` without an app or while the
    /// lookup fails.
    pub app_endpoint: Option<Endpoint>,
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
        let (identity, app_endpoint, resiliency) = (None, None, None);
        Self { epoch: Epoch(1), config, policies, resiliency, identity, app_endpoint }
    }
}
