//! h2spec through ringside: its forward port, with an app behind it.

use crate::peer::ports::claim;
use crate::peer::process::{Process, command};
use crate::peer::sidecar::Options;
use crate::peer::{Kind, Sidecar, World, program};

/// Cases that h2spec skips by itself, and the sentence of the RFC that makes each inapplicable.
const SKIPPED: [(&str, &str); 1] = [(
    "advertised concurrent stream limit to be exceeded",
    "RFC 9113 §6.5.2: \"Initially, there is no limit to this value.\" Like daprd, ringside \
     advertises none to its callers; its own limit is a refusal of §8.7, not a setting.",
)];

/// What the app answers to h2spec's GET requests; some cases need 5 octets or more.
const BODY: &str = "a body of some length";

#[test]
fn every_case_passes() {
    let mut world = World::new("h2spec");
    world.reserve(&["server"]);
    let app_port = claim();
    let mut app = command(program("probe"));
    app.args(["wire", "-body", BODY, "-address", &format!("127.0.0.1:{app_port}")]);
    let mut app = Process::start(&world.folder("apps"), "wire", app);
    app.wait_for_line("\"listening\"");
    let forward = claim();
    let flag = format!("{forward}=server");
    let args = vec!["--ringside-forward", &flag];
    let options = Options { app_port: Some(app_port), args, ..Options::default() };
    let _sidecar = Sidecar::start(&world, Kind::Ringside, "server", options);

    let report = world.folder("h2spec").join("report.xml");
    let mut h2spec = command(program("h2spec"));
    // Two seconds, its default, are too few for a machine that has something else to do.
    h2spec.args(["--host", "127.0.0.1", "--port", &forward.to_string(), "--timeout", "5"]);
    h2spec.args(["--path", "/probe.Probe/Echo", "--strict", "--junit-report"]).arg(&report);
    let mut h2spec = Process::start(&world.folder("h2spec"), "h2spec", h2spec);
    let ended = h2spec.wait_for_end();
    let report = std::fs::read_to_string(&report).unwrap_or_default();
    let cases: Vec<&str> = report.split("<testcase ").skip(1).collect();
    let skipped: Vec<&str> = cases.iter().copied().filter(|c| c.contains("<skipped")).collect();
    let said = h2spec.log();
    assert!(ended.success() && cases.len() >= 146, "h2spec: {ended}\n{said}");
    assert_eq!(skipped.len(), SKIPPED.len(), "h2spec skipped {skipped:#?}");
    for (case, why) in SKIPPED {
        assert!(skipped.iter().any(|text| text.contains(case)), "{case} was not skipped: {why}");
    }
}
