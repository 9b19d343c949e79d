//! The compiled list against the rules as they are written, and against a list that follows them
//! word by word.

use super::*;
use crate::config::access::Operation;

/// What spec 06 §6.4 says, by the letter: every sibling is looked at, nothing is sorted.
mod naive {
    use crate::config::access::{AccessControl, AppPolicy};
    use crate::identity::SpiffeId;

    #[derive(Default)]
    struct Node {
        text: String,
        allows: Option<bool>,
        children: Vec<Node>,
    }

    fn put(node: &mut Node, segments: &[&str], allows: bool) {
        let [first, rest @ ..] = segments else {
            node.allows = node.allows.or(Some(allows));
            return;
        };
        let at = node.children.iter().position(|child| child.text == *first);
        let at = at.unwrap_or_else(|| {
            node.children.push(Node { text: (*first).to_owned(), ..Node::default() });
            node.children.len() - 1
        });
        put(&mut node.children[at], rest, allows);
    }

    /// By recursion over what a `*` may stand for.
    fn glob(text: &[u8], pattern: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|skipped| glob(&text[skipped..], rest)),
            [octet, rest @ ..] => text.first() == Some(octet) && glob(&text[1..], rest),
        }
    }

    fn sibling<'a>(nodes: &'a [Node], segment: &str, last: bool) -> Option<&'a Node> {
        nodes.iter().find(|node| match node.text.as_str() {
            text if text == segment => true,
            "*" => last,
            "**" => true,
            text => glob(segment.as_bytes(), text.as_bytes()),
        })
    }

    fn search(root: &Node, segments: &[&str]) -> Option<bool> {
        let mut node = root;
        for (at, segment) in segments.iter().enumerate() {
            let last = at + 1 == segments.len();
            node = sibling(&node.children, segment, last)?;
            match node.allows {
                Some(_) if !last && node.text == "*" => {}
                Some(allows) => return Some(allows),
                None if last => return sibling(&node.children, "*", true)?.allows,
                None => {}
            }
        }
        None
    }

    fn split(path: &str) -> Vec<&str> {
        path.strip_prefix('/').unwrap_or(path).split('/').collect()
    }

    /// Allowed, and counted as the app's.
    pub fn decide(list: &AccessControl, caller: Option<&SpiffeId>, path: &str) -> (bool, bool) {
        let allow = |action: &str| action.eq_ignore_ascii_case("allow");
        let global = match list.default_action.as_str() {
            "" => list.policies.is_empty(),
            action => allow(action),
        };
        let Some(id) = caller else { return (global, false) };
        let parts: Vec<&str> = id.path().split('/').collect();
        let is_caller =
            |policy: &&AppPolicy| policy.app_id == parts[3] && policy.namespace == parts[2];
        let Some(policy) = list.policies.iter().rev().find(is_caller) else {
            return (global, false);
        };
        if policy.trust_domain != id.trust_domain() {
            return (global, false);
        }
        let (default, app) = match policy.default_action.as_str() {
            "" => (global, false),
            action => (allow(action), true),
        };
        let mut root = Node::default();
        for operation in &policy.operations {
            put(&mut root, &split(&operation.name), allow(&operation.action));
        }
        (search(&root, &split(path)).unwrap_or(default), app)
    }
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

const CALLER: &str = "spiffe://public/ns/default/caller";

fn policy(default: &str, operations: &[(&str, &str)]) -> AppPolicy {
    let operation = |(name, action): &(&str, &str)| Operation {
        name: (*name).to_owned(),
        action: (*action).to_owned(),
    };
    AppPolicy {
        app_id: "caller".into(),
        namespace: "default".into(),
        trust_domain: "public".into(),
        default_action: default.into(),
        operations: operations.iter().map(operation).collect(),
    }
}

fn list(default: &str, policies: Vec<AppPolicy>) -> access::AccessControl {
    access::AccessControl {
        default_action: default.into(),
        trust_domain: "public".into(),
        policies,
    }
}

fn compile(list: &access::AccessControl) -> AccessControl {
    AccessControl::compile(list, false).unwrap().expect("a list").0
}

fn decide(list: &access::AccessControl, caller: Option<&str>, path: &str) -> (bool, Option<Scope>) {
    let compiled = compile(list);
    let caller = caller.map(id);
    let decision = compiled.decide(compiled.standing(caller.as_ref()), path.as_bytes());
    (decision.allowed, decision.scope)
}

/// One policy, deny by default, one pattern that allows.
fn allows_path(pattern: &str, path: &str) -> bool {
    decide(&list("deny", vec![policy("deny", &[(pattern, "allow")])]), Some(CALLER), path).0
}

/// Spec 06 §6.4 and its examples.
#[test]
fn patterns() {
    for (pattern, path, holds) in [
        ("/a.B/C", "/a.B/C", true),
        ("a.B/C", "/a.B/C", true),
        ("/a.B/C", "/a.B/c", false),
        ("/a.B/C", "/a.B/CD", false),
        ("/a.B/*", "/a.B/C", true),
        ("/a.B/*", "/a.B", true),
        ("/a.B/*", "/a.B/C/D", false),
        ("/a.*/*", "/a.B/C", true),
        ("/a.*/*", "/b.B/C", false),
        ("/*", "/a.B/C", false),
        ("/*", "/a.B", true),
        ("/*/C", "/a.B/C", false),
        ("/**", "/a.B/C", true),
        ("/a.B/**", "/a.B", true),
        ("/a.B", "/a.B/C", true),
        ("/a*", "/a.B/C/D", true),
        ("/a.B/G*t", "/a.B/Get", true),
        ("/a.B/G*t", "/a.B/Gt", true),
        ("/a.B/G*t", "/a.B/Got/x", true),
        ("/a.B/*e*", "/a.B/Get", true),
        ("/a.B/G*G", "/a.B/G", false),
        ("/a.B/", "/a.B", false),
        ("", "/a.B/C", false),
        ("/*/C", "/*/C", true),
    ] {
        assert_eq!(allows_path(pattern, path), holds, "{pattern} {path}");
    }
}

/// Who was written first wins among siblings, and of one pattern's rules.
#[test]
fn order_matters() {
    let of = |operations: &[(&str, &str)], path| {
        decide(&list("allow", vec![policy("deny", operations)]), Some(CALLER), path).0
    };
    assert!(of(&[("/a/*", "allow"), ("/a/b", "deny")], "/a/b"));
    assert!(!of(&[("/a/b", "deny"), ("/a/*", "allow")], "/a/b"));
    assert!(!of(&[("/a/b", "deny"), ("/a/b", "allow")], "/a/b"));
    assert!(!of(&[("/a*/x", "allow"), ("/ab/y", "allow")], "/ab/y"), "no way back");
    assert!(of(&[("/a/b", "ALLOW")], "/a/b"));
    assert!(!of(&[("/a/b", "allowed"), ("/a/b/c", "allow")], "/a/b/c"));
}

/// Spec 06 §6.4, steps 1 to 5.
#[test]
fn callers() {
    let twice = vec![
        policy("deny", &[]),
        AppPolicy { trust_domain: "other".into(), ..policy("allow", &[]) },
    ];
    let plain = list("allow", vec![policy("deny", &[("/a/b", "allow")])]);
    let path = "/a/c";
    let global = Some(Scope::Global);
    assert_eq!(decide(&plain, Some(CALLER), path), (false, Some(Scope::App)));
    assert_eq!(decide(&plain, Some(CALLER), "/a/b"), (true, Some(Scope::App)));
    assert_eq!(decide(&plain, None, path), (true, global));
    for other in [
        "spiffe://public/ns/default/other",
        "spiffe://public/ns/other/caller",
        "spiffe://else/ns/default/caller",
    ] {
        assert_eq!(decide(&plain, Some(other), path), (true, global), "{other}");
    }
    for malformed in ["spiffe://public/caller", "spiffe://public/ns/default", "spiffe://public"] {
        assert_eq!(decide(&plain, Some(malformed), path), (false, None), "{malformed}");
    }
    assert_eq!(decide(&list("allow", twice), Some(CALLER), path), (true, global), "the last one");
    let silent = list("allow", vec![policy("", &[("/a/b", "deny")])]);
    assert_eq!(decide(&silent, Some(CALLER), path), (true, global));
    assert_eq!(decide(&silent, Some(CALLER), "/a/b"), (false, global), "still under its name");
}

/// Spec 06 §6.3.
#[test]
fn defaults() {
    let default = |default: &str, policies: Vec<AppPolicy>| {
        let list = list(default, policies);
        let (compiled, warning) = AccessControl::compile(&list, false).unwrap().expect("a list");
        (compiled.decide(Standing::Unlisted, b"/a/b").allowed, warning.is_some())
    };
    assert_eq!(default("", Vec::new()), (true, false));
    assert_eq!(default("", vec![policy("allow", &[])]), (false, true));
    assert_eq!(default("Allow", vec![policy("deny", &[])]), (true, false));
    assert_eq!(default("DENY", Vec::new()), (false, false));
    assert_eq!(default("alow", Vec::new()), (false, false));
    let nothing = AccessControl::compile(&access::AccessControl::default(), false).unwrap();
    assert!(nothing.is_none());
    assert!(AccessControl::default().decide(Standing::Unlisted, b"/a/b").allowed);
}

/// daprd lowers the names, and not the paths of proxied calls.
#[test]
fn names_of_http_apps_are_lowered() {
    let list = list("deny", vec![policy("deny", &[("/a.B/C", "allow"), ("/a.b/**", "allow")])]);
    let (compiled, _) = AccessControl::compile(&list, true).unwrap().expect("a list");
    let standing = compiled.standing(Some(&id(CALLER)));
    assert!(!compiled.decide(standing, b"/a.B/C").allowed);
    assert!(compiled.decide(standing, b"/a.b/c").allowed);
}

/// daprd's text, after Go's `%v`.
#[test]
fn incomplete_policies_are_an_error() {
    let without = |app_id: &str, namespace: &str, trust_domain: &str| AppPolicy {
        app_id: app_id.into(),
        namespace: namespace.into(),
        trust_domain: trust_domain.into(),
        ..AppPolicy::default()
    };
    let error = |policies| AccessControl::compile(&list("deny", policies), false).unwrap_err();
    assert_eq!(
        error(vec![without("a", "", ""), without("b", "x", ""), without("c", "", "y")]).to_string(),
        "invalid access control spec. missing trustdomain for apps: [a b], missing namespace for \
         apps: [a c], missing app name on at least one of the app policies: false"
    );
    assert_eq!(
        error(vec![without("", "x", "y")]).to_string(),
        "invalid access control spec. missing trustdomain for apps: [], missing namespace for \
         apps: [], missing app name on at least one of the app policies: true"
    );
}

#[test]
fn tells_the_rule() {
    let list = list("allow", vec![policy("deny", &[("a/*", "deny")])]);
    let compiled = compile(&list);
    let why = |caller: Option<&str>, path: &[u8]| {
        let caller = caller.map(id);
        let decision = compiled.decide(compiled.standing(caller.as_ref()), path);
        compiled.explain(&decision)
    };
    let policy = "the policy of appId caller, namespace default, trustDomain public";
    assert_eq!(why(None, b"/a/b"), "defaultAction of accessControl");
    assert_eq!(why(Some(CALLER), b"/b/b"), format!("defaultAction of {policy}"));
    assert_eq!(why(Some(CALLER), b"/a/b"), format!("operation \"/a/*\" of {policy}"));
    let malformed = why(Some("spiffe://public/a"), b"/a/b");
    assert_eq!(malformed, "the caller's SPIFFE ID names no app");
}

/// Texts of spec 06 §6.4.
#[test]
fn denies_as_daprd() {
    let caller = id(CALLER);
    assert_eq!(
        denial(Some(&caller), Standing::Unlisted, b"/a.B/C"),
        "access control policy has denied access to id: spiffe://public/ns/default/caller \
         operation: /a.B/C verb: NONE"
    );
    assert_eq!(
        denial(None, Standing::Unlisted, b"/a.B/C"),
        "access control policy has denied access to id:  operation: /a.B/C verb: NONE"
    );
    let malformed = id("spiffe://public/x");
    let text = denial(Some(&malformed), Standing::Malformed, b"/a.B/C");
    assert_eq!(text, "malformed SPIFFE ID: spiffe://public/x");
}

/// Numbers without order (Marsaglia's xorshift), the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    /// Few letters, so that patterns meet paths.
    fn path(&mut self, letters: &[&str]) -> String {
        let segments = 1 + self.below(4);
        let segment = |numbers: &mut Self| -> String {
            let length = numbers.below(4);
            (0..length).map(|_| numbers.of(letters)).collect()
        };
        (0..segments).map(|_| format!("/{}", segment(self))).collect()
    }

    fn policy(&mut self) -> AppPolicy {
        let operations = (0..self.below(12)).map(|_| Operation {
            name: self.path(&["a", "b", "*", "**"]),
            action: self.of(&["allow", "deny", "", "Allow"]).to_owned(),
        });
        let operations = operations.collect();
        AppPolicy {
            app_id: self.of(&["a", "b"]).to_owned(),
            namespace: self.of(&["x", "y"]).to_owned(),
            trust_domain: self.of(&["p", "q"]).to_owned(),
            default_action: self.of(&["", "allow", "deny"]).to_owned(),
            operations,
        }
    }
}

/// Whatever lists and paths there are, the compiled list decides as the rules do by the letter.
#[test]
fn decides_as_the_rules_by_the_letter() {
    let mut numbers = Numbers(0x5eed_0ac1);
    let (mut allowed, mut by_app, mut denied) = (0, 0, 0);
    for round in 0..4_000 {
        let policies = (0..numbers.below(4)).map(|_| numbers.policy()).collect();
        let list = list(numbers.of(&["", "allow", "deny"]), policies);
        let compiled = compile(&list);
        for _ in 0..30 {
            let path = numbers.path(&["a", "b", "*"]);
            let caller = (numbers.below(8) > 0).then(|| {
                let (domain, namespace) = (numbers.of(&["p", "q"]), numbers.of(&["x", "y"]));
                id(&format!("spiffe://{domain}/ns/{namespace}/{}", numbers.of(&["a", "b", "c"])))
            });
            let decision = compiled.decide(compiled.standing(caller.as_ref()), path.as_bytes());
            let got = (decision.allowed, decision.scope == Some(Scope::App));
            let expected = naive::decide(&list, caller.as_ref(), &path);
            assert_eq!(got, expected, "round {round}: {path} by {caller:?} of {list:?}");
            allowed += u32::from(got.0);
            by_app += u32::from(got.1);
            denied += u32::from(!got.0);
        }
    }
    assert!(allowed.min(by_app).min(denied) > 5_000, "{allowed} {by_app} {denied}");
}
