//! The fields of a Configuration that daprd 1.18.1 knows.
//!
//! Source: `ConfigurationSpec` of Dapr's `pkg/config/configuration.go`, as its decoder sees it.

use super::shape::{Fields, Shape};
use Shape::{Any, Bool, Integer, List, Optional, OptionalBool, Struct, Text};

/// One document. What kind of resource it is, and how it is called, nobody asks.
pub const CONFIGURATION: Shape =
    Struct(&[("apiVersion", Any), ("kind", Any), ("metadata", Any), ("spec", Struct(SPEC))]);

const SPEC: Fields = &[
    ("accessControl", Optional(ACCESS_CONTROL)),
    ("api", Optional(&[("allowed", API_RULES), ("denied", API_RULES)])),
    ("appHttpPipeline", PIPELINE),
    ("components", Optional(&[("deny", List(&Text))])),
    ("features", List(&Struct(&[("name", Text), ("enabled", Bool)]))),
    ("httpPipeline", PIPELINE),
    ("logging", Optional(&[("apiLogging", Optional(API_LOGGING))])),
    ("metric", METRIC),
    ("metrics", METRIC),
    ("mtls", Optional(MTLS)),
    ("nameResolution", Optional(NAME_RESOLUTION)),
    ("secrets", Optional(&[("scopes", List(&Struct(SECRETS_SCOPE)))])),
    ("tracing", Optional(TRACING)),
    ("wasm", Optional(&[("strictSandbox", Bool)])),
    ("workflow", Any),
];

const ACCESS_CONTROL: Fields = &[
    ("defaultAction", Text),
    ("trustDomain", Text),
    (
        "policies",
        List(&Struct(&[
            ("appId", Text),
            ("defaultAction", Text),
            ("trustDomain", Text),
            ("namespace", Text),
            (
                "operations",
                List(&Struct(&[("name", Text), ("httpVerb", List(&Text)), ("action", Text)])),
            ),
        ])),
    ),
];

const API_RULES: Shape = List(&Struct(&[("name", Text), ("version", Text), ("protocol", Text)]));

const API_LOGGING: Fields =
    &[("enabled", Bool), ("obfuscateURLs", Bool), ("omitHealthChecks", Bool)];

const METRIC: Shape = Optional(&[
    ("enabled", OptionalBool),
    ("recordErrorCodes", OptionalBool),
    (
        "http",
        Optional(&[
            ("increasedCardinality", OptionalBool),
            ("pathMatching", List(&Text)),
            ("excludeVerbs", OptionalBool),
        ]),
    ),
    ("latencyDistributionBuckets", List(&Integer)),
    (
        "rules",
        List(&Struct(&[
            ("name", Text),
            ("labels", List(&Struct(&[("name", Text), ("regex", Any)]))),
        ])),
    ),
]);

const MTLS: Fields = &[
    ("enabled", Bool),
    ("workloadCertTTL", Text),
    ("allowedClockSkew", Text),
    ("sentryAddress", Text),
    ("controlPlaneTrustDomain", Text),
    ("tokenValidators", List(&Struct(&[("name", Text), ("options", Any)]))),
];

const NAME_RESOLUTION: Fields = &[("component", Text), ("version", Text), ("configuration", Any)];

const PIPELINE: Shape = Optional(&[(
    "handlers",
    List(&Struct(&[("name", Text), ("type", Text), ("version", Text), ("selector", Any)])),
)]);

const SECRETS_SCOPE: Fields = &[
    ("defaultAccess", Text),
    ("storeName", Text),
    ("allowedSecrets", List(&Text)),
    ("deniedSecrets", List(&Text)),
];

const TRACING: Fields = &[
    ("samplingRate", Text),
    ("stdout", Bool),
    ("zipkin", Optional(&[("endpointAddress", Text)])),
    (
        "otel",
        Optional(&[
            ("protocol", Text),
            ("endpointAddress", Text),
            ("isSecure", OptionalBool),
            ("headers", List(&Text)),
            ("timeout", Text),
        ]),
    ),
];
