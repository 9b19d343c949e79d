//! CPU groups of cgroup v1, one for each thread that gets a quota.
//!
//! 1. Dropping them moves the threads back and removes the groups.
//! 2. Groups of runs that were killed are removed when the next ones are made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub struct Groups {
    root: PathBuf,
    groups: Vec<(PathBuf, u32)>,
}

const CPU_GROUPS: &str = "/sys/fs/cgroup/cpu";
/// The kernel's least quota is 1 ms, so this allows two percent and more.
const PERIOD_US: u32 = 50_000;
/// In front of the process and the thread that a group belongs to.
const NAME: &str = "loadtest-";

impl Groups {
    pub fn make(threads: impl Iterator<Item = u32>, percent: u32) -> Result<Self, String> {
        let root = PathBuf::from(CPU_GROUPS);
        if !root.join("cpu.cfs_quota_us").exists() && !root.join("tasks").exists() {
            return Err(format!(
                "a quota for a thread needs cgroup v1's cpu controller at {CPU_GROUPS}; \
                 --quota 0 runs without"
            ));
        }
        sweep(&root, |pid| Path::new(&format!("/proc/{pid}")).exists());
        let mut groups = Self { root, groups: Vec::new() };
        for thread in threads {
            groups.add(thread, percent).map_err(|e| format!("cannot make a CPU group: {e}"))?;
        }
        Ok(groups)
    }

    fn add(&mut self, thread: u32, percent: u32) -> io::Result<()> {
        let group = self.root.join(format!("{NAME}{}-{thread}", std::process::id()));
        fs::create_dir(&group)?;
        self.groups.push((group.clone(), thread));
        fs::write(group.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
        fs::write(group.join("cpu.cfs_quota_us"), (PERIOD_US / 100 * percent).to_string())?;
        fs::write(group.join("tasks"), thread.to_string())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for (group, thread) in &self.groups {
            // A thread that has ended is in no group any more.
            let _ = fs::write(self.root.join("tasks"), thread.to_string());
            remove(group);
        }
    }
}

/// Removes what runs left whose process is gone; their threads went with it.
fn sweep(root: &Path, lives: impl Fn(u32) -> bool) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ids = name.to_str().and_then(|name| name.strip_prefix(NAME)?.split_once('-'));
        let Some((pid, thread)) = ids else { continue };
        if let (Ok(pid), Ok(_)) = (pid.parse::<u32>(), thread.parse::<u32>())
            && !lives(pid)
        {
            remove(&entry.path());
        }
    }
}

fn remove(group: &Path) {
    if let Err(error) = fs::remove_dir(group) {
        eprintln!("loadtest: cannot remove {}: {error}", group.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_the_dead_are_swept() {
        let root = std::env::temp_dir().join(format!("loadtest-groups-{}", std::process::id()));
        let names = ["loadtest-7-8", "loadtest-9-10", "loadtest-7", "loadtest-7-x", "another-7-8"];
        for name in names {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        sweep(&root, |pid| pid == 9);
        let left: Vec<bool> = names.iter().map(|name| root.join(name).exists()).collect();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(left, [false, true, true, true, true]);
    }
}
