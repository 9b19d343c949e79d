//! What the kernel lets this process use: its CPUs and their time.
//!
//! What follows from it is decided in `config::cpus`.

use crate::config::cpus::{Crew, Machine, Pin, WorkerCount, quota_folders, quota_of_max, ratio};
use std::path::Path;

/// How many workers, and where.
pub fn crew(workers: WorkerCount, pin: Pin) -> Crew {
    let cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|cpu| cpu.id).collect();
    // Only `auto` asks.
    let quota = if workers == WorkerCount::Auto { quota() } else { None };
    let crew = Crew::new(workers, pin, &Machine { cpus, quota, pid: std::process::id() });
    if pin == Pin::On && crew.cpus.is_empty() {
        tracing::warn!("--ringside-pin: the kernel does not say which CPUs there are");
    }
    crew
}

/// The least of all groups that this process is in.
fn quota() -> Option<f64> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let folders = quota_folders(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    folders.iter().filter_map(|folder| quota_in(folder)).min_by(f64::total_cmp)
}

fn quota_in(folder: &Path) -> Option<f64> {
    let read = |name| std::fs::read_to_string(folder.join(name)).ok();
    match read("cpu.max") {
        Some(max) => quota_of_max(&max),
        None => ratio(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_either_version_tells_its_quota() {
        let folder = std::env::temp_dir().join(format!("ringside-quota-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(quota_in(&folder), None, "the root of version 2 has no such file");
        std::fs::write(folder.join("cpu.cfs_quota_us"), "250000\n").unwrap();
        std::fs::write(folder.join("cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(quota_in(&folder), Some(2.5));
        std::fs::write(folder.join("cpu.max"), "max 100000\n").unwrap();
        assert_eq!(quota_in(&folder), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn there_is_always_a_worker() {
        assert!(crew(WorkerCount::Auto, Pin::Auto).workers >= 1);
        let pinned = crew(WorkerCount::Given(3), Pin::On);
        assert!(pinned.workers == 3 && !pinned.cpus.is_empty());
    }
}
