//! Baggage of calls: the same words to the same mistakes, and it comes back.

use crate::peer::probe::{Call, Outcome, ProbeApp};
use crate::peer::sidecar::Options;
use crate::peer::{Kind, Sidecar, World};

/// What is given, as one field or several.
const GIVEN: [&[&str]; 14] = [
    &["k=v"],
    &[""],
    &["k=v%20a%25%41;p=1"],
    &["k=v", "k=w;a=%20;b ; c = d"],
    &["kv"],
    &["k=v,"],
    &["k=%zz,b,=\""],
    &["a=b; = c"],
    &["a=b;c d", "a b=c"],
    &["a= b c", "a=b;c=%4"],
    &["a=%E2%82%20"],
    &["a=\\"],
    &["a=b;,"],
    &["a=b=c;"],
];

/// Code, message and what came back of each call.
fn asks(mix: [Kind; 2]) -> Vec<(String, String, Vec<String>)> {
    let [caller, callee] = mix;
    let mut world = World::new(&format!("tracing-baggage-{}-{}", caller.name(), callee.name()));
    world.reserve(&["server", "client"]);
    let mut app = ProbeApp::start(&world);
    let served = Options { app_port: Some(app.port), ..Options::default() };
    let _callee = Sidecar::start(&world, callee, "server", served);
    let caller = Sidecar::start(&world, caller, "client", Options::default());
    let mut outcomes = Vec::new();
    let mut ask = |number: usize, target: Option<&str>, given: &[&str], code: &str| {
        let call = Call::to(&caller.address()).metadata("probe-code", code);
        let call = target.into_iter().fold(call, Call::app);
        let call = given.iter().fold(call, |call, value| call.metadata("baggage", value));
        let Outcome { code, message, header, .. } = call.run(&world, &format!("call-{number}"));
        let back = header.get("baggage").cloned().unwrap_or_default();
        outcomes.push((code, message, back));
    };
    for (number, given) in GIVEN.into_iter().enumerate() {
        ask(number, Some("server"), given, "0");
    }
    ask(20, Some("server"), &["k=v"], "5");
    ask(21, None, &["kv"], "0");
    // What came, as it came, and of what was refused nothing.
    let seen = app.seen();
    let refused = outcomes.iter().filter(|(code, ..)| code == "InvalidArgument").count();
    assert_eq!(seen.len(), outcomes.len() - refused, "{mix:?}");
    let told = |at: usize| seen[at].metadata.get("baggage").cloned().unwrap_or_default();
    assert_eq!(told(0), GIVEN[0], "{mix:?}");
    assert_eq!(told(3), GIVEN[3], "{mix:?}");
    assert!(app.process.running());
    outcomes
}

/// daprd's answers, in each mix; it says twice what came, once for each sidecar.
#[test]
fn is_judged_and_comes_back_as_with_daprd() {
    let mut daprds = asks([Kind::Daprd, Kind::Daprd]);
    assert_eq!(daprds[0].2, ["k=v", "k=v"]);
    assert_eq!(daprds[4].1, "invalid baggage header: invalid baggage list-member: \"kv\"");
    let failed = &daprds[GIVEN.len()];
    assert_eq!((failed.0.as_str(), failed.2.len()), ("NotFound", 2), "in a head of its own");
    daprds.iter_mut().for_each(|(_, _, back)| back.dedup());
    for mix in [
        [Kind::Ringside, Kind::Ringside],
        [Kind::Ringside, Kind::Daprd],
        [Kind::Daprd, Kind::Ringside],
    ] {
        let mut answers = asks(mix);
        if mix[0] == Kind::Daprd {
            answers.iter_mut().for_each(|(_, _, back)| back.dedup());
        }
        assert_eq!(answers, daprds, "{mix:?}");
    }
}
