//! Name resolution off the request path, whoever knows the names, behind one handle.
//!
//! 1. [`Resolver::resolve`] never waits; each answer, and each later change to what was answered,
//!    goes to `publish`.
//! 2. The queue to the background task is bounded; what does not fit is answered as not found.
//!
//! Refuses to know workers and mailboxes: `publish` does.

mod dns;
mod interface;
mod mdns;
mod polled;
mod probe;
mod sqlite;
mod static_file;

pub use dns::Names;
pub use probe::probe;

use crate::config::naming;
use crate::identity::{AppId, Target};
use crate::resolve::{Resolution, host};
use polled::{Backend, Polled};
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::rc::Rc;
use tokio::sync::{mpsc, oneshot};

/// Questions of workers that wait for the background task.
const COMMANDS_MAX: usize = 1024;
/// daprd's logger for components.
const SCOPE: &str = "dapr.contrib";

/// Where names come from.
#[derive(Clone, Debug)]
pub enum Source {
    Mdns(Announced),
    /// A YAML file of app IDs to endpoints: see `resolve::table`.
    Static(PathBuf),
    /// Names in DNS that are made of targets.
    Dns(Names),
    /// A table that the sidecars of a machine share.
    Sqlite(naming::Sqlite, Announced),
}

/// What mDNS and SQLite tell of us.
#[derive(Clone, Debug)]
pub struct Announced {
    pub app_id: AppId,
    /// See [`host_address`].
    pub address: IpAddr,
    pub internal_port: u16,
    /// The machine's name.
    pub host: String,
}

/// Takes every answer and every change; control hands it to all workers.
pub type Publish = Rc<dyn Fn(Resolution)>;

/// The handle; the work is done by a task of the same `LocalSet`.
pub struct Resolver {
    publish: Publish,
    /// `None`: no resolver could be started.
    commands: Option<mpsc::Sender<Command>>,
}

enum Command {
    Resolve(Target),
    Close(oneshot::Sender<()>),
}

impl Resolver {
    /// Opens sockets, the file or the database, and starts the background task; inside a
    /// `LocalSet`.
    /// A file that is missing or wrong at start is an error: there is no last good one.
    pub fn start(source: Source, publish: Publish) -> io::Result<Rc<Self>> {
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        match source {
            Source::Mdns(announced) => {
                let mdns = mdns::Mdns::open(&announced, Rc::clone(&publish))?;
                tokio::task::spawn_local(mdns.run(queue));
            }
            Source::Static(path) => {
                let file = static_file::StaticFile::open(path, Rc::clone(&publish))?;
                tokio::task::spawn_local(file.run(queue));
            }
            Source::Dns(names) => {
                let backend = Backend::Dns(Rc::new(dns::Dns::new(names)));
                let polled = Polled::new(backend, Rc::clone(&publish));
                tokio::task::spawn_local(polled.run(queue));
            }
            Source::Sqlite(settings, announced) => {
                let table = sqlite::Sqlite::open(settings, &announced)?;
                let polled = Polled::new(Backend::Sqlite(table), Rc::clone(&publish));
                tokio::task::spawn_local(polled.run(queue));
            }
        }
        Ok(Rc::new(Self { publish, commands: Some(commands) }))
    }

    /// Answers everything with daprd's `name resolver not initialized`, as daprd does when its
    /// resolver could not be started.
    pub fn unavailable(publish: Publish) -> Rc<Self> {
        Rc::new(Self { publish, commands: None })
    }

    /// Does not wait: the answer comes by `publish`.
    pub fn resolve(&self, target: Target) {
        let Some(commands) = &self.commands else {
            return (self.publish)(Resolution::no_resolver(target));
        };
        let refused = match commands.try_send(Command::Resolve(target)) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(command)) => command,
            Err(mpsc::error::TrySendError::Closed(command)) => command,
        };
        if let Command::Resolve(target) = refused {
            (self.publish)(Resolution::not_found(target));
        }
    }

    /// Says goodbye and stops.
    pub async fn close(&self) {
        let Some(commands) = &self.commands else { return };
        let (done, closed) = oneshot::channel();
        if commands.send(Command::Close(done)).await.is_ok() {
            // An error means that the task is gone, which is what was asked for.
            let _ = closed.await;
        }
    }
}

/// The address that other sidecars are told (`resolve::host`); `dapr_host_ip` is the value of
/// `DAPR_HOST_IP`. The text of an error follows daprd's `failed to determine host address: `.
pub fn host_address(dapr_host_ip: Option<&str>) -> Result<IpAddr, String> {
    if let Some(text) = dapr_host_ip.filter(|text| !text.is_empty()) {
        let unbracketed = text.trim_start_matches('[').trim_end_matches(']');
        return unbracketed.parse().map_err(|_| format!("DAPR_HOST_IP: {text:?} is no IP address"));
    }
    let preferred: Vec<IpAddr> = host::PROBES.iter().filter_map(|to| source(*to)).collect();
    let interfaces = interface::addresses().map_err(|error| error.to_string())?;
    host::choose(&preferred, &interfaces).ok_or("could not determine host IP address".to_owned())
}

/// From which address the kernel would send there.
fn source(to: (IpAddr, u16)) -> Option<IpAddr> {
    let any: IpAddr = match to.0 {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins() {
        assert_eq!(host_address(Some("10.9.8.7")), Ok([10, 9, 8, 7].into()));
        assert_eq!(host_address(Some("[::1]")), Ok(std::net::Ipv6Addr::LOCALHOST.into()));
        assert!(host_address(Some("nonsense")).is_err());
    }

    #[tokio::test]
    async fn without_a_resolver_daprds_text() {
        let heard = Rc::new(std::cell::RefCell::new(Vec::new()));
        let sink = Rc::clone(&heard);
        let resolver = Resolver::unavailable(Rc::new(move |r| sink.borrow_mut().push(r)));
        let namespace = crate::identity::Namespace::new("default");
        resolver.resolve(Target::parse("a", &namespace).unwrap());
        let error = heard.borrow()[0].result.clone().unwrap_err();
        assert_eq!(&*error, "name resolver not initialized");
        resolver.close().await;
    }
}
