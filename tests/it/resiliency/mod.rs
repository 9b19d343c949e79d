//! Resiliency policies: the same calls under the same file through two daprds and through two
//! ringsides; statuses, texts and the attempts that the app saw are equal, but where a case says
//! why not.

mod app;
mod cases;
mod late;

use crate::page;
use crate::peer::probe::{Call, outcomes};
use crate::peer::process::Process;
use crate::peer::{Kind, Sidecar, World};
use app::ScriptedApp;
use cases::{Case, POLICIES, all};
use std::fmt::Write as _;
use std::fs;

/// Callers at once.
const AT_ONCE: usize = 6;

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Result {
    /// Seen by the app.
    attempts: usize,
    /// Code and text of each call.
    outcomes: Vec<(String, String)>,
}

/// All cases through a pair of one kind.
fn run(kind: Kind, cases: &[Case]) -> Vec<Result> {
    let mut world = World::new(&format!("resiliency-{}", kind.name()));
    world.reserve(&["server", "client"]);
    world.dead_host("dead");
    let app = ScriptedApp::start();
    let _callee = Sidecar::callee(&world, kind, "server", app.port);
    fs::write(world.folder("resources").join("policies.yaml"), POLICIES).expect("the policies");
    let caller = Sidecar::caller(&world, kind, "client");
    let mut results = Vec::new();
    for (number, cases) in cases.chunks(AT_ONCE).enumerate() {
        let start = |(place, case): (usize, &Case)| {
            let name = format!("case-{}", number * AT_ONCE + place);
            start(&world, &caller, case, &name)
        };
        let mut callers: Vec<Process> = cases.iter().enumerate().map(start).collect();
        for (case, process) in cases.iter().zip(&mut callers) {
            process.wait_for_end();
            let told = outcomes(process).into_iter();
            let told = told.map(|told| {
                let text = plain(&told.code, &told.message);
                (told.code, text)
            });
            results.push(Result { attempts: app.attempts(&case.name), outcomes: told.collect() });
        }
    }
    results
}

/// Each case has a method of its own, and so a breaker.
fn start(world: &World, caller: &Sidecar, case: &Case, name: &str) -> Process {
    let method = format!("/case.Svc/{name}");
    let mut call = Call::to(&caller.address())
        .app(case.target)
        .metadata("x-case", &case.name)
        .metadata("x-script", &case.script)
        .args(&["-method", &method]);
    if case.stream {
        call = call.metadata("dapr-stream", "true");
    }
    if !case.args.contains(&"-deadline") {
        call = call.args(&["-deadline", "30s"]);
    }
    call.args(case.args).start(world, name)
}

/// Without what ringside adds of who failed, and without ports, which are each run's own. What
/// daprd says of a time that is over is chance: a hop behind it may reset the stream before.
fn plain(code: &str, message: &str) -> String {
    if code == "DeadlineExceeded" {
        return String::new();
    }
    let message = message.split(" (the ").next().unwrap_or_default();
    let mut plain = String::new();
    let mut parts = message.split("127.0.0.1:");
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str("127.0.0.1:PORT");
        plain.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    plain
}

#[test]
fn decides_as_daprd() {
    let cases = all();
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| run(Kind::Daprd, &cases));
        let ours = run(Kind::Ringside, &cases);
        (theirs.join().expect("daprd's half"), ours)
    });
    let mut wrong = String::new();
    for ((case, theirs), ours) in cases.iter().zip(&theirs).zip(&ours) {
        let expected = match &case.differs {
            None => theirs.clone(),
            Some(differs) => {
                let told = |(code, text): &(&str, &str)| ((*code).to_owned(), (*text).to_owned());
                let outcomes = differs.outcomes.iter().map(told).collect();
                Result { attempts: differs.attempts, outcomes }
            }
        };
        let same = ours.outcomes == expected.outcomes
            && (case.by_chance || ours.attempts == expected.attempts);
        if !same || (case.differs.is_some() && *theirs == expected) {
            let name = &case.name;
            let _ = writeln!(wrong, "{name}:\n  daprd    {theirs:?}\n  ringside {ours:?}");
        }
    }
    assert!(cases.len() >= 50);
    assert!(wrong.is_empty(), "\n{wrong}");
    page::holds("resiliency: made by it::resiliency", &markdown(&cases, &theirs, &ours));
}

/// The file, and a row for each case.
fn markdown(cases: &[Case], theirs: &[Result], ours: &[Result]) -> String {
    let mut text = format!(
        "\n```yaml\n{}\n```\n\n\
         | Case | Target | Attempts' fates | Calls | Attempts | Outcomes | ringside |\n\
         |---|---|---|---|---|---|---|\n",
        POLICIES.trim()
    );
    for ((case, theirs), ours) in cases.iter().zip(theirs).zip(ours) {
        let told = |result: &Result| {
            let told = result.outcomes.iter().map(|(code, text)| match text.is_empty() {
                true => code.clone(),
                false => format!("{code} `{text}`"),
            });
            told.collect::<Vec<_>>().join("; ")
        };
        let stream = if case.stream { " `dapr-stream`" } else { "" };
        let same = match &case.differs {
            None => "same".to_owned(),
            Some(differs) => {
                format!("{} attempts, {}: {}", ours.attempts, told(ours), differs.why)
            }
        };
        let Case { name, target, script, args, .. } = case;
        let (args, told) = (args.join(" "), told(theirs));
        let attempts = match case.by_chance {
            true => "0 or 1".to_owned(),
            false => theirs.attempts.to_string(),
        };
        let _ = writeln!(
            text,
            "| {name} | `{target}` | `{script}` | {args}{stream} | {attempts} | {told} | {same} |"
        );
    }
    text.push('\n');
    text
}
