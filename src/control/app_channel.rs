//! The app: where it is, and whether it listens yet.
//!
//! 1. The workers never look a name up: they get an address in the snapshot.
//! 2. Until the app listens, its address is published all the same, so that calls fail as daprd's
//!    do: refused, not unknown.
//! 3. An app with TLS is there once it shakes hands, as anybody: `link`.
//!
//! Source: `pkg/runtime/runtime.go` of Dapr, `blockUntilAppIsReady`.

pub mod link;

use super::publish::Workers;
use crate::config::{App, AppProtocol};
use crate::resolve::Endpoint;
use link::Links;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};

const DIAL_TIME_MAX: Duration = Duration::from_millis(500);
const DIAL_PAUSE: Duration = Duration::from_millis(100);
const DIALS_PER_LINE: u32 = 100;
/// How often the name of an app that is not given by address is looked up again.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(10);

/// How often an app is looked at while its sidecar's end is held back for it.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// So often in a row nobody listened: not a server that is made anew.
const REFUSALS: u32 = 3;

/// Says that the app is waited for, and returns once something listens on its port.
pub async fn discover(app: &App, workers: &Rc<Workers>) {
    tracing::info!(
        "application protocol: {}. waiting on port {}.  This will block until the app is \
         listening on that port.",
        protocol(app.protocol),
        app.port
    );
    let links = Links::new(app);
    let mut dials = 0_u32;
    loop {
        for address in addresses(app).await {
            let dial = tokio::time::timeout(DIAL_TIME_MAX, links.connect(address)).await;
            if matches!(dial, Ok(Ok(_))) {
                publish(workers, address);
                tracing::info!("application discovered on port {}", app.port);
                return;
            }
            if workers.snapshot().app_endpoint.is_none() {
                publish(workers, address);
            }
        }
        dials += 1;
        if dials.is_multiple_of(DIALS_PER_LINE) {
            tracing::info!("waiting for application to listen on port {}", app.port);
        }
        tokio::time::sleep(DIAL_PAUSE).await;
    }
}

/// Returns once nobody listens on the app's port any more.
pub async fn gone(workers: &Rc<Workers>) {
    let mut refused = 0_u32;
    while refused < REFUSALS {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(Endpoint(address)) = workers.snapshot().app_endpoint else { continue };
        let dial = tokio::time::timeout(DIAL_TIME_MAX, TcpStream::connect(address)).await;
        let is_refused = matches!(dial, Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused);
        refused = if is_refused { refused + 1 } else { 0 };
    }
}

/// Follows the name of an app that is given by one. Ends at once for an address.
pub async fn follow(app: &App, workers: &Rc<Workers>) {
    if literal(&app.host).is_some() {
        return;
    }
    loop {
        tokio::time::sleep(LOOKUP_INTERVAL).await;
        let found = addresses(app).await;
        let current = workers.snapshot().app_endpoint;
        let still = current.is_some_and(|Endpoint(address)| found.contains(&address));
        if let Some(first) = found.first().filter(|_| !still) {
            tracing::info!("the app's host {} is now at {}", app.host, first.ip());
            publish(workers, *first);
        }
    }
}

/// The address of an app that is given by one; no lookup.
pub fn given(app: &App) -> Option<Endpoint> {
    Some(Endpoint(SocketAddr::new(literal(&app.host)?, app.port)))
}

fn publish(workers: &Rc<Workers>, address: SocketAddr) {
    if workers.snapshot().app_endpoint != Some(Endpoint(address)) {
        workers.publish(|snapshot| snapshot.app_endpoint = Some(Endpoint(address)));
    }
}

/// IPv4 first: apps listen there more often.
async fn addresses(app: &App) -> Vec<SocketAddr> {
    if let Some(Endpoint(address)) = given(app) {
        return vec![address];
    }
    match lookup_host((app.host.as_str(), app.port)).await {
        Ok(found) => {
            let mut found: Vec<SocketAddr> = found.collect();
            found.sort_by_key(SocketAddr::is_ipv6);
            found
        }
        Err(error) => {
            tracing::debug!("cannot look up the app's host {}: {error}", app.host);
            Vec::new()
        }
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn protocol(protocol: AppProtocol) -> &'static str {
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
        App { host: host.to_owned(), port, protocol: AppProtocol::Grpc }
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
                assert_eq!(workers.snapshot().app_endpoint, Some(Endpoint(address)));
                assert_eq!(workers.snapshot().epoch, Epoch(2), "told once");
            })
            .await;
        assert!(matches!(mailbox.try_recv(), Some(ToWorker::Snapshot(_))));
        assert!(mailbox.try_recv().is_none());
    }

    #[test]
    fn addresses_need_no_lookup() {
        let at = |host: &str| given(&app(host, 1)).map(|Endpoint(address)| address.to_string());
        assert_eq!(at("10.0.0.1").as_deref(), Some("10.0.0.1:1"));
        assert_eq!(at("[::1]").as_deref(), Some("[::1]:1"));
        assert_eq!(at("localhost"), None);
    }
}
