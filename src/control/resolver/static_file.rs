//! `static`: a file of endpoints, looked at each second, read again when it changed.
//!
//! 1. A file that turns wrong is one ERROR with file and line; the last good one stays.
//! 2. Reading is done by the blocking thread.

use super::{Command, Publish, SCOPE};
use crate::control::files;
use crate::control::stamp::Stamp;
use crate::identity::Target;
use crate::resolve::Resolution;
use crate::resolve::book::Looked;
use crate::resolve::table::{FILE_OCTETS_MAX, Table};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Targets that are told of changes; more are answered only.
const TARGETS_MAX: usize = 4096;

pub struct StaticFile {
    path: PathBuf,
    stamp: Stamp,
    table: Table,
    targets: HashSet<Target>,
    publish: Publish,
}

impl StaticFile {
    pub fn open(path: PathBuf, publish: Publish) -> io::Result<Self> {
        let stamp = Stamp::of(&path);
        let table = read(&path).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {error}", path.display()))
        })?;
        let (count, path_shown) = (table.len(), path.display());
        tracing::info!(
            target: SCOPE,
            "Initialized name resolution to static: {count} entries in {path_shown}"
        );
        Ok(Self { path, stamp, table, targets: HashSet::new(), publish })
    }

    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut look_at = Instant::now() + LOOK_INTERVAL;
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Resolve(target)) => self.resolve(target),
                    Some(Command::Close(done)) => {
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                () = sleep_until(look_at) => {
                    self.look().await;
                    look_at = Instant::now() + LOOK_INTERVAL;
                }
            }
        }
    }

    fn resolve(&mut self, target: Target) {
        if self.targets.len() < TARGETS_MAX {
            self.targets.insert(target.clone());
        }
        (self.publish)(told(&self.table, target));
    }

    async fn look(&mut self) {
        let (path, before) = (self.path.clone(), self.stamp.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let now = Stamp::of(&path);
            (now != before).then(|| (now, read(&path)))
        });
        let Ok(Some((stamp, table))) = looked.await else { return };
        self.stamp = stamp;
        match table {
            Ok(table) => self.replace(table),
            Err(error) => {
                let path = self.path.display();
                tracing::error!(
                    target: SCOPE,
                    "name resolution file {path}: {error}; what it said before stays in force"
                );
            }
        }
    }

    fn replace(&mut self, table: Table) {
        let before = std::mem::replace(&mut self.table, table);
        let (count, path) = (self.table.len(), self.path.display());
        tracing::info!(target: SCOPE, "name resolution file {path} reread: {count} entries");
        for target in &self.targets {
            if before.find(target) != self.table.find(target) {
                (self.publish)(told(&self.table, target.clone()));
            }
        }
    }
}

/// Where a target is, or why the file says nothing.
pub fn look(path: &Path, target: &Target) -> Looked {
    match read(path) {
        Err(error) => Looked::Failed(format!("{}: {error}", path.display())),
        Ok(table) => match table.find(target) {
            Some(endpoints) => {
                Looked::Found { endpoints: endpoints.to_vec(), again_in: LOOK_INTERVAL }
            }
            None => Looked::Absent(format!("{} has no entry for {target}", path.display())),
        },
    }
}

fn told(table: &Table, target: Target) -> Resolution {
    match table.find(&target) {
        Some(endpoints) => Resolution { target, result: Ok(endpoints) },
        None => Resolution::not_found(target),
    }
}

fn read(path: &Path) -> Result<Table, String> {
    let text = files::read(path, FILE_OCTETS_MAX).map_err(|error| error.to_string())?;
    Table::parse(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::resolver::{Resolver, Source};
    use crate::identity::Namespace;
    use std::rc::Rc;
    use tokio::task::LocalSet;

    struct Temporary(PathBuf);

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn file(name: &str, text: &str) -> Temporary {
        let name = format!("ringside-static-{}-{name}.yaml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Temporary(path)
    }

    /// Another file under the same name, as editors and ConfigMaps do it.
    fn replace(file: &Temporary, text: &str) {
        let beside = file.0.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &file.0).unwrap();
    }

    fn text_of(resolution: Resolution) -> String {
        match resolution.result {
            Ok(all) => all.iter().map(|e| e.0.to_string()).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rereads_and_keeps_the_last_good_one() {
        LocalSet::new()
            .run_until(async {
                let file = file("reread", "a: 10.0.0.1:1\n");
                let (sender, mut heard) = mpsc::unbounded_channel();
                let publish: Publish = Rc::new(move |resolution| {
                    sender.send(text_of(resolution)).unwrap();
                });
                let resolver = Resolver::start(Source::Static(file.0.clone()), publish).unwrap();
                let namespace = Namespace::new("default");
                let target = |text| Target::parse(text, &namespace).unwrap();
                resolver.resolve(target("a"));
                assert_eq!(heard.recv().await.unwrap(), "10.0.0.1:1");
                resolver.resolve(target("b.other"));
                assert_eq!(heard.recv().await.unwrap(), "couldn't find service: b");
                replace(&file, "a: 10.0.0.1:1\nb: 10.0.0.2:2\n");
                assert_eq!(heard.recv().await.unwrap(), "10.0.0.2:2", "only what changed");
                replace(&file, "a: nonsense\n");
                tokio::time::sleep(3 * LOOK_INTERVAL).await;
                resolver.resolve(target("a"));
                assert_eq!(heard.recv().await.unwrap(), "10.0.0.1:1");
                std::fs::remove_file(&file.0).unwrap();
                tokio::time::sleep(3 * LOOK_INTERVAL).await;
                resolver.resolve(target("a"));
                assert_eq!(heard.recv().await.unwrap(), "10.0.0.1:1");
                replace(&file, "b: [10.0.0.3:3, 10.0.0.4:4]\n");
                let mut changes = [heard.recv().await.unwrap(), heard.recv().await.unwrap()];
                changes.sort();
                assert_eq!(changes, ["10.0.0.3:3 10.0.0.4:4", "couldn't find service: a"]);
                resolver.close().await;
            })
            .await;
    }

    #[tokio::test]
    async fn wrong_at_start_is_an_error() {
        let file = file("wrong", "a: 10.0.0.1:1\nb: nonsense\n");
        let publish: Publish = Rc::new(|_| ());
        let error = StaticFile::open(file.0.clone(), Rc::clone(&publish)).err().unwrap();
        assert!(error.to_string().contains("line 2: "), "{error}");
        assert!(StaticFile::open("/nonexistent".into(), publish).is_err());
    }
}
