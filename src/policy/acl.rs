//! Access control: which callers may call which methods of our app.
//!
//! 1. A list is compiled once, whole; what it says of a caller is found once for a connection
//!    ([`Standing`]), what it says of a method once for a path that is remembered.
//! 2. Decisions are daprd's, with whatever may surprise: an operation's pattern also holds for
//!    longer paths, the first pattern that was written wins, `*` in the middle holds for nothing.
//! 3. Each decision names the rule that made it.
//!
//! Source: Dapr's `pkg/acl/acl.go` and `pkg/config/acl_trie.go`, in the words of spec 06.

mod trie;

#[cfg(test)]
mod tests;

use crate::config::access::{self, AppPolicy};
use crate::identity::SpiffeId;
use std::collections::BTreeMap;
use std::fmt;
use trie::Trie;

/// daprd's warning about a list without a default.
const NO_DEFAULT: &str = "No global default action has been specified. Setting default global \
                          action as Deny";

/// A compiled list.
#[derive(Debug)]
pub struct AccessControl {
    allows: bool,
    /// Those that count; a later one for the same caller replaced an earlier one.
    policies: Vec<Policy>,
    /// By namespace and app ID.
    callers: BTreeMap<(Box<str>, Box<str>), u32>,
}

#[derive(Debug)]
struct Policy {
    app_id: Box<str>,
    namespace: Box<str>,
    trust_domain: Box<str>,
    /// `None`: the global default holds.
    allows: Option<bool>,
    operations: Trie,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    /// As compared: with its slash.
    name: Box<str>,
    allows: bool,
}

/// What a list knows of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its SPIFFE ID names no app: it may nothing.
    Malformed,
    /// It has no policy, or no identity.
    Unlisted,
    /// An index of policies.
    Listed(u32),
}

/// Under which of Dapr's two names a decision is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    App,
    Global,
}

/// What made a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Malformed,
    Default,
    AppDefault(u32),
    Operation { policy: u32, rule: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// `None`: counted under neither.
    pub scope: Option<Scope>,
    by: By,
}

/// daprd's text for a list that misses what each policy must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessControlError {
    without_trust_domain: Vec<String>,
    without_namespace: Vec<String>,
    without_app_id: bool,
}

impl Default for AccessControl {
    /// Without any list: everybody may do everything.
    fn default() -> Self {
        Self { allows: true, policies: Vec::new(), callers: BTreeMap::new() }
    }
}

impl AccessControl {
    /// `lowercase`: our app speaks HTTP, so daprd keeps the names of its operations in lower case.
    /// Also gives what is to be warned of. `None`: there is nothing to control by.
    pub fn compile(
        list: &access::AccessControl,
        lowercase: bool,
    ) -> Result<Option<(Self, Option<&'static str>)>, AccessControlError> {
        if *list == access::AccessControl::default() {
            return Ok(None);
        }
        let mut error = AccessControlError::default();
        let mut compiled = Self::default();
        for policy in &list.policies {
            if error.finds(policy) {
                continue;
            }
            compiled.insert(Policy::compile(policy, lowercase));
        }
        if error != AccessControlError::default() {
            return Err(error);
        }
        // A list of policies is given by its presence, even if it is empty.
        let undecided = list.default_action.is_empty() && !list.policies.is_empty();
        compiled.allows = match list.default_action.as_str() {
            "" => !undecided,
            action => allows(action),
        };
        Ok(Some((compiled, undecided.then_some(NO_DEFAULT))))
    }

    fn insert(&mut self, policy: Policy) {
        let caller = (policy.namespace.clone(), policy.app_id.clone());
        match self.callers.get(&caller) {
            Some(index) => self.policies[*index as usize] = policy,
            None => {
                self.callers.insert(caller, self.policies.len() as u32);
                self.policies.push(policy);
            }
        }
    }

    /// In a sentence, for people.
    pub fn summary(&self) -> String {
        let others = if self.allows { "allowed" } else { "denied" };
        match self.callers.len() {
            0 => format!("no policies; everybody is {others}"),
            1 => format!("1 app has a policy; others are {others}"),
            count => format!("{count} apps have policies; others are {others}"),
        }
    }

    /// `None`: a caller that showed no certificate.
    pub fn standing(&self, caller: Option<&SpiffeId>) -> Standing {
        let Some(id) = caller else { return Standing::Unlisted };
        let Some((namespace, app_id)) = id.workload() else { return Standing::Malformed };
        let index = self.callers.get(&(namespace.into(), app_id.into()));
        match index.filter(|index| {
            self.policy(**index).is_some_and(|policy| *policy.trust_domain == *id.trust_domain())
        }) {
            Some(index) => Standing::Listed(*index),
            None => Standing::Unlisted,
        }
    }

    /// `path` is a method's, as it is dispatched.
    pub fn decide(&self, standing: Standing, path: &[u8]) -> Decision {
        let default =
            Decision { allowed: self.allows, scope: Some(Scope::Global), by: By::Default };
        let index = match standing {
            Standing::Malformed => {
                return Decision { allowed: false, scope: None, by: By::Malformed };
            }
            Standing::Unlisted => return default,
            Standing::Listed(index) => index,
        };
        let Some(policy) = self.policy(index) else { return default };
        let decision = match policy.allows {
            None => default,
            Some(allowed) => {
                Decision { allowed, scope: Some(Scope::App), by: By::AppDefault(index) }
            }
        };
        let rule = policy.operations.find(path);
        match rule.and_then(|rule| Some((rule, policy.rules.get(rule as usize)?))) {
            None => decision,
            Some((rule, Rule { allows, .. })) => {
                let by = By::Operation { policy: index, rule };
                Decision { allowed: *allows, by, ..decision }
            }
        }
    }

    /// The rule that made a decision, for people.
    pub fn explain(&self, decision: &Decision) -> String {
        let name = |index| match self.policy(index) {
            Some(policy) => policy.to_string(),
            None => "a policy".to_owned(),
        };
        match decision.by {
            By::Malformed => "the caller's SPIFFE ID names no app".to_owned(),
            By::Default => "defaultAction of accessControl".to_owned(),
            By::AppDefault(policy) => format!("defaultAction of {}", name(policy)),
            By::Operation { policy, rule } => {
                let rule = self.policy(policy).and_then(|policy| policy.rules.get(rule as usize));
                let operation = rule.map_or("", |rule| &rule.name);
                format!("operation \"{operation}\" of {}", name(policy))
            }
        }
    }

    fn policy(&self, index: u32) -> Option<&Policy> {
        self.policies.get(index as usize)
    }
}

impl Policy {
    fn compile(policy: &AppPolicy, lowercase: bool) -> Self {
        let mut operations = Trie::default();
        let mut rules = Vec::with_capacity(policy.operations.len());
        for operation in &policy.operations {
            let slash = if operation.name.starts_with('/') { "" } else { "/" };
            let mut name = format!("{slash}{}", operation.name);
            if lowercase {
                name = name.to_lowercase();
            }
            operations.insert(name.as_bytes(), rules.len() as u32);
            rules.push(Rule { name: name.into(), allows: allows(&operation.action) });
        }
        let default = policy.default_action.as_str();
        Self {
            app_id: policy.app_id.as_str().into(),
            namespace: policy.namespace.as_str().into(),
            trust_domain: policy.trust_domain.as_str().into(),
            allows: (!default.is_empty()).then(|| allows(default)),
            operations,
            rules,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { app_id, namespace, trust_domain, .. } = self;
        write!(f, "the policy of appId {app_id}, namespace {namespace}, trustDomain {trust_domain}")
    }
}

/// Whatever is not allowed is denied.
fn allows(action: &str) -> bool {
    action.eq_ignore_ascii_case("allow")
}

/// daprd's text for who was denied.
pub fn denial(caller: Option<&SpiffeId>, standing: Standing, path: &[u8]) -> String {
    let id = caller.map_or("", SpiffeId::as_str);
    match standing {
        Standing::Malformed => format!("malformed SPIFFE ID: {id}"),
        Standing::Unlisted | Standing::Listed(_) => {
            let operation = String::from_utf8_lossy(path);
            format!(
                "access control policy has denied access to id: {id} operation: {operation} \
                 verb: NONE"
            )
        }
    }
}

impl AccessControlError {
    /// Once an app ID was missing, no later policy is looked at by daprd: it is an error anyway.
    fn finds(&mut self, policy: &AppPolicy) -> bool {
        self.without_app_id |= policy.app_id.is_empty();
        if policy.trust_domain.is_empty() {
            self.without_trust_domain.push(policy.app_id.clone());
        }
        if policy.namespace.is_empty() {
            self.without_namespace.push(policy.app_id.clone());
        }
        self.without_app_id || policy.trust_domain.is_empty() || policy.namespace.is_empty()
    }
}

impl fmt::Display for AccessControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid access control spec. missing trustdomain for apps: [{}], missing namespace \
             for apps: [{}], missing app name on at least one of the app policies: {}",
            self.without_trust_domain.join(" "),
            self.without_namespace.join(" "),
            self.without_app_id
        )
    }
}

impl std::error::Error for AccessControlError {}
