//! Lists of Dapr's own APIs: which of them this sidecar serves.
//!
//! 1. What is denied is denied, then, if anything is allowed, the rest is denied, too; by protocol.
//! 2. Over gRPC only methods below `dapr.proto.runtime.` are asked about. Calls to apps are none of
//!    them.
//! 3. A list that names nothing we know still restricts.
//!
//! Source: Dapr's `pkg/api/grpc/endpoints.go`, `pkg/api/http/endpoints/endpoint.go`.

use crate::config::access::{ApiRule, ApiRules};

/// Methods that the lists are about.
const RUNTIME: &[u8] = b"/dapr.proto.runtime.";
const DAPR: &[u8] = b"/dapr.proto.runtime.v1.Dapr/";

/// Version and name of an API, as rules give them, and its methods.
const METHODS: &[(&str, &[&str])] = &[
    (
        "v1/actors",
        &[
            "ExecuteActorStateTransaction",
            "GetActorReminder",
            "GetActorState",
            "InvokeActor",
            "ListActorReminders",
            "RegisterActorReminder",
            "RegisterActorTimer",
            "UnregisterActorReminder",
            "UnregisterActorRemindersByType",
            "UnregisterActorTimer",
        ],
    ),
    ("v1alpha1/actors", &["SubscribeActorEventsAlpha1"]),
    ("v1/bindings", &["InvokeBinding"]),
    (
        "v1/configuration",
        &["GetConfiguration", "SubscribeConfiguration", "UnsubscribeConfiguration"],
    ),
    (
        "v1alpha1/configuration",
        &[
            "GetConfigurationAlpha1",
            "SubscribeConfigurationAlpha1",
            "UnsubscribeConfigurationAlpha1",
        ],
    ),
    ("v1alpha1/conversation", &["ConverseAlpha1"]),
    ("v1alpha2/conversation", &["ConverseAlpha2"]),
    ("v1alpha1/crypto", &["DecryptAlpha1", "EncryptAlpha1"]),
    ("v1/invoke", &["InvokeService"]),
    ("v1/jobs", &["DeleteJob", "DeleteJobsByPrefix", "GetJob", "ListJobs", "ScheduleJob"]),
    (
        "v1alpha1/jobs",
        &[
            "DeleteJobAlpha1",
            "DeleteJobsByPrefixAlpha1",
            "GetJobAlpha1",
            "ListJobsAlpha1",
            "ScheduleJobAlpha1",
        ],
    ),
    ("v1alpha1/lock", &["TryLockAlpha1"]),
    ("v1/metadata", &["GetMetadata", "SetMetadata"]),
    ("v1/publish", &["BulkPublishEvent", "PublishEvent"]),
    ("v1alpha1/publish", &["BulkPublishEventAlpha1"]),
    ("v1/secrets", &["GetBulkSecret", "GetSecret"]),
    ("v1/shutdown", &["Shutdown"]),
    (
        "v1/state",
        &[
            "DeleteBulkState",
            "DeleteState",
            "ExecuteStateTransaction",
            "GetBulkState",
            "GetState",
            "SaveState",
        ],
    ),
    ("v1alpha1/state", &["QueryStateAlpha1"]),
    ("v1alpha1/subscribe", &["SubscribeTopicEventsAlpha1"]),
    (
        "v1alpha1/subtlecrypto",
        &[
            "SubtleDecryptAlpha1",
            "SubtleEncryptAlpha1",
            "SubtleGetKeyAlpha1",
            "SubtleSignAlpha1",
            "SubtleUnwrapKeyAlpha1",
            "SubtleVerifyAlpha1",
            "SubtleWrapKeyAlpha1",
        ],
    ),
    ("v1alpha1/unlock", &["UnlockAlpha1"]),
    (
        "v1alpha1/workflows",
        &[
            "GetWorkflowAlpha1",
            "PauseWorkflowAlpha1",
            "PurgeWorkflowAlpha1",
            "RaiseEventWorkflowAlpha1",
            "ResumeWorkflowAlpha1",
            "StartWorkflowAlpha1",
            "TerminateWorkflowAlpha1",
        ],
    ),
    (
        "v1beta1/workflows",
        &[
            "GetWorkflowBeta1",
            "PauseWorkflowBeta1",
            "PurgeWorkflowBeta1",
            "RaiseEventWorkflowBeta1",
            "ResumeWorkflowBeta1",
            "StartWorkflowBeta1",
            "TerminateWorkflowBeta1",
        ],
    ),
];

/// See the file's text. By default everything is served.
#[derive(Debug, Default)]
pub struct Apis {
    grpc: Lists,
    http: Lists,
}

/// Rules of one protocol, as `version/name`.
#[derive(Debug, Default)]
struct Lists {
    allowed: Vec<String>,
    denied: Vec<String>,
}

/// An HTTP endpoint, by both names that rules may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `version/name`.
    pub group: &'static str,
    /// The path's pattern, without the first slash.
    pub route: &'static str,
}

impl Apis {
    pub fn new(rules: &ApiRules) -> Self {
        Self { grpc: Lists::of("grpc", rules), http: Lists::of("http", rules) }
    }

    /// May this path be called, as far as it is a method of Dapr's?
    pub fn serves_method(&self, path: &[u8]) -> bool {
        if self.grpc.is_empty() || !path.starts_with(RUNTIME) {
            return true;
        }
        let name = path.strip_prefix(DAPR).unwrap_or_default();
        let api = METHODS.iter().find(|(_, names)| names.iter().any(|n| n.as_bytes() == name));
        self.grpc.serve(|rule| api.is_some_and(|(key, _)| rule == *key))
    }

    pub fn serves_endpoint(&self, endpoint: Endpoint) -> bool {
        self.http.serve(|rule| rule == endpoint.group || endpoint.route.starts_with(rule))
    }

    /// Anything to enforce over gRPC, over HTTP?
    pub fn restricts(&self) -> (bool, bool) {
        (!self.grpc.is_empty(), !self.http.is_empty())
    }
}

impl Lists {
    fn of(protocol: &str, rules: &ApiRules) -> Self {
        let keys = |rules: &[ApiRule]| {
            let ours = rules.iter().filter(|rule| rule.protocol.eq_ignore_ascii_case(protocol));
            ours.map(|rule| format!("{}/{}", rule.version, rule.name)).collect()
        };
        Self { allowed: keys(&rules.allowed), denied: keys(&rules.denied) }
    }

    fn is_empty(&self) -> bool {
        self.allowed.is_empty() && self.denied.is_empty()
    }

    fn serve(&self, names: impl Fn(&str) -> bool) -> bool {
        let any = |rules: &[String]| rules.iter().any(|rule| names(rule));
        !any(&self.denied) && (self.allowed.is_empty() || any(&self.allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(list: &[(&str, &str, &str)]) -> Vec<ApiRule> {
        let rule = |(name, version, protocol): &(&str, &str, &str)| ApiRule {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            protocol: (*protocol).to_owned(),
        };
        list.iter().map(rule).collect()
    }

    fn apis(allowed: &[(&str, &str, &str)], denied: &[(&str, &str, &str)]) -> Apis {
        Apis::new(&ApiRules { allowed: rules(allowed), denied: rules(denied) })
    }

    const METADATA: Endpoint = Endpoint { group: "v1/metadata", route: "v1.0/metadata" };
    const SHUTDOWN: Endpoint = Endpoint { group: "v1/shutdown", route: "v1.0/shutdown" };

    fn method(apis: &Apis, name: &str) -> bool {
        apis.serves_method(format!("/dapr.proto.runtime.v1.Dapr/{name}").as_bytes())
    }

    #[test]
    fn without_rules_everything_is_served() {
        let apis = Apis::default();
        assert!(method(&apis, "GetState") && apis.serves_endpoint(METADATA));
        assert_eq!(apis.restricts(), (false, false));
    }

    /// Spec 02 §2.4: denied first, then the allowed ones only.
    #[test]
    fn lists_are_by_protocol() {
        let some = apis(&[("metadata", "v1", "grpc"), ("state", "v1", "grpc")], &[]);
        assert!(method(&some, "GetMetadata") && method(&some, "SetMetadata"));
        assert!(!method(&some, "Shutdown") && !method(&some, "NoSuchMethod"));
        assert!(!some.serves_method(b"/dapr.proto.runtime.v1.AppCallback/OnInvoke"));
        assert!(some.serves_method(b"/dapr.proto.internals.v1.X/Y"));
        assert!(some.serves_method(b"/helloworld.Greeter/SayHello"), "an app's");
        assert!(some.serves_endpoint(SHUTDOWN), "the other protocol is not asked");
        let none = apis(&[], &[("metadata", "v1", "GRPC"), ("shutdown", "v1", "http")]);
        assert!(!method(&none, "GetMetadata") && method(&none, "Shutdown"));
        assert!(none.serves_endpoint(METADATA) && !none.serves_endpoint(SHUTDOWN));
        let both = apis(&[("metadata", "v1", "grpc")], &[("metadata", "v1", "grpc")]);
        assert!(!method(&both, "GetMetadata"));
        assert_eq!(both.restricts(), (true, false));
    }

    /// Over HTTP the older way of naming is known, too: the beginning of a path.
    #[test]
    fn http_rules_may_begin_a_path() {
        assert!(!apis(&[], &[("metadata", "v1.0", "http")]).serves_endpoint(METADATA));
        assert!(!apis(&[], &[("meta", "v1.0", "http")]).serves_endpoint(METADATA));
        let shutdown = apis(&[("shutdown", "v1.0", "HTTP")], &[]);
        assert!(shutdown.serves_endpoint(SHUTDOWN) && !shutdown.serves_endpoint(METADATA));
        assert!(method(&shutdown, "GetMetadata"));
    }

    /// daprd lets everything through then.
    #[test]
    fn a_list_of_unknown_names_restricts() {
        let unknown = apis(&[("metadata", "v1.0", "grpc")], &[]);
        assert!(!method(&unknown, "GetMetadata") && !method(&unknown, "GetState"));
    }
}
