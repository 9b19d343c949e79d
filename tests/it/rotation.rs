//! Identities that are renewed while calls are in flight.

use crate::peer::{Kind, Sentry, Sidecar, World};
use crate::sentry::run;
use ringside::demo::caller::Caller;
use ringside::demo::greeter::Greeter;
use std::sync::Arc;
use std::time::Duration;

/// Certificates last so long, so a connection older than this has seen its own expire.
const LIFETIME_S: u32 = 4;
const RENEWALS: usize = 3;

fn renewals(sidecar: &Sidecar) -> usize {
    sidecar.process.log().matches("Successfully renewed workload identity").count()
}

fn a_stream_outlives_its_certificates(client: Kind, server: Kind) {
    let name = format!("rotation-{}-{}", client.name(), server.name());
    let mut world = World::new(&name);
    let times = format!("workloadCertTTL: {LIFETIME_S}s, allowedClockSkew: 0s");
    let spec = format!("mtls: {{enabled: true, {times}}}");
    world.sentry = Some(Sentry::start_with(&world.folder("sentry"), &spec));
    world.reserve(&["client", "server", "latecomer"]);
    run(async {
        let (app, serving) = Arc::new(Greeter::default()).bind().await.unwrap();
        let story = async {
            let callee = Sidecar::callee(&world, server, "server", app.port());
            let caller = Sidecar::caller(&world, client, "client");
            let address = caller.address().parse().unwrap();
            let client_side = Caller::connect(address, Some("server")).await.unwrap();
            let (mut stream, greeting) = client_side.converse("0").await.unwrap();
            assert_eq!(greeting, "Hello 0");
            let mut said = 0;
            while renewals(&callee).min(renewals(&caller)) < RENEWALS {
                said += 1;
                let greeting = stream.say(&said.to_string()).await;
                assert_eq!(greeting.as_deref(), Ok(format!("Hello {said}").as_str()));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // A handshake now is judged by certificates of now, the callee's among them.
            let latecomer = Sidecar::caller(&world, client, "latecomer");
            let address = latecomer.address().parse().unwrap();
            let late_side = Caller::connect(address, Some("server")).await.unwrap();
            assert_eq!(late_side.unary("late").await.as_deref(), Ok("Hello late"));
            assert_eq!(client_side.unary("still").await.as_deref(), Ok("Hello still"));
            assert_eq!(stream.say("last").await.as_deref(), Ok("Hello last"));
            stream.end().await.unwrap();
        };
        tokio::select! { () = story => {}, () = serving => panic!("the app ended") }
    });
}

#[test]
fn between_ringsides() {
    a_stream_outlives_its_certificates(Kind::Ringside, Kind::Ringside);
}

#[test]
fn from_ringside_to_daprd() {
    a_stream_outlives_its_certificates(Kind::Ringside, Kind::Daprd);
}

#[test]
fn from_daprd_to_ringside() {
    a_stream_outlives_its_certificates(Kind::Daprd, Kind::Ringside);
}
