//! `--app-max-concurrency`: daprd tells it and lets every proxied call through; ringside keeps it,
//! or does as daprd when it is told to.

use crate::peer::probe::{Call, Outcome, ProbeApp, outcome};
use crate::peer::process::{Process, until};
use crate::peer::sidecar::{Options, http_get};
use crate::peer::{Kind, Sidecar, World};

const CALLS: usize = 8;
const BOUND: usize = 3;

struct Full {
    world: World,
    app: ProbeApp,
    sidecar: Sidecar,
    callers: Vec<Process>,
}

/// An app that lets calls wait for a minute, and more callers than it wants.
fn start(name: &str, kind: Kind, more: &[&'static str]) -> Full {
    let mut world = World::new(&format!("concurrency-{name}-{}", kind.name()));
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    let args = ["--app-max-concurrency", "3"].iter().chain(more).copied().collect();
    let options = Options { app_port: Some(app.port), args, ..Options::default() };
    let sidecar = Sidecar::start(&world, kind, "server", options);
    let call = |n: usize| {
        let call = Call::to(&sidecar.address()).app("server");
        call.metadata("probe-sleep-ms", "60000").start(&world, &format!("caller-{n}"))
    };
    let callers = (0..CALLS).map(call).collect();
    Full { world, app, sidecar, callers }
}

impl Full {
    /// Waits until so many calls have come to the app.
    fn seen(&self, calls: usize) {
        let all = until(|| (self.app.seen().len() == calls).then_some(()));
        assert!(all.is_some(), "{} of {calls}", self.app.seen().len());
    }

    /// Waits until so many calls wait in the sidecar.
    fn waiting(&self, calls: usize) {
        let line = format!("ringside_waiting_calls {calls}");
        let told = until(|| {
            let answer = http_get(self.sidecar.ports.metrics, "/")?;
            answer.lines().any(|told| told == line).then_some(())
        });
        assert!(told.is_some(), "no {line}");
    }

    fn late(&self) -> Outcome {
        let call = Call::to(&self.sidecar.address()).app("server").args(&["-deadline", "1s"]);
        call.run(&self.world, "late")
    }
}

#[test]
fn ringside_keeps_the_bound() {
    let mut full = start("bounded", Kind::Ringside, &[]);
    full.seen(BOUND);
    full.waiting(CALLS - BOUND);
    full.sidecar.process.wait_for_line("app max concurrency set to 3");
    // One more waits with its deadline, and is never with the app.
    assert_eq!(full.late().code, "DeadlineExceeded");
    assert_eq!(full.app.seen().len(), BOUND);
    // Callers that go away make room, whether their calls wait or not.
    while full.callers.pop().is_some() {}
    full.waiting(0);
    let call = Call::to(&full.sidecar.address()).app("server").run(&full.world, "after");
    assert_eq!(call.status(), ("OK", ""));
}

/// So many calls end one after the other, none of them lost, never more than the bound at a time.
#[test]
fn all_calls_have_their_turn() {
    let mut world = World::new("concurrency-turns");
    world.reserve(&["server"]);
    let app = ProbeApp::start(&world);
    let args = vec!["--app-max-concurrency", "3"];
    let options = Options { app_port: Some(app.port), args, ..Options::default() };
    let sidecar = Sidecar::start(&world, Kind::Ringside, "server", options);
    let start = |n: usize| {
        let call = Call::to(&sidecar.address()).app("server").metadata("probe-sleep-ms", "20");
        call.args(&["-times", "10"]).start(&world, &format!("caller-{n}"))
    };
    let mut callers: Vec<Process> = (0..CALLS).map(start).collect();
    for caller in &mut callers {
        assert!(caller.wait_for_end().success(), "{}", caller.tail());
        assert_eq!(outcome(caller).status(), ("OK", ""));
    }
    // An app tells that a call has ended before its sidecar hears of it.
    let (mut with_app, mut most) = (0, 0);
    for line in app.process.log().lines() {
        with_app += i32::from(line.contains("\"event\":\"call\""));
        with_app -= i32::from(line.contains("\"event\":\"end\""));
        most = most.max(with_app);
    }
    assert_eq!(app.seen().len(), CALLS * 10);
    assert!(most > 0 && most <= BOUND as i32, "{most} at a time");
}

#[test]
fn daprd_keeps_none() {
    start("unbounded", Kind::Daprd, &[]).seen(CALLS);
}

#[test]
fn ringside_keeps_none_when_told_so() {
    start("as-daprd", Kind::Ringside, &["--ringside-app-max-concurrency-proxied=false"])
        .seen(CALLS);
}
