//! The yardstick itself, with every program that it compares: one short round, no error, every
//! figure there. What the figures are is no test's business.
//!
//! Needs `scripts/peers`, `scripts/peers --proxies` and a built ringside, as `scripts/test` has
//! them.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TOPOLOGIES: [&str; 9] = [
    "direct",
    "relay",
    "haproxy-tcp",
    "ringside",
    "ringside-epoll",
    "daprd",
    "haproxy",
    "nginx",
    "envoy",
];
const WORKLOADS: [&str; 10] = ["w1", "w2r", "w3s", "w2", "w3", "w3u", "w4a", "w4b", "w5", "w5s"];

/// What a run through two hops must say, as numbers above zero.
const OF_HOPS: [&str; 4] =
    ["cpu_us_per_unit", "voluntary_switches_per_unit", "resident_octets", "anonymous_octets"];
const OF_ALL: [&str; 12] = [
    "elapsed_s",
    "calls",
    "units",
    "calls_per_s",
    "units_per_s",
    "p50_us",
    "p90_us",
    "p99_us",
    "p999_us",
    "app_cpu_us_per_unit",
    "client_cpu_us_per_unit",
    "machine_cpu_us_per_unit",
];

/// The sidecar as cargo built it beside loadtest.
fn ringside() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("ringside");
    assert!(path.exists(), "build ringside first: cargo build ({})", path.display());
    path
}

/// What a subcommand wrote: its Markdown and its JSON.
fn loadtest(name: &str, args: &[&str]) -> (String, Value) {
    let json = std::env::temp_dir().join(format!("loadtest-{name}-{}.json", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.arg(name).args(args).arg("--ringside").arg(ringside()).arg("--json").arg(&json);
    let said = command.output().expect("loadtest runs");
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{name}: {err}\n{out}");
    let text = std::fs::read_to_string(&json).expect("the JSON is written");
    std::fs::remove_file(&json).expect("the JSON goes away");
    (out.into_owned(), serde_json::from_str(&text).expect("the JSON is JSON"))
}

fn above_zero(run: &Value, names: &[&str]) {
    for name in names {
        let value = run[*name].as_f64();
        assert!(value.is_some_and(|value| value > 0.0), "{name}: {run:#}");
    }
}

#[test]
fn a_short_comparison_is_whole_and_without_errors() {
    let (text, json) = loadtest(
        "compare",
        &[
            "--rounds=1",
            "--seconds=0.15",
            "--topologies",
            &TOPOLOGIES.join(","),
            "--workloads",
            &(WORKLOADS.join(",") + ",w6,w7,w7p"),
        ],
    );
    let runs = json["runs"].as_array().expect("runs");
    for workload in WORKLOADS {
        for topology in TOPOLOGIES {
            let of = |run: &&Value| run["workload"] == workload && run["topology"] == topology;
            let run = runs.iter().find(of).unwrap_or_else(|| panic!("{workload} {topology}"));
            assert_eq!(run["errors"], serde_json::json!({}), "{run:#}");
            above_zero(run, &OF_ALL);
            if topology != "direct" {
                above_zero(run, &OF_HOPS);
            }
        }
    }
    for topology in &TOPOLOGIES[1..] {
        for (list, names) in [
            ("footprints", &["idle_resident", "octets_per_used_connection"]),
            ("starts", &["wall_ms", "cpu_ms"]),
        ] {
            let all = json[list].as_array().expect(list);
            let of_way = all.iter().find(|one| one["topology"] == *topology).expect(topology);
            above_zero(of_way, names);
        }
        let starts = json["starts"].as_array().expect("starts").iter();
        let of_way = starts.filter(|start| start["topology"] == *topology);
        let between: Vec<&Value> = of_way.map(|start| &start["between"]).collect();
        assert_eq!(between, ["mTLS", "plaintext"], "{topology}");
        assert!(text.contains(&format!("| {topology} |")), "{text}");
    }
    assert!(text.contains("Errors: 0 in 90 runs."), "{text}");
    let versions = json["header"]["versions"].as_object().expect("versions");
    for program in ["loadtest", "ringside", "daprd", "haproxy", "nginx", "envoy"] {
        assert!(versions.contains_key(program), "{program} in {versions:?}");
    }
}

#[test]
fn a_crowd_of_pairs_is_measured() {
    let args = ["--pairs=2", "--workload=w1", "--rate=200", "--rounds=1", "--seconds=0.2"];
    let (text, json) = loadtest("crowd", &args);
    let runs = json["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 2, "one pair and two: {json:#}");
    for run in runs {
        assert_eq!(run["errors"], serde_json::json!({}), "{run:#}");
        above_zero(run, &["calls", "cpu_us_per_unit", "machine_cpu_us_per_unit", "p99_us_max"]);
    }
    assert!(text.contains("| CPU per call with 2 pairs over that with one |"), "{text}");
    assert!(text.contains("| ringside pairs under W1 at 200 calls/s each |"), "{text}");
}

#[test]
fn connections_spread_over_workers() {
    // Quotas need cgroup v1; the rest of it does not.
    let quota = Path::new("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").exists()
        || Path::new("/sys/fs/cgroup/cpu/tasks").exists();
    let quota = if quota { "--quota=3" } else { "--quota=0" };
    let args = ["--client-connections=1,2", "--workers=2", quota, "--rounds=1", "--seconds=0.3"];
    let (text, json) = loadtest("spread", &args);
    let runs = json["runs"].as_array().expect("runs");
    // With a quota and without.
    assert_eq!(runs.len(), if quota == "--quota=0" { 2 } else { 4 });
    for run in runs {
        for side in ["outbound_connections", "inbound_connections"] {
            let held = run[side].as_array().expect(side).iter().map(|n| n.as_u64().expect(side));
            let held: Vec<u64> = held.collect();
            assert_eq!(held.len(), 2, "{run:#}");
            let all = held.iter().sum::<u64>();
            assert!(side != "outbound_connections" || Some(all) == run["connections"].as_u64());
            assert!(all > 0, "{run:#}");
        }
        assert_eq!(run["errors"], serde_json::json!({}), "{run:#}");
        assert_eq!(run["outbound_shares"].as_array().map(Vec::len), Some(2), "{run:#}");
        above_zero(run, &["calls", "calls_per_s"]);
    }
    assert!(text.contains("| 2 | "), "{text}");
}

/// The JSON of a subcommand, kept, and what `plot` makes of it.
fn pictures(name: &str, args: &[&str]) -> (Value, Vec<(String, String)>) {
    let folder = std::env::temp_dir().join(format!("loadtest-plot-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (_, json) = loadtest(name, args);
    let record = folder.join("record.json");
    std::fs::write(&record, json.to_string()).expect("the record is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    let said = command.arg("plot").arg(&record).arg("--out").arg(&folder).output();
    let said = said.expect("loadtest runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let names = String::from_utf8(said.stdout).expect("UTF-8");
    let drawn = names.lines().map(|path| {
        let name = Path::new(path).file_name().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).expect("the picture is written"))
    });
    let drawn = drawn.collect();
    std::fs::remove_dir_all(&folder).expect("ours");
    (json, drawn)
}

#[test]
fn a_sweep_of_rates_is_measured_and_drawn() {
    let args = ["--topologies=relay,ringside", "--rounds=1", "--seconds=0.2"];
    let rates = ["--client-connections=2", "--streams=20", "--rates=200,400"];
    let (json, drawn) = pictures("sweep", &[args, rates].concat());
    let runs = json["runs"].as_array().expect("runs");
    // A machine that is busy with something else may be past its knee at once.
    assert!(runs.len() >= 2, "{json:#}");
    for run in runs {
        assert_eq!((&run["connections"], &run["streams"]), (&2.into(), &20.into()), "{run:#}");
        above_zero(run, &["rate", "cpu_us_per_unit", "p50_us", "p99_us", "units_per_s"]);
    }
    if runs.len() == 4 {
        let [(name, svg)] = &drawn[..] else { panic!("one picture: {drawn:?}") };
        assert_eq!(name, "latency-by-rate.svg");
        assert!(svg.contains(">ringside</text>") && svg.contains(">latency, µs</text>"), "{svg}");
    }
}

#[test]
fn what_is_held_is_measured_and_drawn() {
    let args = ["--topologies=relay,ringside", "--rounds=1"];
    let held = ["--connections-held=0,50", "--streams-held=150"];
    let (json, drawn) = pictures("hold", &[args, held].concat());
    let looks = json["looks"].as_array().expect("looks");
    for topology in ["relay", "ringside"] {
        let of_way = looks.iter().filter(|look| look["topology"] == topology);
        let held = of_way.map(|look| (look["connections"].as_u64(), look["streams"].as_u64()));
        let held: Vec<_> = held.collect();
        let wanted = [(0, 0), (50, 0), (2, 150)].map(|(c, s)| (Some(c), Some(s)));
        assert_eq!(held, wanted, "{topology}");
    }
    looks.iter().for_each(|look| above_zero(look, &["resident", "anonymous", "proportional"]));
    let [(name, svg)] = &drawn[..] else { panic!("one picture: {drawn:?}") };
    assert_eq!(name, "memory.svg");
    assert!(svg.contains(">idle streams</text>"), "{svg}");
}

#[test]
fn what_is_missing_is_said_with_its_remedy() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(["compare", "--topologies", "istio"]);
    let said = command.output().expect("loadtest runs");
    assert_eq!(said.status.code(), Some(1));
    let err = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(err.contains("there is no topology istio: direct, relay, "), "{err}");
}

/// Nothing that it started or made outlives a run that is told to end: Ctrl-C is the same.
#[test]
fn a_signal_ends_a_run_and_leaves_nothing() {
    let folder = std::env::temp_dir().join(format!("loadtest-signal-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    let args = ["compare", "--topologies=relay", "--workloads=w3", "--seconds=3000", "--rounds=1"];
    command.args(args).env("TMPDIR", &folder).stderr(Stdio::piped());
    let mut run = command.spawn().expect("loadtest runs");
    let mut said = BufReader::new(run.stderr.take().expect("piped"));
    let mut text = String::new();
    while !text.ends_with("round 1 of 1\n") {
        assert!(said.read_line(&mut text).expect("UTF-8") > 0, "{text}");
    }
    let scratch = folder.join(format!("loadtest-{}", run.id()));
    assert!(scratch.is_dir() && !working_below(&scratch).is_empty(), "{text}");
    let kill = Command::new("kill").args(["-TERM", &run.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
    said.read_to_string(&mut text).expect("UTF-8");
    assert_eq!(run.wait().expect("ours").code(), Some(1));
    assert!(text.contains("loadtest compare: interrupted"), "{text}");
    assert!(!scratch.exists());
    assert_eq!(working_below(&scratch), Vec::<PathBuf>::new());
    std::fs::remove_dir_all(&folder).expect("ours");
}

/// Processes whose working directory is there, or was.
fn working_below(folder: &Path) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let directories = processes.flat_map(|process| process.path().join("cwd").read_link());
    directories.filter(|directory| directory.starts_with(folder)).collect()
}
