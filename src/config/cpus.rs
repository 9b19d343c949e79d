//! How many workers a process has, and on which CPUs they run.
//!
//! 1. `auto` never asks for more than the process may use: its affinity mask, and the quota of
//!    every control group that it is in.
//! 2. Processes that start at about the same time do not begin with the same CPU.
//!
//! PURE: what the kernel says comes in as text. The defaults are measured: docs/adr/0081.
//! Sources: sched(7), cgroups(7), proc_pid_mountinfo(5), and the kernel's `sched-bwc`, `cgroup-v2`.

use std::path::{Path, PathBuf};

/// `auto` gives no more, unless the workers get CPUs of their own.
const AUTO_MAX: usize = 4;

/// What a worker's share of `--app-max-concurrency` is at least where `auto` decides: with fewer
/// places each, callers of one worker would wait while another's are free (ADR 141).
const SHARE_MIN: usize = 256;

/// `--ringside-workers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerCount {
    Auto,
    Given(usize),
}

/// `--ringside-pin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    Auto,
    On,
    Off,
}

/// What this process may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// CPUs of the affinity mask.
    pub cpus: Vec<usize>,
    /// CPUs' worth of time, if that is limited.
    pub quota: Option<f64>,
    pub pid: u32,
}

/// What it is to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crew {
    pub workers: usize,
    /// One for each worker in turn; empty: wherever the kernel likes.
    pub cpus: Vec<usize>,
    /// How many calls each worker may give to the app at the same time; empty: any number.
    pub app_calls: Vec<usize>,
}

impl Crew {
    pub fn new(workers: WorkerCount, pin: Pin, machine: &Machine) -> Self {
        let workers = match (workers, pin) {
            (WorkerCount::Given(count), _) => count,
            // The node is ours: one worker on each CPU.
            (WorkerCount::Auto, Pin::On) => machine.usable(),
            // The app and others need CPUs, too.
            (WorkerCount::Auto, Pin::Auto | Pin::Off) => (machine.usable() / 2).clamp(1, AUTO_MAX),
        };
        let pinned = match pin {
            Pin::On => true,
            // Nothing was found that it helps (ADR 81): it only takes choices from the kernel.
            Pin::Auto | Pin::Off => false,
        };
        let cpus = if pinned { machine.cpus_in_turn() } else { Vec::new() };
        Self { workers, cpus, app_calls: Vec::new() }
    }

    /// Shares so many calls: all shares together are all of them, and none is empty. There are
    /// fewer workers where they would share too few.
    pub fn sharing(mut self, workers: WorkerCount, calls: Option<usize>) -> Self {
        let Some(calls) = calls else { return self };
        let most = match workers {
            WorkerCount::Given(_) => calls,
            WorkerCount::Auto => calls / SHARE_MIN,
        };
        self.workers = self.workers.min(most.max(1));
        let (each, more) = (calls / self.workers, calls % self.workers);
        self.app_calls = (0..self.workers).map(|w| each + usize::from(w < more)).collect();
        self
    }
}

impl Machine {
    /// Whole CPUs; at least one.
    fn usable(&self) -> usize {
        let quota = self.quota.map_or(usize::MAX, |cpus| cpus as usize);
        self.cpus.len().min(quota).max(1)
    }

    /// The CPUs, from this process's first one on.
    fn cpus_in_turn(&self) -> Vec<usize> {
        let mut cpus = self.cpus.clone();
        if !cpus.is_empty() {
            cpus.rotate_left(first(self.pid, self.cpus.len()));
        }
        cpus
    }
}

/// Multiples of the golden ratio fill a circle evenly, and so do their multiples: whatever the
/// distance of process IDs that are made together, no CPU is preferred.
fn first(pid: u32, count: usize) -> usize {
    let turn = u64::from(pid.wrapping_mul(0x9E37_79B9));
    usize::try_from((turn * count as u64) >> 32).unwrap_or(0)
}

/// Where the quotas of this process's control groups stand, by `/proc/self/cgroup` and
/// `/proc/self/mountinfo`: the folders of the group and of all above it, version 1 and 2.
pub fn quota_folders(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for group in groups.lines() {
        let mut parts = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let second = controllers.is_empty();
        if !second && !controllers.split(',').any(|name| name == "cpu") {
            continue;
        }
        if let Some((root, point)) = mounts.lines().find_map(|line| mount(line, second)) {
            // A container may see its own group as the root of the mount.
            let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
            let folder = Path::new(point).join(below.strip_prefix("/").unwrap_or(below));
            let above = folder.ancestors().take_while(|above| above.starts_with(point));
            folders.extend(above.map(Path::to_path_buf));
        }
    }
    folders
}

/// Root and mount point, if the line is of the hierarchy with the `cpu` controller.
fn mount(line: &str, second: bool) -> Option<(&str, &str)> {
    let (mount, device) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (mount.next()?, mount.next()?);
    let mut device = device.split(' ');
    let (kind, options) = (device.next()?, device.nth(1)?);
    let matches = match second {
        true => kind == "cgroup2",
        false => kind == "cgroup" && options.split(',').any(|option| option == "cpu"),
    };
    matches.then_some((root, point))
}

/// Version 2's `cpu.max`: `max 100000`, `150000 100000`.
pub fn quota_of_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota, period)
}

/// Version 1's `cpu.cfs_quota_us` (-1: none) and `cpu.cfs_period_us`.
pub fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cpus: usize, quota: Option<f64>) -> Machine {
        Machine { cpus: (0..cpus).collect(), quota, pid: 1 }
    }

    #[test]
    fn auto_leaves_room_for_the_app() {
        for (cpus, workers) in [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (64, 4)] {
            let crew = Crew::new(WorkerCount::Auto, Pin::Auto, &machine(cpus, None));
            assert_eq!((crew.workers, crew.cpus.len()), (workers, 0), "{cpus} CPUs");
        }
        let crew = Crew::new(WorkerCount::Given(7), Pin::Off, &machine(2, None));
        assert_eq!((crew.workers, crew.cpus.len()), (7, 0));
    }

    #[test]
    fn a_quota_counts_as_cpus() {
        for (quota, workers) in [(0.1, 1), (1.5, 1), (4.0, 2), (100.0, 4)] {
            let crew = Crew::new(WorkerCount::Auto, Pin::Off, &machine(8, Some(quota)));
            assert_eq!(crew.workers, workers, "{quota} CPUs' time");
            let crew = Crew::new(WorkerCount::Auto, Pin::On, &machine(8, Some(quota)));
            assert_eq!(crew.workers, (quota as usize).clamp(1, 8));
        }
    }

    #[test]
    fn a_whole_node_has_a_worker_on_each_cpu() {
        let machine = Machine { cpus: vec![2, 3, 6, 7], quota: None, pid: 4711 };
        let crew = Crew::new(WorkerCount::Auto, Pin::On, &machine);
        assert_eq!(crew.workers, 4);
        let mut cpus = crew.cpus;
        cpus.sort_unstable();
        assert_eq!(cpus, machine.cpus);
    }

    /// Sixteen processes, made one after the other with other processes in between.
    #[test]
    fn processes_do_not_all_start_on_one_cpu() {
        for (start, stride) in (1..2000).step_by(97).flat_map(|s| (1..=12).map(move |t| (s, t))) {
            let mut firsts = [0; 2];
            (0..16).for_each(|n| firsts[first(start + n * stride, 2)] += 1);
            assert!(firsts.iter().all(|count| *count >= 4), "{start}, {stride}: {firsts:?}");
        }
        let mut firsts = [0; 6];
        (1..=6000).for_each(|pid| firsts[first(pid, 6)] += 1);
        assert!(firsts.iter().all(|count| (990..=1010).contains(count)), "{firsts:?}");
        assert_eq!(machine(0, None).cpus_in_turn(), [0; 0]);
    }

    #[test]
    fn finds_the_groups_of_both_versions() {
        let paths = |groups, mounts| -> Vec<String> {
            let folders = quota_folders(groups, mounts);
            let plain = |folder: &PathBuf| folder.components().collect::<PathBuf>();
            folders.iter().map(|folder| plain(folder).display().to_string()).collect()
        };
        // As a Kubernetes node with version 1 shows it to a process outside containers.
        let groups = "9:name=systemd:/\n2:cpu,cpuacct:/kubepods/pod1/c1\n0::/x\n";
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      33 31 0:30 / /sys/fs/cgroup/cpuacct,cpu rw shared:9 - cgroup cgroup \
                      rw,cpuacct,cpu\n";
        let at = "/sys/fs/cgroup/cpuacct,cpu";
        let expected = ["/kubepods/pod1/c1", "/kubepods/pod1", "/kubepods", ""];
        assert_eq!(paths(groups, mounts), expected.map(|path| format!("{at}{path}")));
        // Inside the container: its group is the mount's root.
        let mounts = "33 31 0:30 /kubepods/pod1/c1 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        assert_eq!(paths(groups, mounts), ["/sys/fs/cgroup/cpu"]);
        // Version 2, with a namespace of its own.
        let mounts = "31 23 0:28 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n";
        assert_eq!(paths("0::/\n", mounts), ["/sys/fs/cgroup"]);
        let expected = ["/sys/fs/cgroup/a.slice/b", "/sys/fs/cgroup/a.slice", "/sys/fs/cgroup"];
        assert_eq!(paths("0::/a.slice/b\n", mounts), expected);
        assert_eq!(paths("nonsense\n\n1:cpu:/x\n", "nonsense\n - \n"), [""; 0]);
    }

    #[test]
    fn reads_quotas() {
        assert_eq!(quota_of_max("max 100000\n"), None);
        assert_eq!(quota_of_max("150000 100000\n"), Some(1.5));
        assert_eq!(quota_of_max(""), None);
        assert_eq!(ratio("-1\n", "100000\n"), None);
        assert_eq!(ratio("50000\n", "100000\n"), Some(0.5));
        assert_eq!(ratio("1\n", "0\n"), None);
    }

    /// However many workers, the shares are the bound, and none is empty.
    #[test]
    fn shares_add_up() {
        let crew = |workers| Crew { workers, cpus: Vec::new(), app_calls: Vec::new() };
        for workers in 1..20 {
            for calls in 1..100 {
                let crew = crew(workers).sharing(WorkerCount::Given(workers), Some(calls));
                assert_eq!(
                    (crew.workers, crew.app_calls.len()),
                    (workers.min(calls), crew.workers)
                );
                assert_eq!(crew.app_calls.iter().sum::<usize>(), calls);
                let first = crew.app_calls[0];
                assert!(crew.app_calls.iter().all(|share| *share > 0 && first - share <= 1));
            }
        }
        let auto = |calls| crew(4).sharing(WorkerCount::Auto, calls).workers;
        let counts = [None, Some(1), Some(511), Some(512), Some(1 << 20)].map(auto);
        assert_eq!(counts, [4, 1, 1, 2, 4]);
        assert!(crew(4).sharing(WorkerCount::Auto, None).app_calls.is_empty());
    }
}
