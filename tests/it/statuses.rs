//! What an app does in HTTP/2 instead of answering, and what its caller is told of it: through
//! both sidecars, in each mix, so that daprd says what is to be expected.

use crate::peer::bare::exchange;
use crate::peer::frames::{FrameApp, Heard, Say, data, goaway, headers, reset};
use crate::peer::probe::{Call, Outcome, outcomes};
use crate::peer::{Kind, Sidecar, World};
use http::Request;

struct Pair {
    world: World,
    app: FrameApp,
    caller: Sidecar,
    callee: Sidecar,
    kinds: (Kind, Kind),
}

impl Pair {
    fn start(name: &str, kinds: (Kind, Kind), script: fn(&Heard) -> Say) -> Self {
        let (near, far) = kinds;
        let mut world = World::new(&format!("statuses-{}-{}-{name}", near.name(), far.name()));
        world.reserve(&["server", "client"]);
        let app = FrameApp::start(script);
        let callee = Sidecar::callee(&world, far, "server", app.port);
        let caller = Sidecar::caller(&world, near, "client");
        Self { world, app, caller, callee, kinds }
    }

    fn call(&self, name: &str, args: &[&str]) -> Outcome {
        let call = Call::to(&self.caller.address()).app("server").args(&["-deadline", "20s"]);
        call.args(args).run(&self.world, name)
    }

    /// Adds who failed, if the far sidecar is one that does.
    fn by_app(&self, text: &str) -> String {
        let port = self.app.port;
        match self.kinds.1 {
            Kind::Daprd => text.to_owned(),
            Kind::Ringside => {
                format!("{text} (the app at 127.0.0.1:{port}, seen by the sidecar of server)")
            }
        }
    }
}

const HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

/// Echoes one call's request.
fn answer(heard: &Heard) -> Say {
    if !heard.whole {
        return Say::default();
    }
    let Heard { stream, body, .. } = heard;
    let trailers = headers(*stream, &[("grpc-status", "0")], true);
    Say::frames(&[headers(*stream, &HEAD, false), data(*stream, body, false), trailers])
}

/// REFUSED_STREAM comes last, since it is asked for twice.
const RESETS: [(u32, &str, &str); 15] = [
    (0x0, "NO_ERROR", "Internal"),
    (0x1, "PROTOCOL_ERROR", "Internal"),
    (0x2, "INTERNAL_ERROR", "Internal"),
    (0x3, "FLOW_CONTROL_ERROR", "ResourceExhausted"),
    (0x4, "SETTINGS_TIMEOUT", "Internal"),
    (0x5, "STREAM_CLOSED", "Internal"),
    (0x6, "FRAME_SIZE_ERROR", "Internal"),
    (0x8, "CANCEL", "Canceled"),
    (0x9, "COMPRESSION_ERROR", "Internal"),
    (0xa, "CONNECT_ERROR", "Internal"),
    (0xb, "ENHANCE_YOUR_CALM", "ResourceExhausted"),
    (0xc, "INADEQUATE_SECURITY", "PermissionDenied"),
    (0xd, "HTTP_1_1_REQUIRED", "Internal"),
    (0xe, "unknown error code 0xe", "Unknown"),
    (0x7, "REFUSED_STREAM", "Unavailable"),
];

fn maps_resets(kinds: (Kind, Kind)) {
    let pair = Pair::start("resets", kinds, |heard| {
        if !heard.whole {
            return Say::default();
        }
        let (code, ..) = RESETS[heard.call.min(RESETS.len() - 1)];
        Say::frames(&[reset(heard.stream, code)])
    });
    let mut wrong = Vec::new();
    for (code, name, status) in RESETS {
        let got = pair.call(name, &[]);
        let text = format!("stream terminated by RST_STREAM with error code: {name}");
        let expected = (status, &*pair.by_app(&text));
        if got.status() != expected {
            wrong.push(format!("0x{code:x}: {:?}\n  expected {expected:?}", got.status()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The refused one is made again once by a ringside, and by no daprd.
    let again = usize::from(pair.kinds.1 == Kind::Ringside);
    assert_eq!(pair.app.calls().len(), RESETS.len() + again);
}

/// The first time a call is left out, by one way or the other; the caller sees nothing of it.
fn makes_calls_again(kinds: (Kind, Kind)) {
    fn after(heard: &Heard, frames: Vec<u8>) -> Say {
        match (heard.call, heard.whole) {
            (0, false) => Say::default(),
            (0, true) => Say::frames(&[frames]),
            _ => answer(heard),
        }
    }
    let refusing: fn(&Heard) -> Say = |heard| after(heard, reset(heard.stream, 0x7));
    let leaving: fn(&Heard) -> Say = |heard| after(heard, goaway(0, 0x0, ""));
    for (name, script) in [("refused", refusing), ("left-out", leaving)] {
        let pair = Pair::start(name, kinds, script);
        let got = pair.call(name, &["-messages", "3", "-size", "4000"]);
        if kinds.1 == Kind::Daprd {
            // It passes the refusal on, and its text says that there was one.
            assert_eq!(got.code, "Unavailable", "{name}: {}", got.message);
            assert_eq!(pair.app.calls().len(), 1, "{name}");
            continue;
        }
        assert_eq!((got.status(), got.messages, got.mismatch), (("OK", ""), 3, false), "{name}");
        let calls = pair.app.calls();
        assert_eq!(calls.len(), 2, "{name}");
        assert_eq!(calls[0].body.len(), 3 * 4005, "{name}");
        assert_eq!(calls[0].body, calls[1].body, "{name}");
    }
}

/// An app that leaves out the fifth call of each connection and all that come behind it, while three
/// callers call: none of them is lost, and none happens twice. By connection, since a call that is
/// made again is among the first three of the next one: of every fifth of all calls it might be
/// five times in a row, as often as no caller is promised anything.
fn loses_no_call(kinds: (Kind, Kind)) {
    const EACH: usize = 200;
    const LEFT_OUT: u32 = 9;
    let pair = Pair::start("leaving", kinds, |heard| {
        if heard.whole && heard.stream == LEFT_OUT {
            let last = LEFT_OUT - 2;
            return Say { frames: goaway(last, 0x0, ""), close: false, last: Some(last) };
        }
        answer(heard)
    });
    let start = |n: usize| {
        let call = Call::to(&pair.caller.address()).app("server").args(&["-deadline", "20s"]);
        call.args(&["-times", &EACH.to_string()]).start(&pair.world, &format!("caller-{n}"))
    };
    let mut callers = [start(0), start(1), start(2)];
    for process in &mut callers {
        process.wait_for_end();
        let outcomes = outcomes(process);
        assert_eq!(outcomes.len(), EACH);
        let fine = |outcome: &&Outcome| (outcome.code.as_str(), outcome.mismatch) == ("OK", false);
        let lost: Vec<_> = outcomes.iter().filter(|outcome| !fine(outcome)).collect();
        assert!(lost.is_empty(), "{} calls lost, the first: {:?}", lost.len(), lost[0]);
    }
    let calls = pair.app.calls();
    let (left, answered): (Vec<_>, Vec<_>) =
        calls.iter().partition(|heard| heard.stream == LEFT_OUT);
    assert_eq!(answered.len(), 3 * EACH);
    assert!(left.len() > EACH / 2, "{} goodbyes", left.len());
}

/// The app has said all before it has heard all, and wants no more.
fn keeps_an_early_status(kinds: (Kind, Kind)) {
    let pair = Pair::start("early", kinds, |heard| {
        if heard.whole {
            return Say::default();
        }
        let end = [("grpc-status", "9"), ("grpc-message", "not now"), ("x-more", "late")];
        let head = [&HEAD[..], &end].concat();
        Say::frames(&[headers(heard.stream, &head, true), reset(heard.stream, 0x0)])
    });
    for round in ["first", "again"] {
        // The caller waits for an answer before it goes on, so that the request never ends.
        let got = pair.call(round, &["-messages", "2", "-ping-pong"]);
        assert_eq!(got.status(), ("FailedPrecondition", "not now"), "{round}");
        assert_eq!(got.trailer.get("x-more"), Some(&vec!["late".to_owned()]), "{round}");
    }
}

/// A connection that ends with a call on it, after a goodbye.
fn tells_of_a_goodbye(kinds: (Kind, Kind)) {
    let pair = Pair::start("goodbye", kinds, |heard| Say {
        frames: if heard.whole { goaway(heard.stream, 0xb, "calm down") } else { Vec::new() },
        close: heard.whole,
        last: None,
    });
    let got = pair.call("call", &[]);
    let text = "closing transport due to: connection error: desc = \"error reading from server: \
                EOF\", received prior goaway: code: ENHANCE_YOUR_CALM, debug data: \"calm down\"";
    assert_eq!(got.status(), ("Unavailable", &*pair.by_app(text)));
    assert_eq!(pair.app.calls().len(), 1, "it was accepted, so it is not made again");
}

/// A web server where the app should be.
fn translates_http(kinds: (Kind, Kind)) {
    const PAGES: [(&str, &str, &str); 4] = [
        ("502", "502 (Bad Gateway)", "Unavailable"),
        ("404", "404 (Not Found)", "Unimplemented"),
        ("401", "401 (Unauthorized)", "Unauthenticated"),
        ("200", "200 (OK)", "Unknown"),
    ];
    let pair = Pair::start("http", kinds, |heard| {
        if !heard.whole {
            return Say::default();
        }
        let (status, ..) = PAGES[heard.call.min(PAGES.len() - 1)];
        let head = [(":status", status), ("content-type", "text/html")];
        Say::frames(&[headers(heard.stream, &head, false), data(heard.stream, b"<p>no", true)])
    });
    for (status, reason, code) in PAGES {
        let got = pair.call(status, &[]);
        let text = format!(
            "unexpected HTTP status code received from server: {reason}; transport: received \
             unexpected content-type \"text/html\""
        );
        assert_eq!(got.status(), (code, &*pair.by_app(&text)));
    }
}

/// Each hop rings by itself: a caller that does not is told, and so is who calls the far one. A
/// daprd may only reset the stream.
fn rings_on_both_hops(kinds: (Kind, Kind)) {
    let silent: fn(&Heard) -> Say = |_| Say::default();
    let pair = Pair::start("deadline", kinds, silent);
    let ask = |port: u16| {
        let request = Request::post(format!("http://127.0.0.1:{port}/probe.Probe/Echo"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("dapr-app-id", "server")
            .header("dapr-callee-app-id", "server")
            .header("grpc-timeout", "300m")
            .body(());
        exchange(port, request.expect("a request"), b"\0\0\0\0\x05hello")
    };
    let hops = [(kinds.0, pair.caller.ports.grpc), (kinds.1, pair.callee.ports.internal)];
    for (kind, port) in hops {
        let got = match ask(port) {
            Ok(got) => got,
            Err(error) => {
                assert_eq!((kind, error.reason()), (Kind::Daprd, Some(h2::Reason::CANCEL)));
                continue;
            }
        };
        assert_eq!((got.status, got.last("grpc-status")), (200, "4"), "{got:?}");
        if kind == Kind::Ringside {
            assert_eq!(got.last("grpc-message"), "context deadline exceeded");
        }
    }
    assert_eq!(pair.app.calls().len(), 2);
}

macro_rules! mixes {
    ($($module:ident: $caller:ident to $callee:ident;)*) => {$(
        mod $module {
            use super::*;

            const KINDS: (Kind, Kind) = (Kind::$caller, Kind::$callee);

            #[test]
            fn maps_resets() {
                super::maps_resets(KINDS);
            }

            #[test]
            fn makes_calls_again() {
                super::makes_calls_again(KINDS);
            }

            #[test]
            fn keeps_an_early_status() {
                super::keeps_an_early_status(KINDS);
            }

            #[test]
            fn tells_of_a_goodbye() {
                super::tells_of_a_goodbye(KINDS);
            }

            #[test]
            fn translates_http() {
                super::translates_http(KINDS);
            }

            #[test]
            fn rings_on_both_hops() {
                super::rings_on_both_hops(KINDS);
            }
        }
    )*};
}

mixes! {
    daprd_to_daprd: Daprd to Daprd;
    daprd_to_ringside: Daprd to Ringside;
    ringside_to_daprd: Ringside to Daprd;
    ringside_to_ringside: Ringside to Ringside;
}

#[test]
fn daprd_to_ringside_loses_no_call() {
    loses_no_call((Kind::Daprd, Kind::Ringside));
}

#[test]
fn ringside_to_ringside_loses_no_call() {
    loses_no_call((Kind::Ringside, Kind::Ringside));
}
