//! One test's folder, app ids and Sentry.

use super::netns::run_id;
use super::ports::claim;
use super::sidecar::{Kind, Ports, Sentry, write_hosts};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where a test's processes keep their files, and who is where on the internal network.
#[derive(Debug)]
pub struct World {
    folder: PathBuf,
    /// App id to internal port: what every sidecar's name resolution says.
    hosts: BTreeMap<String, Vec<u16>>,
    reserved: BTreeMap<String, Ports>,
    pub sentry: Option<Sentry>,
}

impl World {
    /// `name` must be the test's own; what an earlier run left there is removed.
    pub fn new(name: &str) -> Self {
        let run = run_id();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{run}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for the test");
        Self { folder, hosts: BTreeMap::new(), reserved: BTreeMap::new(), sentry: None }
    }

    /// With a real Sentry, whose identities every sidecar of this world then uses.
    pub fn with_sentry(name: &str) -> Self {
        let mut world = Self::new(name);
        world.sentry = Some(Sentry::start(&world.folder("sentry")));
        world
    }

    /// A folder inside the test's own, made when missing.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).expect("a folder inside the test's");
        folder
    }

    /// Gives app ids their ports before any sidecar starts, since each must know all the others.
    pub fn reserve(&mut self, app_ids: &[&str]) {
        for id in app_ids {
            let ports = Ports::claim();
            self.host(id, ports.internal);
            self.reserved.insert((*id).to_owned(), ports);
        }
    }

    pub fn ports(&self, app_id: &str) -> Ports {
        self.reserved.get(app_id).copied().unwrap_or_else(|| panic!("{app_id} was not reserved"))
    }

    /// What name resolution says of an app id, or of one in a namespace.
    pub fn ports_of(&self, target: &str) -> &[u16] {
        self.hosts.get(target).map_or(&[], Vec::as_slice)
    }

    /// Lets name resolution answer for `app_id` with a port of the test's choice.
    pub fn host(&mut self, app_id: &str, internal_port: u16) {
        self.hosts.insert(app_id.to_owned(), vec![internal_port]);
    }

    /// A further instance of a reserved app id. daprd's table knows the first one only.
    pub fn replicate(&mut self, app_id: &str) -> Ports {
        let ports = Ports::claim();
        self.hosts.entry(app_id.to_owned()).or_default().push(ports.internal);
        ports
    }

    /// An app id at whose address nobody listens.
    pub fn dead_host(&mut self, app_id: &str) -> u16 {
        let port = claim();
        self.host(app_id, port);
        port
    }

    /// Writes the table anew that a running ringside reads.
    pub fn publish_hosts(&self, app_id: &str, kind: Kind) {
        write_hosts(self, &self.folder(&format!("{app_id}-{}", kind.name())));
    }

    pub fn hosts(&self) -> impl Iterator<Item = (&str, &[u16])> {
        self.hosts.iter().map(|(id, ports)| (id.as_str(), ports.as_slice()))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the test's files are kept in {}", self.folder.display());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
