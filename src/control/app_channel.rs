//! The app: where it is, and whether it listens yet.
//!
//! 1. The workers never look a name up: they get an address in the snapshot.
//! 2. Until the app listens, its address is published all the same, so that calls fail as daprd's
//!    do: refused, not unknown.
//! 3. An app on a Unix socket is nowhere else: it is gone when nobody listens there, and when the
//!    socket is.
//! 4. An app with TLS is there once it shakes hands, as anybody: `link`.
//!
//! Source: `pkg/runtime/runtime.go` of Dapr, `blockUntilAppIsReady`.

pub mod link;

use super::publish::Workers;
use super::rpc::system_text;
use crate::config::{App, AppPlace, AppProtocol};
use crate::resolve::Endpoint;
use crate::snapshot::Way;
use link::{Links, reach};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::lookup_host;

const DIAL_TIME_MAX: Duration = Duration::from_millis(500);
const DIAL_PAUSE: Duration = Duration::from_millis(100);
const DIALS_PER_LINE: u32 = 100;
/// How often the name of an app that is not given by address is looked up again.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(10);

/// How often an app is looked at while its sidecar's end is held back for it.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// So often in a row nobody listened: not a server that is made anew.
const REFUSALS: u32 = 3;

/// Says that the app is waited for, and returns once something listens where it is to be.
pub async fn discover(app: &App, workers: &Rc<Workers>) {
    let kind = match &app.place {
        AppPlace::Port { .. } => "port",
        AppPlace::Socket(_) => "socket",
    };
    let place = match &app.place {
        AppPlace::Port { port, .. } => port.to_string(),
        AppPlace::Socket(path) => path.to_string(),
    };
    tracing::info!(
        "application protocol: {}. waiting on {kind} {place}.  This will block until the app is \
         listening on that {kind}.",
        name(app.protocol),
    );
    let links = Links::new(app);
    let (mut dials, mut told) = (0_u32, false);
    loop {
        for way in ways(app).await {
            match tokio::time::timeout(DIAL_TIME_MAX, links.connect(&way)).await {
                Ok(Ok(_)) => {
                    publish(workers, way);
                    tracing::info!("application discovered on {kind} {place}");
                    return;
                }
                Ok(Err(error)) if !told && will_not_do(&way, &error) => {
                    told = true;
                    let cause = system_text(&error);
                    tracing::warn!("cannot connect to the app's socket {place}: {cause}");
                }
                Ok(Err(_)) | Err(_) => {}
            }
            if workers.snapshot().app.is_none() {
                publish(workers, way);
            }
        }
        dials += 1;
        if dials.is_multiple_of(DIALS_PER_LINE) {
            tracing::info!("waiting for application to listen on {kind} {place}");
        }
        tokio::time::sleep(DIAL_PAUSE).await;
    }
}

/// A Unix socket that no app's start will make fit: another kind of file, or not for us.
fn will_not_do(way: &Way, error: &io::Error) -> bool {
    let is_unix = matches!(way, Way::Unix(_));
    is_unix && error.raw_os_error().is_some() && !nobody_listens(way, error)
}

/// Returns once nobody listens where the app is any more.
pub async fn gone(workers: &Rc<Workers>) {
    let mut refused = 0_u32;
    while refused < REFUSALS {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(way) = workers.snapshot().app.clone() else { continue };
        let dial = tokio::time::timeout(DIAL_TIME_MAX, reach(&way)).await;
        let is_refused = matches!(dial, Ok(Err(error)) if nobody_listens(&way, &error));
        refused = if is_refused { refused + 1 } else { 0 };
    }
}

fn nobody_listens(way: &Way, error: &io::Error) -> bool {
    let is_missing = error.kind() == ErrorKind::NotFound && matches!(way, Way::Unix(_));
    is_missing || error.kind() == ErrorKind::ConnectionRefused
}

/// Follows the name of an app that is given by one. Ends at once for an address.
pub async fn follow(app: &App, workers: &Rc<Workers>) {
    if given(app).is_some() {
        return;
    }
    loop {
        tokio::time::sleep(LOOKUP_INTERVAL).await;
        let found = ways(app).await;
        let still = workers.snapshot().app.as_ref().is_some_and(|way| found.contains(way));
        if let Some(first) = found.first().filter(|_| !still) {
            tracing::info!("the app's host {} is now at {first}", app.host());
            publish(workers, first.clone());
        }
    }
}

/// Where an app is that is not given by a name; no lookup.
pub fn given(app: &App) -> Option<Way> {
    match &app.place {
        AppPlace::Port { host, port } => {
            Some(Way::Tcp(Endpoint(SocketAddr::new(literal(host)?, *port))))
        }
        AppPlace::Socket(path) => Some(Way::Unix(path.clone())),
    }
}

fn publish(workers: &Rc<Workers>, way: Way) {
    if workers.snapshot().app.as_ref() != Some(&way) {
        workers.publish(|snapshot| snapshot.app = Some(way));
    }
}

/// IPv4 first: apps listen there more often.
async fn ways(app: &App) -> Vec<Way> {
    if let Some(way) = given(app) {
        return vec![way];
    }
    match lookup_host((app.host(), app.port())).await {
        Ok(found) => {
            let mut found: Vec<SocketAddr> = found.collect();
            found.sort_by_key(SocketAddr::is_ipv6);
            found.into_iter().map(|address| Way::Tcp(Endpoint(address))).collect()
        }
        Err(error) => {
            tracing::debug!("cannot look up the app's host {}: {error}", app.host());
            Vec::new()
        }
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// As `--app-protocol` takes it.
pub fn name(protocol: AppProtocol) -> &'static str {
    match protocol {
        AppProtocol::Http => "http",
        AppProtocol::Https => "https",
        AppProtocol::H2c => "h2c",
        AppProtocol::Grpc => "grpc",
        AppProtocol::Grpcs => "grpcs",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flags, Settings};
    use crate::mailbox::{ToWorker, mailbox};
    use crate::snapshot::{Epoch, Snapshot};
    use std::sync::Arc;

    fn app(host: &str, port: u16) -> App {
        App::at(host, port, AppProtocol::Grpc)
    }

    /// An app by name is told to the workers, by an address that listens.
    #[tokio::test]
    async fn finds_an_app_by_name() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let flags = Flags { app_id: "a".into(), ..Flags::default() };
        let config = Settings::new(&flags, &Environment::default()).unwrap().config;
        let snapshot = Snapshot::new(Arc::new(config));
        let (sender, mailbox) = mailbox(4).unwrap();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let workers = Workers::new(vec![sender], Arc::new(snapshot));
                discover(&app("localhost", address.port()), &workers).await;
                assert_eq!(workers.snapshot().app, Some(Way::Tcp(Endpoint(address))));
                assert_eq!(workers.snapshot().epoch, Epoch(2), "told once");
            })
            .await;
        assert!(matches!(mailbox.try_recv(), Some(ToWorker::Snapshot(_))));
        assert!(mailbox.try_recv().is_none());
    }

    #[test]
    fn addresses_need_no_lookup() {
        let at = |host: &str| given(&app(host, 1)).map(|way| way.to_string());
        assert_eq!(at("10.0.0.1").as_deref(), Some("10.0.0.1:1"));
        assert_eq!(at("[::1]").as_deref(), Some("[::1]:1"));
        assert_eq!(at("localhost"), None);
    }
}
