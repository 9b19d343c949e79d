//! Access control in front of our app: who may, who may not, what each sees and what is counted.

use super::*;
use crate::config::access::{AccessControl as List, ApiRule, ApiRules, AppPolicy, Operation};
use crate::http2::FieldSection;
use crate::identity::SpiffeId;
use crate::observe::callers::Ruling;
use crate::policy::Policies;
use crate::policy::acl::AccessControl;
use crate::policy::apis::Apis;

const PATH: &str = "/a.B/C";

/// `caller` may call PATH and nothing else; `other` has no policy; both of spiffe://public.
fn policies(default: &str, action: &str) -> Arc<Policies> {
    let operation = Operation { name: PATH.into(), action: action.into() };
    let policy = AppPolicy {
        app_id: "caller".into(),
        namespace: "default".into(),
        trust_domain: "public".into(),
        default_action: "deny".into(),
        operations: vec![operation],
    };
    let list = List {
        default_action: default.into(),
        trust_domain: "public".into(),
        policies: vec![policy],
    };
    let access = AccessControl::compile(&list, false).unwrap().map(|(access, _)| access);
    Arc::new(Policies { access, ..Policies::default() })
}

fn bench(policies: &Arc<Policies>) -> Bench {
    let mut bench = Bench::new(config());
    bench.publish(policies);
    bench
}

impl Bench {
    fn publish(&mut self, policies: &Arc<Policies>) {
        let epoch = Epoch(self.proxy.snapshot.epoch.0 + 1);
        let last = Snapshot::clone(&self.proxy.snapshot);
        let policies = Arc::clone(policies);
        self.handle(Input::Snapshot(Arc::new(Snapshot { epoch, policies, ..last })));
    }

    /// A connection of a sidecar that showed this SPIFFE ID's path.
    fn accept_of(&mut self, path: &str) -> ConnId {
        let spiffe_id = Some(SpiffeId::parse(&format!("spiffe://public{path}")).unwrap());
        let arrival = Arrival { listener: Listener::Internal, peer: None, spiffe_id };
        let conn = self.proxy.accept(arrival, self.now);
        let h2 = Connection::new(Role::Client, Limits::default(), head::classify, self.now);
        self.ends.insert(conn, h2);
        conn
    }

    /// A call to our own app, of which the head is all.
    fn ask_app(&mut self, conn: ConnId, path: &str) -> StreamId {
        let mut fields = FieldSection::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            ("content-type", "application/grpc"),
            ("dapr-callee-app-id", "client"),
        ] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let stream = self.ends.get_mut(&conn).unwrap().open(fields, true, 0).unwrap();
        self.run();
        stream
    }

    /// Status and text of a call that is answered at once; `None`: it went on to the app.
    fn refusal(&mut self, conn: ConnId, path: &str) -> Option<String> {
        let stream = self.ask_app(conn, path);
        let begin = format!("{} HEADERS ", stream.0);
        let seen = self.seen.get(&conn)?.iter().find_map(|line| line.strip_prefix(&begin))?;
        seen.split_once("grpc-status=").map(|(_, status)| status.to_owned())
    }

    fn ruled(&self, ruling: Ruling) -> Vec<(String, u64)> {
        let counted = self.proxy.cells.callers.of_ruling(ruling);
        counted.map(|(names, count)| (names.join(" "), count)).collect()
    }
}

/// PermissionDenied, in the words of spec 06.
fn denied(id: &str, path: &str) -> Option<String> {
    Some(format!(
        "7 grpc-message=access control policy has denied access to id: {id} operation: {path} \
         verb: NONE END"
    ))
}

const CALLER: &str = "spiffe://public/ns/default/caller";

#[test]
fn callers_may_what_their_policy_says() {
    let mut bench = bench(&policies("deny", "allow"));
    let caller = bench.accept_of("/ns/default/caller");
    let other = bench.accept_of("/ns/default/other");
    let malformed = bench.accept_of("/sa/other");
    // Twice each: found out, and remembered.
    for _ in 0..2 {
        assert_eq!(bench.refusal(caller, PATH), None);
        assert_eq!(bench.refusal(caller, "/a.B/D"), denied(CALLER, "/a.B/D"));
        let id = "spiffe://public/ns/default/other";
        assert_eq!(bench.refusal(other, PATH), denied(id, PATH));
        let text = "7 grpc-message=malformed SPIFFE ID: spiffe://public/sa/other END";
        assert_eq!(bench.refusal(malformed, PATH).as_deref(), Some(text));
    }
    let named = |name: &str| vec![(format!("{name} default public"), 2)];
    assert_eq!(bench.ruled(Ruling::AllowedByApp), named("caller"));
    assert_eq!(bench.ruled(Ruling::BlockedByApp), named("caller"));
    assert_eq!(bench.ruled(Ruling::BlockedByGlobal), named("other"));
    assert_eq!(bench.ruled(Ruling::AllowedByGlobal), []);
}

/// Without mTLS nobody has a name, nor has our own app: the default holds.
#[test]
fn who_has_no_identity_gets_the_default() {
    for (default, refusal) in [("allow", None), ("deny", denied("", PATH))] {
        let mut bench = bench(&policies(default, "allow"));
        for listener in [Listener::Internal, Listener::Api] {
            let conn = bench.accept(listener);
            assert_eq!(bench.refusal(conn, PATH), refusal, "{default} {listener:?}");
        }
        let ruling = match refusal {
            None => Ruling::AllowedByGlobal,
            Some(_) => Ruling::BlockedByGlobal,
        };
        assert_eq!(bench.ruled(ruling), [("  ".to_owned(), 2)]);
    }
}

/// The callee's sidecar judges, the caller's does not.
#[test]
fn calls_to_other_apps_are_not_judged() {
    let mut bench = bench(&policies("deny", "deny"));
    let conn = bench.accept(Listener::Api);
    bench.call(conn, &[("dapr-app-id", "server")], Some(MESSAGE));
    assert_eq!(bench.resolves.len(), 1);
    assert_eq!(bench.ruled(Ruling::BlockedByGlobal), []);
}

/// Connections stay, calls in flight stay, and the next call is judged anew.
#[test]
fn new_policies_hold_for_old_connections() {
    let mut bench = bench(&policies("deny", "allow"));
    let caller = bench.accept_of("/ns/default/caller");
    assert_eq!(bench.refusal(caller, PATH), None);
    let closed = bench.closed.len();
    bench.publish(&policies("deny", "deny"));
    assert_eq!(bench.refusal(caller, PATH), denied(CALLER, PATH));
    let none = Arc::new(Policies { access: None, ..Policies::default() });
    bench.publish(&none);
    assert_eq!(bench.refusal(caller, PATH), None);
    assert_eq!((bench.closed.len(), bench.proxy.calls()), (closed, 2), "calls went on");
}

/// One line a second, whatever comes.
#[test]
fn denials_are_told_now_and_then() {
    let mut bench = bench(&policies("deny", "allow"));
    let other = bench.accept_of("/ns/default/other");
    for _ in 0..50 {
        assert!(bench.refusal(other, PATH).is_some());
    }
    assert_eq!(bench.lines, 1);
    bench.wait(Duration::from_secs(1));
    assert!(bench.refusal(other, PATH).is_some());
    assert_eq!(bench.lines, 2);
}

/// Dapr's own methods by the list of APIs; an app's methods are none of them.
#[test]
fn lists_of_apis_hold_at_the_api_port() {
    let rule =
        |name: &str| ApiRule { name: name.into(), version: "v1".into(), protocol: "grpc".into() };
    let rules = ApiRules { allowed: vec![rule("metadata")], denied: vec![rule("state")] };
    let apis = Apis::new(&rules);
    let mut bench = bench(&Arc::new(Policies { apis, ..Policies::default() }));
    let conn = bench.accept(Listener::Api);
    for path in [
        "/dapr.proto.runtime.v1.Dapr/Shutdown",
        "/dapr.proto.runtime.v1.Dapr/GetState",
        "/dapr.proto.runtime.v1.AppCallback/OnInvoke",
    ] {
        let refusal = bench.refusal(conn, path).unwrap_or_default();
        assert!(refusal.starts_with("12 grpc-message=Not Implemented "), "{path}: {refusal}");
        assert!(refusal.contains("grpc-status-details-bin="), "{path}: {refusal}");
    }
    assert_eq!(bench.refusal(conn, PATH), None);
    let internal = bench.accept(Listener::Internal);
    assert_eq!(bench.refusal(internal, "/dapr.proto.runtime.v1.AppCallback/OnInvoke"), None);
}
