//! Access control, case by case: each through a real daprd 1.18.1 and through ringside, as callees.
//! Both must say what the table says, which is written from spec 06; and both must count it alike.
//!
//! The table is `docs/policy-cases.md`, too.

use crate::page;
use crate::peer::bare::exchange;
use crate::peer::probe::{ProbeApp, mint};
use crate::peer::process::until;
use crate::peer::sidecar::{Options, http_get, http_request, loopback, unchunked};
use crate::peer::{Kind, Sidecar, World};
use crate::sentry::run;
use bytes::Bytes;
use data_encoding::BASE64_NOPAD;
use http::Request;
use ringside::control::rpc::client_config_as;
use ringside::identity::{Identity, SpiffeId, TrustAnchors};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Allowed,
    Denied,
    /// The SPIFFE ID names no app.
    Malformed,
}

use Fate::{Allowed, Denied, Malformed};

/// Callees that share a Configuration.
struct Group {
    name: &'static str,
    /// `spec.accessControl`.
    list: &'static str,
    mtls: bool,
    protocol: &'static str,
    /// Caller, path, fate. Callers are SPIFFE IDs without `spiffe://`; none is the app itself, at
    /// the API port, or, without mTLS, anybody.
    cases: &'static [(&'static str, &'static str, Fate)],
}

const CALLER: &str = "public/ns/default/caller";
const LENIENT: &str = "public/ns/default/lenient";
const SILENT: &str = "public/ns/default/silent";
const AGAIN: &str = "public/ns/default/again";
const STRANGER: &str = "public/ns/default/stranger";
const ABROAD: &str = "public/ns/other/caller";
const FOREIGN: &str = "elsewhere/ns/default/foreign";
const FALSE_FOREIGN: &str = "public/ns/default/foreign";

const PATTERNS: &str = "accessControl:
  defaultAction: deny
  trustDomain: public
  policies:
  - appId: caller
    namespace: default
    trustDomain: public
    defaultAction: deny
    operations:
    - {name: /exact.Svc/Method, httpVerb: ['*'], action: allow}
    - {name: /any.Svc/*, action: allow}
    - {name: /any.Svc/Shadowed, action: deny}
    - {name: /first.Svc/Hidden, action: deny}
    - {name: /first.Svc/*, action: allow}
    - {name: prefix.Svc, action: allow}
    - {name: /glob*/Get*, action: allow}
    - {name: /inner.Svc/G*t*l, action: allow}
    - {name: /deep.Svc/**, action: allow}
    - {name: /mid/*/End, action: allow}
    - {name: /loud.Svc/Method, action: ALLOW}
    - {name: /odd.Svc/Method, action: permit}
    - {name: /empty.Svc/Method}
    - {name: /twice.Svc/M, action: deny}
    - {name: /twice.Svc/M, action: allow}
    - {name: /back*.Svc/One, action: allow}
    - {name: /back.Svc/Two, action: allow}
    - {name: /long/er/Path, action: allow}
    - {name: /long/er, action: deny}
    - {name: /star*/x, action: allow}
  - appId: caller
    namespace: other
    trustDomain: public
    defaultAction: allow
  - appId: lenient
    namespace: default
    trustDomain: public
    defaultAction: Allow
    operations:
    - {name: /secret.Svc/*, action: deny}
  - appId: silent
    namespace: default
    trustDomain: public
    operations:
    - {name: /open.Svc/M, action: allow}
  - appId: foreign
    namespace: default
    trustDomain: elsewhere
    defaultAction: allow
  - appId: again
    namespace: default
    trustDomain: public
    defaultAction: allow
  - appId: again
    namespace: default
    trustDomain: public
    defaultAction: deny
";

const OPEN: &str = "accessControl:
  defaultAction: allow
  trustDomain: public
  policies:
  - appId: caller
    namespace: default
    trustDomain: public
    defaultAction: deny
    operations:
    - {name: /**, action: allow}
    - {name: /hidden.Svc/M, action: deny}
  - appId: silent
    namespace: default
    trustDomain: public
    operations:
    - {name: /hidden.Svc/*, action: deny}
";

const UNDECIDED: &str = "accessControl:
  defaultAction: \"\"
  trustDomain: \"\"
  policies:
  - appId: 0123
    namespace: default
    trustDomain: public
    defaultAction: allow
";

const LOUD: &str = "accessControl:
  defaultAction: deny
  policies:
  - appId: caller
    namespace: default
    trustDomain: public
    defaultAction: deny
    operations:
    - {name: /Loud.Svc/Method, action: allow}
";

/// A list that is taken away, not an empty one.
const UNSET: &str = "accessControl:\n";

const GROUPS: &[Group] = &[
    Group {
        name: "patterns",
        list: PATTERNS,
        mtls: true,
        protocol: "grpc",
        cases: &[
            (CALLER, "/exact.Svc/Method", Allowed),
            (CALLER, "/exact.Svc/method", Denied),
            (CALLER, "/exact.Svc/Method2", Denied),
            (CALLER, "/exact.Svc/Method/More", Allowed),
            (CALLER, "/Exact.Svc/Method", Denied),
            (CALLER, "/any.Svc/One", Allowed),
            (CALLER, "/any.Svc/Shadowed", Allowed),
            (CALLER, "/any.Svc/One/Two", Denied),
            (CALLER, "/first.Svc/Hidden", Denied),
            (CALLER, "/first.Svc/Seen", Allowed),
            (CALLER, "/prefix.Svc/Method", Allowed),
            (CALLER, "/prefix.Svc/a/b/c", Allowed),
            (CALLER, "/prefix.Svc2/Method", Denied),
            (CALLER, "/glob.Svc/Get", Allowed),
            (CALLER, "/globular.Svc/GetAll", Allowed),
            (CALLER, "/glob.Svc/Put", Denied),
            (CALLER, "/glob.Svc/GetAll/More", Allowed),
            (CALLER, "/inner.Svc/Gentle", Denied),
            (CALLER, "/inner.Svc/Gentil", Allowed),
            (CALLER, "/inner.Svc/Gtl", Allowed),
            (CALLER, "/deep.Svc/a", Allowed),
            (CALLER, "/deep.Svc/a/b/c", Allowed),
            (CALLER, "/mid/x/End", Denied),
            (CALLER, "/mid/*/End", Allowed),
            (CALLER, "/loud.Svc/Method", Allowed),
            (CALLER, "/odd.Svc/Method", Denied),
            (CALLER, "/empty.Svc/Method", Denied),
            (CALLER, "/twice.Svc/M", Denied),
            (CALLER, "/back.Svc/One", Allowed),
            (CALLER, "/back.Svc/Two", Denied),
            (CALLER, "/long/er", Denied),
            (CALLER, "/long/er/Path", Denied),
            (CALLER, "/star*/x", Allowed),
            (CALLER, "/starship/x", Allowed),
            (CALLER, "/nothing.Svc/M", Denied),
            (ABROAD, "/nothing.Svc/M", Allowed),
            (LENIENT, "/nothing.Svc/M", Allowed),
            (LENIENT, "/secret.Svc/M", Denied),
            (LENIENT, "/secret.Svc/M/More", Allowed),
            (SILENT, "/open.Svc/M", Allowed),
            (SILENT, "/other.Svc/M", Denied),
            (AGAIN, "/other.Svc/M", Denied),
            (FOREIGN, "/other.Svc/M", Allowed),
            (FALSE_FOREIGN, "/other.Svc/M", Denied),
            (STRANGER, "/exact.Svc/Method", Denied),
            ("public/ns/default/caller/more", "/exact.Svc/Method", Allowed),
            ("public/sa/default/caller", "/exact.Svc/Method", Malformed),
            ("public/ns/default", "/exact.Svc/Method", Malformed),
            ("", "/exact.Svc/Method", Denied),
        ],
    },
    Group {
        name: "open",
        list: OPEN,
        mtls: true,
        protocol: "grpc",
        cases: &[
            (CALLER, "/any.Svc/M", Allowed),
            (CALLER, "/hidden.Svc/M", Allowed),
            (SILENT, "/any.Svc/M", Allowed),
            (SILENT, "/hidden.Svc/M", Denied),
            (STRANGER, "/hidden.Svc/M", Allowed),
            ("public/ns/default", "/hidden.Svc/M", Malformed),
            ("", "/hidden.Svc/M", Allowed),
        ],
    },
    Group {
        name: "undecided",
        list: UNDECIDED,
        mtls: true,
        protocol: "grpc",
        cases: &[
            ("public/ns/default/0123", "/any.Svc/M", Allowed),
            ("public/ns/default/123", "/any.Svc/M", Denied),
            (STRANGER, "/any.Svc/M", Denied),
            ("", "/any.Svc/M", Denied),
        ],
    },
    Group {
        name: "loud",
        list: LOUD,
        mtls: true,
        protocol: "http",
        cases: &[
            (CALLER, "/Loud.Svc/Method", Denied),
            (STRANGER, "/loud.svc/method", Denied),
            ("", "/Loud.Svc/Method", Denied),
        ],
    },
    Group {
        name: "plaintext-closed",
        list: PATTERNS,
        mtls: false,
        protocol: "grpc",
        cases: &[("", "/exact.Svc/Method", Denied), ("", "/any.Svc/M", Denied)],
    },
    Group {
        name: "plaintext-open",
        list: OPEN,
        mtls: false,
        protocol: "grpc",
        cases: &[("", "/hidden.Svc/M", Allowed)],
    },
    Group {
        name: "none",
        list: "",
        mtls: true,
        protocol: "grpc",
        cases: &[
            (STRANGER, "/any.Svc/M", Allowed),
            ("public/sa/default/caller", "/any.Svc/M", Malformed),
            ("", "/any.Svc/M", Allowed),
        ],
    },
    Group {
        name: "unset",
        list: UNSET,
        mtls: true,
        protocol: "grpc",
        cases: &[
            (STRANGER, "/any.Svc/M", Allowed),
            ("public/sa/default/caller", "/any.Svc/M", Allowed),
        ],
    },
];

/// gRPC status and message.
type Told = (String, String);

fn expected(caller: &str, path: &str, fate: Fate) -> Told {
    let id = if caller.is_empty() { String::new() } else { format!("spiffe://{caller}") };
    match fate {
        Allowed => ("0".to_owned(), String::new()),
        Denied => (
            "7".to_owned(),
            format!(
                "access control policy has denied access to id: {id} operation: {path} verb: NONE"
            ),
        ),
        Malformed => ("7".to_owned(), format!("malformed SPIFFE ID: {id}")),
    }
}

/// Our side of mTLS, with a certificate from the test's Sentry's issuer.
fn identity(world: &World, id: &str) -> Identity {
    let sentry = world.sentry.as_ref().expect("a Sentry");
    let folder = mint(world, &sentry.credentials, &format!("spiffe://{id}"), &[]);
    let chain = CertificateDer::pem_file_iter(folder.join("tls.crt")).expect("a chain");
    Identity {
        spiffe_id: SpiffeId::parse(&format!("spiffe://{id}")).expect("an ID"),
        chain: chain.map(|der| der.expect("a certificate")).collect(),
        key: PrivatePkcs8KeyDer::from_pem_file(folder.join("tls.key")).expect("a key"),
        trust_anchors: Arc::new(TrustAnchors::from_pem(sentry.anchors.as_bytes()).expect("roots")),
        not_before: SystemTime::now(),
        not_after: SystemTime::now(),
    }
}

/// Calls one after another, on one connection.
async fn ask<S>(stream: S, scheme: &str, paths: &[&str]) -> Vec<Told>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut told = Vec::new();
    for path in paths {
        let mut client = client.clone().ready().await.expect("the connection lives");
        let request = Request::post(format!("{scheme}://127.0.0.1{path}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("dapr-callee-app-id", "server")
            .header("dapr-app-id", "server");
        let request = request.body(()).expect("a request");
        let (response, mut body) = client.send_request(request, false).expect("a stream");
        body.send_data(Bytes::from_static(b"\0\0\0\0\x05hello"), true).expect("a message");
        let (head, mut body) = response.await.expect("a head").into_parts();
        while let Some(data) = body.data().await {
            let octets = data.expect("the body").len();
            body.flow_control().release_capacity(octets).expect("a window");
        }
        let trailers = body.trailers().await.expect("trailers").unwrap_or(head.headers);
        let text = |name| {
            let value = trailers.get(name).map(|value| value.to_str().expect("a text").to_owned());
            value.unwrap_or_default()
        };
        told.push((text("grpc-status"), text("grpc-message")));
    }
    told
}

fn ask_callee(world: &World, callee: &Sidecar, caller: &str, paths: &[&str]) -> Vec<Told> {
    if caller.is_empty() {
        let port = callee.ports.grpc;
        return run(async {
            ask(TcpStream::connect(loopback(port)).await.expect("a port"), "http", paths).await
        });
    }
    let own = identity(world, caller);
    let config = client_config_as("spiffe://public/ns/default/server".to_owned(), &own);
    let connector = TlsConnector::from(config.expect("a TLS configuration"));
    let port = callee.ports.internal;
    run(async {
        let socket = TcpStream::connect(loopback(port)).await.expect("a port");
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let secured = connector.connect(name, socket).await.expect("a handshake");
        ask(secured, "https", paths).await
    })
}

/// The series about access control once they tell of `count` calls: daprd counts a little later.
fn rulings(callee: &Sidecar, count: u64) -> Vec<String> {
    let all = || {
        let lines = told(callee);
        let counts = lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        (counts.sum::<u64>() == count).then_some(lines)
    };
    until(all).unwrap_or_else(|| panic!("{count} calls were not counted: {:#?}", told(callee)))
}

fn told(callee: &Sidecar) -> Vec<String> {
    let text = unchunked(&http_get(callee.ports.metrics, "/metrics").expect("metrics"));
    let ours = text.lines().filter(|line| line.starts_with("dapr_runtime_acl_"));
    let mut lines: Vec<String> = ours.map(str::to_owned).collect();
    lines.sort();
    lines
}

fn judge(group: &Group) {
    let name = format!("acl-{}", group.name);
    let mut counted = Vec::new();
    for kind in [Kind::Daprd, Kind::Ringside] {
        let name = format!("{name}-{}", kind.name());
        let mut world = if group.mtls { World::with_sentry(&name) } else { World::new(&name) };
        world.reserve(&["server"]);
        let app = ProbeApp::start(&world);
        let options = Options {
            app_port: Some(app.port),
            spec: group.list,
            args: vec!["--app-protocol", group.protocol],
            ..Options::default()
        };
        let callee = Sidecar::start(&world, kind, "server", options);
        let mut by_caller: BTreeMap<&str, Vec<(&str, Fate)>> = BTreeMap::new();
        for (caller, path, fate) in group.cases {
            by_caller.entry(caller).or_default().push((path, *fate));
        }
        for (caller, cases) in by_caller {
            let paths: Vec<&str> = cases.iter().map(|(path, _)| *path).collect();
            let told = ask_callee(&world, &callee, caller, &paths);
            for ((path, fate), told) in cases.iter().zip(told) {
                let expected = expected(caller, path, *fate);
                assert_eq!(told, expected, "{} {name}: {caller:?} {path}", kind.name());
            }
        }
        let allowed = group.cases.iter().filter(|(.., fate)| *fate == Allowed).count();
        assert_eq!(app.seen().len(), allowed, "{name}: who is denied never reaches the app");
        let uncounted = |fate: Fate| fate == Malformed || group.list == UNSET;
        let count = group.cases.iter().filter(|(.., fate)| !uncounted(*fate)).count();
        counted.push(rulings(&callee, count as u64));
    }
    assert_eq!(counted[0], counted[1], "{}: daprd's series, ringside's", group.name);
}

fn group(name: &str) -> &'static Group {
    GROUPS.iter().find(|group| group.name == name).expect("a group")
}

#[test]
fn patterns() {
    judge(group("patterns"));
}

#[test]
fn allow_by_default() {
    judge(group("open"));
}

#[test]
fn no_default() {
    judge(group("undecided"));
}

#[test]
fn an_http_apps_names_are_lowered() {
    judge(group("loud"));
}

#[test]
fn without_identities() {
    judge(group("plaintext-closed"));
    judge(group("plaintext-open"));
}

#[test]
fn without_a_list() {
    judge(group("none"));
    judge(group("unset"));
}

/// `docs/policy-cases.md` tells these very cases.
#[test]
fn the_table_of_cases_is_this_one() {
    let mut table = String::new();
    for group in GROUPS {
        let mtls = if group.mtls { "mTLS" } else { "plaintext" };
        let _ =
            writeln!(table, "\n### {}\n{mtls}, `--app-protocol {}`", group.name, group.protocol);
        let _ = match group.list {
            "" => writeln!(table, "\nNo `accessControl`."),
            list => writeln!(table, "\n```yaml\n{}\n```", list.trim_end()),
        };
        let _ = writeln!(table, "\n| Caller | Method | Decision |\n|---|---|---|");
        for (caller, path, fate) in group.cases {
            let caller = match *caller {
                "" => "the app itself".to_owned(),
                id => format!("`spiffe://{id}`"),
            };
            let _ =
                writeln!(table, "| {caller} | `{path}` | {} |", format!("{fate:?}").to_lowercase());
        }
    }
    table.push('\n');
    page::holds("access control: made by it::acl", &table);
}

/// Lists of Dapr's own APIs, over both protocols.
#[test]
fn lists_of_apis() {
    const SPEC: &str = "api:
  allowed:
  - {name: metadata, version: v1, protocol: grpc}
  - {name: invoke, version: v1, protocol: http}
  denied:
  - {name: shutdown, version: v1, protocol: grpc}
  - {name: metadata, version: v1.0, protocol: HTTP}
";
    let mut all = Vec::new();
    for kind in [Kind::Daprd, Kind::Ringside] {
        let mut world = World::new(&format!("acl-apis-{}", kind.name()));
        world.reserve(&["server"]);
        let app = ProbeApp::start(&world);
        let env = vec![("DAPR_API_TOKEN", "sesame")];
        let options = Options { app_port: Some(app.port), spec: SPEC, env, ..Options::default() };
        let callee = Sidecar::start(&world, kind, "server", options);
        let grpc = |path: &str, token: &str, app: bool| {
            let mut request = Request::post(format!("http://127.0.0.1{path}"))
                .header("te", "trailers")
                .header("content-type", "application/grpc")
                .header("dapr-api-token", token);
            if app {
                request = request.header("dapr-app-id", "server");
            }
            let request = request.body(()).expect("a request");
            let got = exchange(callee.ports.grpc, request, b"\0\0\0\0\0").expect("an answer");
            let details = BASE64_NOPAD.decode(got.last("grpc-status-details-bin").as_bytes());
            // Go writes the entries of a map in any order.
            let mut details = details.expect("base64");
            details.sort_unstable();
            (got.last("grpc-status").to_owned(), got.last("grpc-message").to_owned(), details)
        };
        let mut told = Vec::new();
        for (path, token, app) in [
            ("/dapr.proto.runtime.v1.Dapr/Shutdown", "sesame", false),
            ("/dapr.proto.runtime.v1.Dapr/Shutdown", "wrong", false),
            ("/dapr.proto.runtime.v1.Dapr/GetState", "sesame", false),
            ("/dapr.proto.runtime.v1.Dapr/InvokeService", "sesame", true),
            ("/dapr.proto.runtime.v1.AppCallback/OnInvoke", "sesame", true),
            ("/dapr.proto.runtime.v1.Dapr/GetMetadata", "wrong", false),
            ("/dapr.proto.runtime.v1.Dapr/GetMetadata", "sesame", false),
            ("/probe.Probe/Echo", "sesame", true),
        ] {
            told.push(grpc(path, token, app));
        }
        assert_eq!((told[0].0.as_str(), told[0].1.as_str()), ("12", "Not Implemented"));
        assert_eq!(told[1], told[0], "before the token is looked at");
        assert!(told[2..5].iter().all(|answer| *answer == told[0]), "{told:?}");
        assert_eq!((told[5].0.as_str(), told[6].0.as_str()), ("16", "0"), "{told:?}");
        assert_eq!(told[7].0, "0", "an app's method is nobody's API: {told:?}");
        let token = "dapr-api-token: sesame\r\n";
        let http = |method: &str, path: &str| {
            let answer = http_request(callee.ports.http, method, path, token, "").expect("HTTP");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            (head.split(' ').nth(1).expect("a status").to_owned(), body.to_owned())
        };
        let asked =
            [("GET", "/v1.0/healthz"), ("GET", "/v1.0/metadata"), ("POST", "/v1.0/shutdown")];
        let answers: Vec<_> = asked.into_iter().map(|(method, path)| http(method, path)).collect();
        let statuses: Vec<&str> = answers.iter().map(|(status, _)| status.as_str()).collect();
        // What is not served falls back to invocation, which misses an app ID.
        assert_eq!(statuses, ["204", "404", "404"]);
        all.push((told.into_iter().take(6).collect::<Vec<_>>(), answers));
    }
    assert_eq!(all[0], all[1], "daprd's answers, ringside's");
}

/// The same decision and text as the sidecar's, and the rule.
#[test]
fn explains() {
    let world = World::new("acl-explain");
    let file = world.folder("a").join("config.yaml");
    let indented = PATTERNS.replace('\n', "\n  ");
    fs::write(&file, format!("spec:\n  {indented}")).expect("a Configuration");
    for (caller, path, fate) in group("patterns").cases {
        let mut explain = std::process::Command::new(crate::peer::ringside());
        explain.args(["acl", "explain", "--method", path]).arg("--config").arg(&file);
        if !caller.is_empty() {
            explain.arg(format!("--caller=spiffe://{caller}"));
        }
        let output = explain.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (_, text) = expected(caller, path, *fate);
        let allowed = *fate == Allowed;
        assert_eq!(output.status.code(), Some(i32::from(!allowed)), "{caller} {path}: {said}");
        let word = if allowed { "allowed\nrule: " } else { "denied\nrule: " };
        assert!(said.starts_with(word) && said.contains(&text), "{caller} {path}: {said}");
    }
    let mut bad = std::process::Command::new(crate::peer::ringside());
    bad.args(["acl", "explain", "--method", "/a/b", "--config", "/nowhere.yaml"]);
    let output = bad.output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("stat /nowhere.yaml: no such file or directory"), "{said}");
}
