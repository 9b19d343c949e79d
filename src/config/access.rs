//! What a Configuration says of who may do what: access control, lists of APIs.
//!
//! Words as they were written; what they mean is for `policy` to say.

use super::yaml::at;
use serde_json::Value;

/// Rules that are told as holding for nobody.
const IDLE_MAX: usize = 16;

/// `spec.accessControl`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessControl {
    pub default_action: String,
    pub trust_domain: String,
    pub policies: Vec<AppPolicy>,
}

/// One of `policies`: what one caller may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppPolicy {
    pub app_id: String,
    pub namespace: String,
    pub trust_domain: String,
    pub default_action: String,
    pub operations: Vec<Operation>,
}

/// One of `operations`; its HTTP verbs mean nothing to a gRPC call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    pub name: String,
    pub action: String,
}

/// `spec.api`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiRules {
    pub allowed: Vec<ApiRule>,
    pub denied: Vec<ApiRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiRule {
    pub name: String,
    pub version: String,
    pub protocol: String,
}

impl AccessControl {
    pub(super) fn new(tree: &Value) -> Self {
        Self {
            default_action: text(tree, "defaultAction"),
            trust_domain: text(tree, "trustDomain"),
            policies: list(tree, "policies").map(AppPolicy::new).collect(),
        }
    }
}

impl AppPolicy {
    fn new(tree: &Value) -> Self {
        let operation = |tree| Operation { name: text(tree, "name"), action: text(tree, "action") };
        Self {
            app_id: text(tree, "appId"),
            namespace: text(tree, "namespace"),
            trust_domain: text(tree, "trustDomain"),
            default_action: text(tree, "defaultAction"),
            operations: list(tree, "operations").map(operation).collect(),
        }
    }
}

impl ApiRules {
    pub(super) fn new(tree: &Value) -> Self {
        let rule = |tree| ApiRule {
            name: text(tree, "name"),
            version: text(tree, "version"),
            protocol: text(tree, "protocol"),
        };
        Self {
            allowed: list(tree, "allowed").map(rule).collect(),
            denied: list(tree, "denied").map(rule).collect(),
        }
    }

    /// Rules that hold for nobody, since their protocol has no API of Dapr's: list, place in it.
    pub(super) fn idle(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let known = |rule: &ApiRule| {
            ["http", "grpc"].iter().any(|name| rule.protocol.eq_ignore_ascii_case(name))
        };
        let of = move |list, rules: &[ApiRule]| {
            let idle = rules.iter().enumerate().filter(|(_, rule)| !known(rule));
            idle.map(|(at, _)| (list, at)).collect::<Vec<_>>()
        };
        let [allowed, denied] =
            [of("spec.api.allowed", &self.allowed), of("spec.api.denied", &self.denied)];
        allowed.into_iter().chain(denied).take(IDLE_MAX)
    }
}

/// daprd looks into the scopes of secrets, whoever asks for them.
pub(super) fn check_secrets(tree: &Value) -> Result<(), String> {
    let mut names = Vec::new();
    for scope in list(tree, "spec.secrets.scopes") {
        let name = text(scope, "storeName");
        if names.contains(&name) {
            return Err(format!("{name} storeName is repeated in secrets configuration"));
        }
        let access = text(scope, "defaultAccess");
        if !["", "allow", "deny"].iter().any(|known| access.eq_ignore_ascii_case(known)) {
            return Err(format!("defaultAccess {access} can be either allow or deny"));
        }
        names.push(name);
    }
    Ok(())
}

/// What is not there is empty.
pub(super) fn text(tree: &Value, path: &str) -> String {
    at(tree, path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

pub(super) fn list<'a>(tree: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    at(tree, path).and_then(Value::as_array).into_iter().flatten()
}
