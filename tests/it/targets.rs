//! Whom a call is for, and who may ask: app ids, namespaces, tokens. The same calls through a real
//! daprd and through ringside, with sidecars of the same kind behind; statuses, texts and the app
//! that was reached are equal, but where a case says why not.

use crate::page;
use crate::peer::bare::exchange;
use crate::peer::ports::claim;
use crate::peer::probe::ProbeApp;
use crate::peer::sidecar::{Options, Ports};
use crate::peer::{Kind, Sidecar, World};
use http::Request;
use std::fmt::Write;

/// One call at a sidecar's API port.
struct Case {
    name: &'static str,
    fields: &'static [(&'static str, &'static str)],
    path: &'static str,
    /// Why ringside differs, with what it does instead.
    differs: Option<(&'static str, Told<'static>)>,
}

/// Status, text, and who was reached.
type Told<'a> = (&'a str, &'a str, &'a str);

/// What came of a case: as [`Told`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    status: String,
    text: String,
    reached: String,
}

impl Outcome {
    fn of((status, text, reached): Told<'_>) -> Self {
        Self { status: status.to_owned(), text: text.to_owned(), reached: reached.to_owned() }
    }

    fn show(&self) -> String {
        let reached = match self.reached.as_str() {
            "" => "nobody",
            app => app,
        };
        match self.text.as_str() {
            "" => format!("{}; {reached}", self.status),
            text => format!("{} `{text}`; {reached}", self.status),
        }
    }
}

const ECHO: &str = "/probe.Probe/Echo";

const fn case(name: &'static str, fields: &'static [(&'static str, &'static str)]) -> Case {
    Case { name, fields, path: ECHO, differs: None }
}

const IDS: &[Case] = &[
    case("an app id", &[("dapr-app-id", "server")]),
    case("no app id", &[]),
    Case {
        path: "/dapr.proto.runtime.v1.AppCallback/OnInvoke",
        ..case("no app id, a method under Dapr's name", &[])
    },
    case("an empty app id", &[("dapr-app-id", "")]),
    case("two app ids", &[("dapr-app-id", "server"), ("dapr-app-id", "nobody")]),
    case(
        "two app ids, the first is nobody's",
        &[("dapr-app-id", "nobody"), ("dapr-app-id", "server")],
    ),
    case("the callee's id wins", &[("dapr-app-id", "nobody"), ("dapr-callee-app-id", "server")]),
    case("the callee's id alone", &[("dapr-callee-app-id", "server")]),
    case("another's callee's id", &[("dapr-app-id", "server"), ("dapr-callee-app-id", "nobody")]),
    case("an id in capitals", &[("dapr-app-id", "SERVER")]),
    case("an unknown app", &[("dapr-app-id", "nobody")]),
    case("a space in it", &[("dapr-app-id", "my server")]),
    case(
        "an id of 200 characters",
        &[(
            "dapr-app-id",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        )],
    ),
    case("its own id", &[("dapr-app-id", "client")]),
    case(
        "the caller names another caller",
        &[("dapr-app-id", "server"), ("dapr-caller-app-id", "mallory")],
    ),
];

/// The namespace is part of who is expected.
const NOT_IT: (&str, Told<'static>) = (
    "daprd finds a connection by its address, and asks who is there only when it dials",
    (
        "14",
        "connection error: desc = \"transport: authentication handshake failed: unexpected SPIFFE \
         ID: \\\"spiffe://public/ns/default/server\\\"\"",
        "",
    ),
);
const NO_ID: (&str, Told<'static>) = ("no resolver is asked for it", ("2", "app id is empty", ""));

const NAMESPACES: &[Case] = &[
    case("its own namespace, named", &[("dapr-app-id", "server.default")]),
    case("another namespace", &[("dapr-app-id", "server.production")]),
    Case {
        differs: Some(NOT_IT),
        ..case("a namespace that is not there", &[("dapr-app-id", "server.staging")])
    },
    case("an app that is only there", &[("dapr-app-id", "only.production")]),
    case("an app that is only there, without it", &[("dapr-app-id", "only")]),
    Case {
        differs: Some(NOT_IT),
        ..case("no namespace behind the dot", &[("dapr-app-id", "server.")])
    },
    Case {
        differs: Some(NO_ID),
        ..case("no app before the dot", &[("dapr-app-id", ".production")])
    },
    Case { differs: Some(NO_ID), ..case("a dot alone", &[("dapr-app-id", ".")]) },
    case("two dots", &[("dapr-app-id", "server.production.svc")]),
    case("its own id in another namespace", &[("dapr-app-id", "client.production")]),
    case("the callee's id with a namespace", &[("dapr-callee-app-id", "server.production")]),
];

/// Where a token is asked for.
const TOKENS: &[Case] = &[
    case("no token", &[("dapr-app-id", "server")]),
    case("the token", &[("dapr-app-id", "server"), ("dapr-api-token", "sesame")]),
    case("a wrong token", &[("dapr-app-id", "server"), ("dapr-api-token", "Sesame")]),
    case("a longer token", &[("dapr-app-id", "server"), ("dapr-api-token", "sesame1")]),
    case("a shorter token", &[("dapr-app-id", "server"), ("dapr-api-token", "sesam")]),
    case("an empty token", &[("dapr-app-id", "server"), ("dapr-api-token", "")]),
    case(
        "the token, then a wrong one",
        &[("dapr-app-id", "server"), ("dapr-api-token", "sesame"), ("dapr-api-token", "wrong")],
    ),
    case(
        "a wrong token, then the right one",
        &[("dapr-app-id", "server"), ("dapr-api-token", "wrong"), ("dapr-api-token", "sesame")],
    ),
    case(
        "the token as an authorization",
        &[("dapr-app-id", "server"), ("authorization", "Bearer sesame")],
    ),
    case("the app's token", &[("dapr-app-id", "server"), ("dapr-api-token", "app-secret")]),
    case("no token, an unknown app", &[("dapr-app-id", "nobody")]),
    case("no token, no app id", &[]),
    case("the token, no app id", &[("dapr-api-token", "sesame")]),
    case(
        "the token, another namespace",
        &[("dapr-app-id", "server.production"), ("dapr-api-token", "sesame")],
    ),
    case("the token, its own id", &[("dapr-app-id", "client"), ("dapr-api-token", "sesame")]),
];

struct Group {
    name: &'static str,
    env: &'static [(&'static str, &'static str)],
    cases: &'static [Case],
}

const GROUPS: &[Group] = &[
    Group { name: "ids", env: &[], cases: IDS },
    Group { name: "namespaces", env: &[], cases: NAMESPACES },
    Group {
        name: "tokens",
        env: &[("DAPR_API_TOKEN", "sesame"), ("APP_API_TOKEN", "app-secret")],
        cases: TOKENS,
    },
];

/// Two apps of one name in two namespaces, one that is in the second only, and the caller, each
/// with its sidecar.
struct Stage {
    apps: Vec<(&'static str, ProbeApp)>,
    sidecars: Vec<Sidecar>,
    world: World,
}

impl Stage {
    fn new(kind: Kind, group: &Group) -> Self {
        let mut world = World::with_sentry(&format!("targets-{}-{}", group.name, kind.name()));
        world.reserve(&["server", "client"]);
        for name in ["server.production", "only.production"] {
            world.host(name, claim());
        }
        let mut stage = Self { apps: Vec::new(), sidecars: Vec::new(), world };
        for name in ["server", "server.production", "only.production", "client"] {
            stage.start(kind, group, name);
        }
        stage
    }

    fn start(&mut self, kind: Kind, group: &Group, name: &'static str) {
        let world = &self.world;
        let app = ProbeApp::start(world);
        let (id, namespace) = name.split_once('.').unwrap_or((name, "default"));
        let internal = world.ports_of(name).first().copied();
        let ports = internal.filter(|_| namespace != "default");
        let ports = ports.map(|internal| Ports { internal, ..Ports::claim() });
        let env = [group.env, &[("NAMESPACE", namespace)]].concat();
        let options = Options { app_port: Some(app.port), ports, env, ..Options::default() };
        self.sidecars.push(Sidecar::start(world, kind, id, options));
        self.apps.push((name, app));
    }

    fn ask(&self, case: &Case) -> Outcome {
        let seen = || self.apps.iter().map(|(_, app)| app.seen().len()).collect::<Vec<_>>();
        let before = seen();
        let port = self.sidecars.last().expect("the caller's").ports.grpc;
        let mut request = Request::post(format!("http://127.0.0.1:{port}{}", case.path))
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        for (name, value) in case.fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let answer = exchange(port, request, b"\0\0\0\0\x05hello").expect("an answer");
        let reached = self.apps.iter().zip(before).zip(seen());
        let reached = reached.filter(|((_, before), after)| before != after);
        let reached: Vec<&str> = reached.map(|(((name, _), _), _)| *name).collect();
        Outcome {
            status: answer.last("grpc-status").to_owned(),
            text: plain(answer.last("grpc-message")),
            reached: reached.join(", "),
        }
    }
}

/// Without what ringside adds of who failed.
fn plain(message: &str) -> String {
    message.split(" (the ").next().unwrap_or_default().to_owned()
}

fn decide(group: &Group) {
    let [theirs, ours] = std::thread::scope(|scope| {
        let run = |kind| {
            let stage = Stage::new(kind, group);
            group.cases.iter().map(|case| stage.ask(case)).collect::<Vec<_>>()
        };
        let theirs = scope.spawn(move || run(Kind::Daprd));
        let ours = run(Kind::Ringside);
        [theirs.join().expect("daprd's half"), ours]
    });
    let (mut wrong, mut table) = (String::new(), String::new());
    let _ = writeln!(table, "\n| Case | Fields | daprd | ringside |\n|---|---|---|---|");
    for ((case, theirs), ours) in group.cases.iter().zip(&theirs).zip(&ours) {
        let (expected, told) = match case.differs {
            None => (theirs.clone(), "same".to_owned()),
            Some((why, told)) => (Outcome::of(told), format!("{}: {why}", ours.show())),
        };
        if *ours != expected || (case.differs.is_some() && *theirs == expected) {
            let name = case.name;
            let _ = writeln!(wrong, "{name}:\n  daprd    {theirs:?}\n  ringside {ours:?}");
        }
        let fields = case.fields.iter().map(|(name, value)| format!("`{name}: {value}`"));
        let fields = fields.collect::<Vec<_>>().join(", ");
        let _ = writeln!(table, "| {} | {fields} | {} | {told} |", case.name, theirs.show());
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    table.push('\n');
    page::holds(&format!("{}: made by it::targets", group.name), &table);
}

fn group(name: &str) -> &'static Group {
    GROUPS.iter().find(|group| group.name == name).expect("a group")
}

#[test]
fn app_ids() {
    decide(group("ids"));
}

#[test]
fn namespaces() {
    decide(group("namespaces"));
}

#[test]
fn tokens() {
    decide(group("tokens"));
}
