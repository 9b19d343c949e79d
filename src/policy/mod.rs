//! Who may call what, and how often we try. PURE.

pub mod acl;
pub mod apis;
pub mod baggage;
pub mod breaker;
pub mod budget;
pub mod method;
pub mod resiliency;
pub mod retry;
pub mod timeout;
pub mod token;
pub mod trip;

use crate::config::spec::Configuration;
use crate::identity::SpiffeId;
use acl::{AccessControl, AccessControlError, Standing};
use apis::Apis;

/// What files decide about calls, compiled; replaced whole.
#[derive(Debug)]
pub struct Policies {
    /// `None`: nobody is asked who he is.
    pub access: Option<AccessControl>,
    pub apis: Apis,
}

impl Default for Policies {
    /// What holds without any file.
    fn default() -> Self {
        Self { access: Some(AccessControl::default()), apis: Apis::default() }
    }
}

impl Policies {
    /// `http`: our app is said to speak it. Also gives what is to be warned of.
    pub fn compile(
        configuration: &Configuration,
        http: bool,
    ) -> Result<(Self, Option<&'static str>), AccessControlError> {
        let list = configuration.access_control.as_ref();
        let compiled = list.map(|list| AccessControl::compile(list, http)).transpose()?.flatten();
        let (access, warning) = compiled.unzip();
        let apis = Apis::new(&configuration.api);
        Ok((Self { access, apis }, warning.flatten()))
    }

    /// Access control for people.
    pub fn access_summary(&self) -> String {
        let none = || "none: nobody is asked who he is".to_owned();
        self.access.as_ref().map_or_else(none, AccessControl::summary)
    }

    /// What access control knows of a caller; one without a certificate is `None`.
    pub fn standing(&self, caller: Option<&SpiffeId>) -> Standing {
        self.access.as_ref().map_or(Standing::Unlisted, |access| access.standing(caller))
    }
}
