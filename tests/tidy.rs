//! House rules as tests (docs/architecture.md): arrows between rooms, purity, sizes, words.
//!
//! Reads the sources as text. What a file holds from its first `#[cfg(test)]` on is test code and
//! free of the rules about arrows and purity.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may say `crate::` whom. A room may always name itself.
const ARROWS: &[(&str, &[&str])] = &[
    ("http2", &[]),
    ("grpc", &[]),
    ("identity", &[]),
    ("observe", &[]),
    ("config", &["identity"]),
    ("resolve", &["identity"]),
    ("policy", &["config", "identity", "grpc"]),
    ("cli", &["config"]),
    ("snapshot", &["config", "policy", "identity", "resolve"]),
    ("proxy", &["snapshot", "http2", "grpc", "identity", "observe", "config", "resolve", "policy"]),
    ("mailbox", &["snapshot", "resolve", "observe"]),
    ("io", &["proxy", "mailbox", "snapshot", "config", "identity", "observe"]),
    (
        "control",
        &["mailbox", "snapshot", "grpc", "identity", "observe", "config", "resolve", "policy"],
    ),
];

/// Rooms that may see all others: the composition root and what runs instead of it.
const SEE_ALL: &[&str] = &["app", "demo", "main", "lib"];

/// One file (and its folder) per subcommand of our own in `cli/`: these compose, too.
const SUBCOMMANDS: &[&str] = &[
    "cli/acl.rs",
    "cli/admin.rs",
    "cli/bench.rs",
    "cli/bench/",
    "cli/demo.rs",
    "cli/doctor.rs",
    "cli/doctor/",
    "cli/tap.rs",
];

/// Rooms without a world.
const PURE: &[&str] =
    &["http2", "grpc", "identity", "observe", "resolve", "config", "policy", "proxy", "snapshot"];

/// What a pure room may not name.
const WORLDLY: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::env::",
    "env::var",
    "std::thread",
    "Mutex",
    "RwLock",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "async fn",
    ".await",
    "tracing::",
    "metrics::",
    "io_uring",
    "futures_executor",
    "tokio",
    "rustix",
];

/// Words that `http2` may not say, even in comments: it knows neither gRPC nor Dapr.
const FOREIGN_TO_HTTP2: &[&str] = &["dapr", "grpc"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Files that are not there yet, and how many faults of size each may have: only ever lowered.
const SIZE_FAULTS_LEFT: &[(&str, usize)] =
    &[("control/admin/metadata.rs", 2), ("control/admin/tests.rs", 4)];

/// Where the datapath may count references to what threads share, and how often: once per worker,
/// per snapshot, per TLS handshake, per tap. Never once per call.
const ARC_CLONES: &[(&str, usize)] =
    &[("io/worker.rs", 1), ("io/heard.rs", 1), ("io/tls/config.rs", 8)];

struct Source {
    /// Below `src/`.
    name: String,
    room: String,
    /// Without tests.
    code: String,
    whole: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let sources = sources_below("src");
    assert!(sources.len() > 20, "the sources are where this test looks");
    sources
}

/// The product's and loadtest's, whose names begin with `loadtest/`: for rules about any Rust.
fn all_sources() -> Vec<Source> {
    let mut sources = sources();
    for folder in ["loadtest/src", "loadtest/tests"] {
        let members = sources_below(folder);
        assert!(!members.is_empty(), "{folder} is where this test looks");
        sources.extend(
            members.into_iter().map(|s| Source { name: format!("{folder}/{}", s.name), ..s }),
        );
    }
    sources
}

fn sources_below(folder: &str) -> Vec<Source> {
    let src = root().join(folder);
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
        let whole = fs::read_to_string(&path).expect("UTF-8");
        let is_test = name.ends_with("tests.rs") || name.contains("tests/");
        let end = if is_test { 0 } else { whole.find("#[cfg(test)]").unwrap_or(whole.len()) };
        let room = name.split(['/', '.']).next().expect("a first part").to_owned();
        Source { code: whole[..end].to_owned(), name, room, whole }
    };
    paths.into_iter().map(read).collect()
}

/// A line without its `//` comment; good enough for code without `//` in strings.
fn uncommented(line: &str) -> &str {
    match line.find("//") {
        Some(at) if !line[..at].contains('"') => &line[..at],
        Some(_) | None => line,
    }
}

fn fail_if_any(faults: &BTreeSet<String>) {
    let list: Vec<&str> = faults.iter().map(String::as_str).collect();
    assert!(faults.is_empty(), "\n{}\n", list.join("\n"));
}

#[test]
fn arrows_are_those_of_the_architecture() {
    let rooms: BTreeSet<&str> =
        ARROWS.iter().map(|(room, _)| *room).chain(SEE_ALL.iter().copied()).collect();
    let mut faults = BTreeSet::new();
    for source in sources() {
        if !rooms.contains(source.room.as_str()) {
            faults.insert(format!("{}: a room that the architecture does not know", source.name));
        }
        let subcommand = SUBCOMMANDS.iter().any(|name| source.name.starts_with(name));
        if SEE_ALL.contains(&source.room.as_str()) || subcommand {
            continue;
        }
        let allowed = ARROWS.iter().find(|(room, _)| *room == source.room).map_or(&[][..], |a| a.1);
        for line in source.code.lines() {
            for seen in uncommented(line).split("crate::").skip(1) {
                let named = seen.trim_start_matches('{');
                let end = named.find(|c: char| !c.is_alphanumeric() && c != '_');
                let room = &named[..end.unwrap_or(named.len())];
                let known = rooms.contains(room);
                if known && room != source.room && !allowed.contains(&room) {
                    faults.insert(format!("{}: must not see {room}: {}", source.name, line.trim()));
                }
            }
        }
    }
    fail_if_any(&faults);
}

#[test]
fn pure_rooms_have_no_world() {
    let mut faults = BTreeSet::new();
    for source in sources().iter().filter(|source| PURE.contains(&source.room.as_str())) {
        for (number, line) in source.code.lines().enumerate() {
            for word in WORLDLY.iter().filter(|word| uncommented(line).contains(**word)) {
                faults.insert(format!("{}:{}: names {word}", source.name, number + 1));
            }
        }
    }
    fail_if_any(&faults);
}

#[test]
fn http2_knows_nothing_above_it() {
    let mut faults = BTreeSet::new();
    for source in sources().iter().filter(|source| source.room == "http2") {
        for (number, line) in source.code.lines().enumerate() {
            let line = line.to_lowercase();
            for word in FOREIGN_TO_HTTP2.iter().filter(|word| line.contains(**word)) {
                faults.insert(format!("{}:{}: says {word}", source.name, number + 1));
            }
        }
    }
    fail_if_any(&faults);
}

#[test]
fn unsafe_lives_in_one_folder() {
    let mut faults = BTreeSet::new();
    for source in all_sources() {
        let code = source.whole.lines().map(uncommented);
        let unsafe_lines = code.filter(|line| line.contains("unsafe ") || line.contains("unsafe{"));
        if unsafe_lines.count() > 0 && !source.name.starts_with("io/sys/") {
            faults.insert(format!("{}: unsafe outside io/sys/", source.name));
        }
    }
    fail_if_any(&faults);
}

/// Rooms of the datapath write nothing that two threads write: no locks, no atomics but the load
/// that each worker tells in a cell of its own and what a ring's thread tells the kernel, no count of shared references but where a worker,
/// a connection or a snapshot begins.
#[test]
fn the_datapath_shares_nothing() {
    let mut faults = BTreeSet::new();
    let datapath = ["http2", "proxy", "io"];
    for source in sources().iter().filter(|source| datapath.contains(&source.room.as_str())) {
        let code: Vec<&str> = source.code.lines().map(uncommented).collect();
        for word in ["Mutex", "RwLock", "Atomic", "OnceLock", "LazyLock", "thread_local"] {
            let excepted = ["io/load.rs", "io/sys/rooms.rs"].contains(&source.name.as_str());
            if !excepted && code.iter().any(|line| line.contains(word)) {
                faults.insert(format!("{}: names {word}", source.name));
            }
        }
        let clones = code.iter().filter(|line| line.contains("Arc::clone")).count();
        let left = ARC_CLONES.iter().find(|(name, _)| *name == source.name);
        if clones > left.map_or(0, |(_, left)| *left) {
            faults.insert(format!("{}: {clones} times Arc::clone", source.name));
        }
    }
    fail_if_any(&faults);
}

#[test]
fn files_open_with_what_they_own() {
    let mut faults = BTreeSet::new();
    for source in all_sources() {
        if !source.whole.starts_with("//!") {
            faults.insert(format!("{}: does not open with //!", source.name));
        }
    }
    fail_if_any(&faults);
}

#[test]
fn sizes_are_bounded() {
    let mut faults = BTreeSet::new();
    for source in all_sources() {
        let found = size_faults(&source);
        let left = SIZE_FAULTS_LEFT.iter().find(|(name, _)| *name == source.name);
        if found.len() > left.map_or(0, |(_, left)| *left) {
            faults.extend(found);
        }
    }
    fail_if_any(&faults);
}

fn size_faults(source: &Source) -> BTreeSet<String> {
    let mut faults = BTreeSet::new();
    let lines = source.code.lines().count();
    if lines > FILE_LINES_MAX {
        faults.insert(format!("{}: {lines} lines", source.name));
    }
    for (number, line) in source.whole.lines().enumerate() {
        if line.chars().count() > COLUMNS_MAX {
            faults.insert(format!("{}:{}: too wide", source.name, number + 1));
        }
    }
    for (name, length) in functions(&source.code) {
        if length > FUNCTION_LINES_MAX {
            faults.insert(format!("{}: fn {name} has {length} lines", source.name));
        }
    }
    faults
}

/// Functions by indentation, as rustfmt leaves them: from the line with `fn` to its closing brace.
fn functions(code: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let Some(name) = trimmed.split("fn ").nth(1) else { continue };
        let starts = ["fn ", "pub ", "pub(", "async ", "const "];
        if !starts.iter().any(|start| trimmed.starts_with(start)) || trimmed.ends_with(';') {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        let length = lines[at..].iter().position(|line| *line == closing).map_or(1, |end| end + 1);
        let end = name.find(['(', '<']).unwrap_or(name.len());
        found.push((name[..end].to_owned(), length));
    }
    found
}

fn text_of(path: &str) -> Option<String> {
    fs::read_to_string(root().join(path)).ok()
}

fn has_word(text: &str, word: &str) -> bool {
    let of_name = |c: char| c.is_alphanumeric() || c == '_';
    text.split(|c| !of_name(c)).any(|found| found == word)
}

/// Where the test `path` of docs/parity.md may be: `it::calls::drains`, `config::port::name`.
fn homes(path: &str) -> Vec<String> {
    let modules: Vec<&str> = path.split("::").collect();
    let Some((_, modules)) = modules.split_last() else { return Vec::new() };
    let above = modules.strip_suffix(&["tests"]).unwrap_or(modules);
    let (folder, modules, above) = match modules.split_first() {
        Some((&"it", rest)) => ("tests/it", rest.join("/"), rest.join("/")),
        Some((&"allocations", _)) => ("tests", modules.join("/"), above.join("/")),
        Some(_) | None => ("src", modules.join("/"), above.join("/")),
    };
    let endings = [".rs", "/mod.rs", "/tests.rs"];
    let homes = endings.iter().map(|ending| format!("{folder}/{modules}{ending}"));
    homes.chain([format!("{folder}/{above}.rs")]).collect()
}

#[test]
fn tests_that_parity_names_exist() {
    let parity = text_of("docs/parity.md").expect("docs/parity.md");
    let rows = parity.lines().filter(|line| line.starts_with('|'));
    let quoted = rows.flat_map(|row| row.split('`').skip(1).step_by(2));
    let names: BTreeSet<&str> = quoted.filter(|quote| quote.contains("::")).collect();
    assert!(names.len() > 100, "parity.md names its tests as `room::file::test`");
    let missing = names.into_iter().filter(|path| {
        let test = path.rsplit("::").next().unwrap_or_default();
        !homes(path).iter().filter_map(|home| text_of(home)).any(|text| has_word(&text, test))
    });
    fail_if_any(&missing.map(|path| format!("docs/parity.md: no test {path}")).collect());
}

#[test]
fn every_dependency_has_its_decision() {
    let mut decisions = String::new();
    for entry in fs::read_dir(root().join("docs/adr")).expect("docs/adr") {
        decisions += &fs::read_to_string(entry.expect("an entry").path()).expect("a page");
    }
    let manifests = ["Cargo.toml", "loadtest/Cargo.toml"].map(|path| text_of(path).expect(path));
    let manifest = manifests.join("\n");
    let mut faults = BTreeSet::new();
    let mut listed = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            listed = line.ends_with("dependencies]");
        } else if let (true, Some((name, value))) = (listed, line.split_once(" = ")) {
            let renamed =
                value.split("package = \"").nth(1).and_then(|rest| rest.split('"').next());
            let name = renamed.unwrap_or(name);
            let letter = |c: char| c.is_alphanumeric() || "-_".contains(c);
            if !decisions.split(|c| !letter(c)).any(|word| word == name) {
                faults.insert(format!("Cargo.toml: no page of docs/adr names {name}"));
            }
        }
    }
    fail_if_any(&faults);
}
