//! Who is told of spans, as files and variables say it.

use super::*;
use serde_json::json;

fn spec(tracing: &Value) -> TracingSpec {
    TracingSpec::new(&json!({"spec": {"tracing": tracing}})).unwrap()
}

fn otlp_of(tracing: &Value, env: &[(&str, &str)]) -> Option<Otlp> {
    let (mut spec, env) = (spec(tracing), env.iter().copied().collect());
    spec.set_from_env(&env).unwrap();
    spec.exporters("app", &env).unwrap().otlp
}

/// Spec 10 §10.2, row by row.
#[test]
fn what_makes_spans() {
    let zipkin = json!({"endpointAddress": "http://localhost:9411/api/v2/spans"});
    let sampled = |rate, exported| Tracing::Sampled { rate, exported };
    for (tracing, expected) in [
        (json!({"samplingRate": "0"}), Tracing::Off),
        (json!({"samplingRate": "0.0", "zipkin": zipkin}), Tracing::Off),
        (json!({}), Tracing::Passed),
        (json!({"samplingRate": "0.5"}), sampled(0.5, false)),
        (json!({"samplingRate": "often"}), sampled(1e-4, false)),
        (json!({"zipkin": zipkin}), sampled(1e-4, true)),
        (json!({"stdout": true, "samplingRate": "1"}), sampled(1.0, true)),
        (json!({"otel": {"endpointAddress": "c:4317"}}), Tracing::Passed),
        (json!({"otel": {"endpointAddress": "c:4317", "protocol": "grpc"}}), sampled(1e-4, true)),
    ] {
        let spec = spec(&tracing);
        assert_eq!(spec.tracing(), expected, "{tracing}");
        let exporters = spec.exporters("app", &Environment::default()).unwrap();
        let exported = matches!(expected, Tracing::Sampled { exported: true, .. });
        assert_eq!(exporters.is_empty(), !exported, "{tracing}");
    }
}

#[test]
fn otlp_by_configuration() {
    let tracing = json!({"otel": {
        "endpointAddress": "collector:4318", "protocol": "http", "isSecure": false,
        "headers": ["x-key=a=b", "nonsense"], "timeout": "3s",
    }});
    // The environment's endpoint, protocol and rate are not looked at then.
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://elsewhere:1/"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-more=%20c%2Cd ,x-last="),
    ];
    let otlp = otlp_of(&tracing, &env).unwrap();
    assert_eq!(otlp.protocol, OtlpProtocol::Http);
    assert_eq!(otlp.url, Url::parse("http://collector:4318/v1/traces").unwrap());
    let headers = [("x-key", "a=b"), ("x-more", "c,d"), ("x-last", "")];
    assert_eq!(otlp.headers, headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(otlp.timeout, Duration::from_secs(3));
    let secure = json!({"otel": {"endpointAddress": "c:4317", "protocol": "grpc"}});
    let otlp = otlp_of(&secure, &[("OTEL_EXPORTER_OTLP_TIMEOUT", "1500")]).unwrap();
    assert!(otlp.url.tls && otlp.protocol == OtlpProtocol::Grpc);
    assert_eq!(otlp.timeout, Duration::from_millis(1500));
    assert_eq!(otlp_of(&secure, &[]).unwrap().timeout, Duration::from_secs(10));
}

#[test]
fn otlp_by_environment() {
    let url = |env: &[(&str, &str)]| otlp_of(&json!({}), env).map(|otlp| otlp.url);
    let parsed = |text| Some(Url::parse(text).unwrap());
    let all = |text| ("OTEL_EXPORTER_OTLP_ENDPOINT", text);
    let own = |text| ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", text);
    assert_eq!(url(&[]), None);
    assert_eq!(url(&[all("http://c:4318")]), parsed("http://c:4318/v1/traces"));
    assert_eq!(url(&[all("http://c:4318/at/")]), parsed("http://c:4318/at/v1/traces"));
    assert_eq!(url(&[all("http://c"), own("https://d:1/x")]), parsed("https://d:1/x"));
    assert_eq!(url(&[own("http://d:1")]), parsed("http://d:1/"));
    assert_eq!(url(&[all("c:4317")]), parsed("https://c:4317/v1/traces"));
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
    assert_eq!(url(&[all("c:4317"), insecure]), parsed("http://c:4317/v1/traces"));

    let env = [all("http://c:4318"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")];
    let mut spec = spec(&json!({}));
    let env: Environment = env.into_iter().collect();
    spec.set_from_env(&env).unwrap();
    assert_eq!(spec.rate(), 1.0);
    let otlp = spec.exporters("app", &env).unwrap().otlp.unwrap();
    assert_eq!(otlp.protocol, OtlpProtocol::Http);
}

/// The variables for traces before those for all signals; certificate and key as a pair.
#[test]
fn compression_and_files_by_environment() {
    let tracing = json!({"otel": {"endpointAddress": "c:4317", "protocol": "grpc"}});
    let of = |env: &[(&str, &str)]| {
        let env: Vec<_> =
            env.iter().map(|(n, v)| (format!("OTEL_EXPORTER_OTLP_{n}"), *v)).collect();
        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        otlp_of(&tracing, &env).unwrap()
    };
    let (all, own) = ("COMPRESSION", "TRACES_COMPRESSION");
    for (env, gzip) in [
        (&[][..], false),
        (&[(all, "gzip")], true),
        (&[(all, "gzip"), (own, "none")], false),
        (&[(own, "gzip")], true),
        (&[(all, "GZIP")], false),
    ] {
        assert_eq!(of(env).gzip, gzip, "{env:?}");
    }
    let files = |env: &[(&str, &str)]| of(env).tls;
    let pair = |certificate: &str, key: &str| {
        Some(ClientFiles { certificate: certificate.to_owned(), key: key.to_owned() })
    };
    let (all, own) = ("CLIENT_CERTIFICATE", "TRACES_CLIENT_CERTIFICATE");
    let (all_key, own_key) = ("CLIENT_KEY", "TRACES_CLIENT_KEY");
    assert_eq!(files(&[("CERTIFICATE", "/r")]).roots.as_deref(), Some("/r"));
    assert_eq!(files(&[(all, "/c"), (all_key, "/k")]).client, pair("/c", "/k"));
    let both = [(all, "/c"), (all_key, "/k"), (own, "/d"), (own_key, "/l")];
    assert_eq!(files(&both).client, pair("/d", "/l"));
    assert_eq!(files(&both[..3]).client, pair("/c", "/k"));
    assert_eq!(files(&[(all, "/c"), (own_key, "/l")]).client, None);
}

#[test]
fn what_cannot_work_is_refused() {
    let empty = Environment::default();
    let refused = |tracing: Value| spec(&tracing).exporters("app", &empty).unwrap_err();
    let otel = json!({"otel": {"endpointAddress": "c:4317", "protocol": "http/json"}});
    assert_eq!(refused(otel), "invalid protocol http/json provided for Otel endpoint");
    let zipkin = json!({"zipkin": {"endpointAddress": "zipkin:9411"}});
    assert!(refused(zipkin).starts_with("invalid collector URL \"zipkin:9411\": "));
    for (name, text, error) in [
        ("HEADERS", "a", "missing '=' parse headers inputa"),
        ("HEADERS", "a b=1", "invalid header keya b"),
        ("HEADERS", "a=%2", "escape header value%2"),
        ("TIMEOUT", "soon", "strconv.Atoi: parsing \"soon\": invalid syntax"),
    ] {
        let name = format!("OTEL_EXPORTER_OTLP_{name}");
        let env = [(name.as_str(), text)].into_iter().collect();
        assert_eq!(spec(&json!({})).set_from_env(&env), Err(error.to_owned()), "{name}");
    }
    let timeout = json!({"spec": {"tracing": {"otel": {"timeout": "soon"}}}});
    let error = TracingSpec::new(&timeout).unwrap_err();
    assert_eq!(error, "spec.tracing.otel.timeout: time: invalid duration \"soon\"");
}

#[test]
fn batches_and_resource_by_environment() {
    let env: Environment = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "-1"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other, team = a%2Cb,odd"),
    ]
    .into_iter()
    .collect();
    let exporters = spec(&json!({"stdout": true})).exporters("app", &env).unwrap();
    let expected = Batching {
        queue_max: 100,
        batch_max: 100,
        delay: Duration::from_millis(200),
        timeout: Duration::from_secs(30),
    };
    assert_eq!(exporters.batching, expected);
    let pairs = |pairs: [(&str, &str); 2]| pairs.map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(exporters.resource, pairs([("service.name", "other"), ("team", "a,b")]));
    let mut env = env;
    env.set("OTEL_SERVICE_NAME", "named");
    let exporters = spec(&json!({"stdout": true})).exporters("app", &env).unwrap();
    assert_eq!(exporters.resource, pairs([("service.name", "named"), ("team", "a,b")]));
}
