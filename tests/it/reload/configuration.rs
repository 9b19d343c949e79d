//! Configurations: rules of access control above all, and what of them needs a restart.

use super::{
    DENIED, PATIENT, REFUSED, RUNNING, Streams, Subject, by_default, figure, hostile, mount, plain,
    replace, status, within,
};
use crate::peer::process::until;
use crate::peer::sidecar::Options;
use crate::peer::tagged::{End, Load};
use crate::peer::{Kind, Sidecar, World};
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::sync::atomic::Ordering;

/// Calls and streams of two sidecars flow while a policy changes: the new rule holds for calls on
/// old connections, and nobody else notices.
#[test]
fn a_new_rule_holds_and_nobody_notices() {
    const FORBIDDEN: &str = "/other.Svc/M";
    let list = |operations: &str| {
        let policy =
            "{appId: client, namespace: default, trustDomain: public, defaultAction: allow";
        let policies = format!("[{policy}, operations: [{operations}]}}]");
        by_default("deny", "").replace("}", &format!(", policies: {policies}}}"))
    };
    let mut world = World::with_sentry("reload-rule");
    let file = world.folder("conf").join("acl.yaml");
    fs::write(&file, list("")).expect("a Configuration");
    world.reserve(&["client"]);
    let Subject { app, mut sidecar, .. } = Subject::start(&mut world, Kind::Ringside, &file);
    let caller = Sidecar::caller(&world, Kind::Ringside, "client");
    let port = caller.ports.grpc;
    let load = Load::start(port, "server", 8, 1);
    let streams = Streams::start(port, 10);
    load.wait_for(200);
    streams.wait_for(200);
    let connections = || {
        let ours = figure(&sidecar, "ringside_downstream_connections");
        (ours, app.book.connections.load(Ordering::Relaxed))
    };
    let before = connections();
    for (rules, expected) in [("{name: /other.Svc/*, action: deny}", DENIED), ("", "0")] {
        replace(&file, &list(rules));
        let changed = until(|| (status(port, FORBIDDEN) == expected).then_some(()));
        assert!(changed.is_some(), "{}", sidecar.process.tail());
        load.wait_for(100);
        streams.wait_for(100);
    }
    let ends = streams.stop();
    let outcomes = load.stop();
    assert_eq!(connections(), before, "connections were made anew");
    assert!(ends.iter().all(|end| matches!(end, Ok(End::Ok))), "{ends:?}");
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.end != End::Ok).collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), outcomes.len(), failed[0]);
    assert!(app.book.broken().is_empty(), "{:?}", app.book.broken());
    let log = sidecar.process.log();
    let told = "reloaded: spec.accessControl changed, and in force now";
    assert_eq!(log.matches(told).count(), 2, "{log}");
    assert_eq!(figure(&sidecar, "ringside_config_reloads_total"), 2);
    assert_eq!(sidecar.process.terminate().code(), Some(0));
}

/// Whoever writes it in whatever way.
#[test]
fn follows_a_file_however_it_is_written() {
    let mut world = World::new("reload-written");
    let folder = world.folder("conf");
    let file = folder.join("acl.yaml");
    mount(&folder, "1", "acl.yaml", &by_default("allow", ""));
    symlink("..data/acl.yaml", &file).expect("a link");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    assert_eq!(subject.status(), "0");
    assert_eq!(subject.metadata()["extended"].as_object().expect("a map").len(), 1);

    mount(&folder, "2", "acl.yaml", &by_default("deny", ""));
    fs::remove_dir_all(folder.join("..1")).expect("the old version is gone");
    subject.becomes(DENIED, "a new version of a ConfigMap");
    let since = subject.metadata()["extended"]["ringsideConfigurationSince"].clone();
    assert!(since.as_str().is_some_and(|since| since.ends_with('Z')), "{since}");

    replace(&file, &by_default("allow", ""));
    subject.becomes("0", "a rename over it");
    fs::write(&file, by_default("deny", "")).expect("the file in place");
    subject.becomes(DENIED, "a write in place");

    // In two goes, with a pause longer than anybody waits.
    let text = by_default("allow", "  api: {allowed: [], denied: []}\n");
    let (half, rest) = text.split_at(text.find("[], denied").expect("there") + 1);
    fs::write(&file, half).expect("a half");
    subject.refuses(DENIED, "acl.yaml: yaml: ");
    let mut open = fs::OpenOptions::new().append(true).open(&file).expect("the file");
    open.write_all(rest.as_bytes()).expect("the rest");
    subject.becomes("0", "the rest of it");
    assert_eq!(subject.figure("ringside_config_reload_failures_total"), 1);
    assert_eq!(subject.figure("ringside_config_last_reload_successful"), 1);
    assert!(subject.app.book.broken().is_empty());
}

/// What cannot be, at a reload: an error each, told once, and the old rule stays.
#[test]
fn refuses_what_cannot_be_and_keeps_what_was() {
    let mut world = World::new("reload-refused");
    let file = world.folder("conf").join("acl.yaml");
    fs::write(&file, by_default("deny", "")).expect("a Configuration");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    assert_eq!(subject.status(), DENIED);
    for (hostile, error) in hostile() {
        let _ = fs::remove_file(&file);
        hostile.put(&file);
        subject.refuses(DENIED, error);
        let _ = fs::remove_dir(&file);
    }
    for (text, error) in [
        ("# nothing\n", "holds nothing any more"),
        ("spec: {accessControl: {policies: [{appId: b}]}}", "missing trustdomain for apps: [b]"),
        ("spec:\n  httpPipeline: {handlers: [{name: a, type: b}]}\n", "spec.httpPipeline.handlers"),
        ("spec:\n  accessControl: allow\n", "line 2"),
    ] {
        replace(&file, text);
        subject.refuses(DENIED, error);
    }
    fs::remove_file(&file).expect("the file");
    subject.refuses(DENIED, "acl.yaml: no such file or directory");
    assert_eq!(subject.figure("ringside_config_last_reload_successful"), 0);
    let extended = subject.metadata()["extended"].clone();
    assert!(extended["ringsideConfigurationRefused"].is_string(), "{extended}");

    // What others change in the meantime does not tell it again.
    let reloads = subject.figure("ringside_config_reloads_total");
    fs::write(world.folder("resources").join("r.yaml"), within("rz", PATIENT)).expect("a resource");
    let more = || (subject.figure("ringside_config_reloads_total") > reloads).then_some(());
    assert!(until(more).is_some(), "{}", subject.sidecar.process.tail());
    assert_eq!(subject.figure("ringside_config_last_reload_successful"), 0);

    replace(&file, &by_default("deny", ""));
    let good = || (subject.figure("ringside_config_last_reload_successful") == 1).then_some(());
    assert!(until(good).is_some(), "{}", subject.sidecar.process.tail());
    let refused = subject.refused;
    assert_eq!(subject.figure("ringside_config_reload_failures_total"), refused as u64);
    let told = subject.sidecar.process.log().matches(REFUSED).count();
    assert_eq!(told, refused, "each is told once");
    replace(&file, &by_default("allow", ""));
    subject.becomes("0", "a good one");
    assert_eq!(subject.metadata()["extended"]["ringsideConfigurationRefused"].as_str(), None);
}

/// The same at the start: it ends, says why, and opens nothing.
#[test]
fn a_start_ends_with_what_cannot_be() {
    let mut world = World::new("reload-start");
    world.reserve(&["server"]);
    let file = world.folder("conf").join("acl.yaml");
    for (hostile, error) in hostile() {
        hostile.put(&file);
        let args = vec!["--config", plain(&file)];
        let options = Options { args, await_api: false, ..Options::default() };
        let mut sidecar = Sidecar::start(&world, Kind::Ringside, "server", options);
        assert_eq!(sidecar.process.wait_for_end().code(), Some(1), "{error}");
        let log = sidecar.process.log();
        let told = "level=fatal msg=\"Fatal error from runtime: error loading configuration: ";
        assert!(log.contains(told) && log.contains(error), "{error}: {log}");
        assert!(!log.contains("server listening"), "{log}");
        let _ = fs::remove_file(&file);
        let _ = fs::remove_dir(&file);
    }
}

/// Both take the first document, a null too, and look at no other.
#[test]
fn a_null_is_a_first_document_for_both() {
    for kind in [Kind::Daprd, Kind::Ringside] {
        let mut world = World::new(&format!("reload-null-{}", kind.name()));
        let file = world.folder("conf").join("acl.yaml");
        fs::write(&file, format!("---\n---\n{}", by_default("deny", ""))).expect("a Configuration");
        let mut subject = Subject::start(&mut world, kind, &file);
        assert_eq!(subject.status(), "0", "{}", kind.name());
        assert_eq!(subject.sidecar.process.terminate().code(), Some(0));
    }
}

fn starts(subject: &Subject) -> usize {
    subject.sidecar.process.log().matches(RUNNING).count()
}

/// SIGHUP takes over what it can; what holds for a whole run needs a restart, which only SIGHUP
/// brings.
#[test]
fn sighup_restarts_where_it_must() {
    let mut world = World::new("reload-sighup");
    let file = world.folder("conf").join("acl.yaml");
    fs::write(&file, by_default("allow", "")).expect("a Configuration");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    let streams = Streams::start(subject.sidecar.ports.grpc, 2);
    streams.wait_for(10);
    subject.sidecar.process.signal(Signal::HUP);
    subject.sidecar.process.wait_for_line("nothing has changed that would need a restart");

    let traced = "  tracing: {samplingRate: '1'}\n";
    replace(&file, &by_default("deny", traced));
    subject.becomes(DENIED, "a change of two fields");
    let line = subject.sidecar.process.wait_for_line("spec.tracing changed, which holds from the");
    assert!(line.contains("level=warning") && line.contains(plain(&file)), "{line}");
    assert_eq!(subject.figure("ringside_config_restart_pending"), 1);
    assert_eq!(subject.metadata()["extended"]["ringsideRestartPending"], "true");
    replace(&file, "spec: [");
    subject.refuses(DENIED, "acl.yaml: yaml: ");
    subject.sidecar.process.signal(Signal::HUP);
    subject.refuses(DENIED, "acl.yaml: yaml: ");
    streams.wait_for(10);
    assert_eq!(starts(&subject), 1, "a bad file ends nothing");
    assert!(streams.stop().iter().all(|end| matches!(end, Ok(End::Ok))));

    replace(&file, &by_default("deny", traced));
    subject.sidecar.process.signal(Signal::HUP);
    subject.sidecar.process.wait("a second start", |process| {
        (process.log().matches(RUNNING).count() == 2).then_some(())
    });
    let log = subject.sidecar.process.log();
    assert!(log.contains("Received signal 'hangup'; restarting"), "{log}");
    assert_eq!(subject.figure("ringside_config_restart_pending"), 0);
    assert_eq!(subject.status(), DENIED);
    assert_eq!(subject.sidecar.process.terminate().code(), Some(0));
}

/// Without the feature nobody looks; SIGHUP reads all the same, and may turn it on.
#[test]
fn without_hot_reload_sighup_is_waited_for() {
    let mut world = World::new("reload-off");
    let file = world.folder("conf").join("acl.yaml");
    let off = "  features: [{name: HotReload, enabled: false}]\n";
    fs::write(&file, by_default("allow", off)).expect("a Configuration");
    let mut subject = Subject::start(&mut world, Kind::Ringside, &file);
    assert!(!subject.sidecar.process.log().contains("Hot reloading enabled"));
    replace(&file, &by_default("deny", off));
    subject.sidecar.process.signal(Signal::HUP);
    subject.becomes(DENIED, "SIGHUP");
    assert_eq!(subject.figure("ringside_config_reloads_total"), 1, "nobody looked before");
    replace(&file, &by_default("deny", ""));
    subject.sidecar.process.signal(Signal::HUP);
    subject.sidecar.process.wait_for_line("reloaded: spec.features changed");
    let features = subject.metadata()["enabledFeatures"].clone();
    assert!(features.to_string().contains("HotReload"), "{features}");
    replace(&file, &by_default("allow", ""));
    subject.becomes("0", "a change that is looked for again");
    assert_eq!(starts(&subject), 1);
}

/// daprd follows files of its resources folders, and restarts for each; ringside takes them over.
#[test]
fn the_same_edit_beside_daprd() {
    for kind in [Kind::Daprd, Kind::Ringside] {
        let mut world = World::new(&format!("reload-both-{}", kind.name()));
        let file = world.folder("resources").join("acl.yaml");
        let text = |action| {
            let head = "apiVersion: dapr.io/v1alpha1\nmetadata: {name: acl}\n";
            format!("{head}{}", by_default(action, ""))
        };
        fs::write(&file, text("allow")).expect("a Configuration");
        let mut subject = Subject::start(&mut world, kind, &file);
        assert_eq!(subject.status(), "0");
        fs::write(&file, text("deny")).expect("a Configuration");
        let restarted = "Received signal 'hangup'; restarting";
        if kind == Kind::Daprd {
            subject.sidecar.process.wait_for_line("triggering SIGHUP reload");
            subject.sidecar.process.wait_for_line(restarted);
            subject.sidecar.process.wait("a second start", |process| {
                (process.log().matches(RUNNING).count() == 2).then_some(())
            });
        }
        subject.becomes(DENIED, "an edit");
        let log = subject.sidecar.process.log();
        assert_eq!(log.contains(restarted), kind == Kind::Daprd, "{log}");
    }
}
