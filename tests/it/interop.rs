//! grpc-go's interop cases through two sidecars: every mix of daprd and ringside, with identities
//! from a real Sentry and without.

use crate::peer::app::{App, interop_case};
use crate::peer::{Kind, Sidecar, World};

pub const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "custom_metadata",
    "status_code_and_message",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
    "timeout_on_sleeping_server",
];

fn all_cases(mut world: World, caller: Kind, callee: Kind) {
    world.reserve(&["interop", "client"]);
    let app = App::interop(&world);
    let _callee = Sidecar::callee(&world, callee, "interop", app.port);
    let caller = Sidecar::caller(&world, caller, "client");
    let mut failed = Vec::new();
    for case in CASES {
        if let Err(log) = interop_case(&world, caller.ports.grpc, "interop", case) {
            failed.push(format!("{case}:\n{log}"));
        }
    }
    assert!(failed.is_empty(), "{} of 14 failed\n{}", failed.len(), failed.join("\n"));
}

macro_rules! mixes {
    ($($name:ident: $world:ident, $caller:ident to $callee:ident;)*) => {$(
        #[test]
        fn $name() {
            let name = concat!("interop-", stringify!($name));
            all_cases(World::$world(name), Kind::$caller, Kind::$callee);
        }
    )*};
}

mixes! {
    // The harness proves itself: nothing of ours takes part.
    daprd_to_daprd_mtls: with_sentry, Daprd to Daprd;
    daprd_to_ringside_mtls: with_sentry, Daprd to Ringside;
    ringside_to_daprd_mtls: with_sentry, Ringside to Daprd;
    ringside_to_ringside_mtls: with_sentry, Ringside to Ringside;
    daprd_to_ringside_plaintext: new, Daprd to Ringside;
    ringside_to_daprd_plaintext: new, Ringside to Daprd;
    ringside_to_ringside_plaintext: new, Ringside to Ringside;
}
