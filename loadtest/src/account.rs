//! What processes and the machine cost, from the kernel's own books.
//!
//! 1. CPU time of a process is its scheduler clock (`clock_getcpuclockid(3)`): nanoseconds of all
//!    its threads, those that have ended included. Of one thread: `/proc/PID/task/TID/schedstat`.
//! 2. Context switches are those of the threads that are there (`/proc/PID/task/*/status`): a
//!    thread that ended takes its own along.
//! 3. Memory is `smaps_rollup`: resident, of that anonymous, and proportional (shared pages
//!    divided).
//! 4. The machine's CPU time is the root cgroup's `cpuacct` (nanoseconds, each CPU) where there is
//!    one; else `/proc/stat`, in ticks of 10 ms. Neither holds interrupts that hit an idle CPU.
//!
//! Refuses to know whose processes they are.

use nix::time::ClockId;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::ops::Sub;
use std::time::Duration;

/// Totals since the start of processes, or the difference of two such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_ns: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

impl Usage {
    /// The sum over `pids`.
    pub fn of(pids: &[u32]) -> io::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            sum.cpu_ns += cpu_ns(*pid)?;
            for task in tasks(*pid)? {
                // A thread may have ended since it was listed.
                let status = fs::read_to_string(format!("/proc/{pid}/task/{task}/status"));
                let status = status.unwrap_or_default();
                sum.voluntary_switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
                sum.involuntary_switches +=
                    field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
            }
        }
        Ok(sum)
    }
}

impl Sub for Usage {
    type Output = Self;

    /// Saturating: a thread that ended takes its switches along.
    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self
                .involuntary_switches
                .saturating_sub(earlier.involuntary_switches),
        }
    }
}

/// CPU time of all threads that a process has and had.
pub fn cpu_ns(pid: u32) -> io::Result<u64> {
    let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::NotFound)?;
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid))?;
    let elapsed = Duration::from(clock.now()?);
    Ok(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

/// One thread of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    pub id: u32,
    pub name: String,
    pub cpu_ns: u64,
}

/// The threads that a process has now.
pub fn threads(pid: u32) -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for id in tasks(pid)? {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{id}/{name}"));
        if let (Ok(name), Ok(schedstat)) = (read("comm"), read("schedstat")) {
            let cpu_ns = schedstat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
            threads.push(Thread { id, name: name.trim_end().to_owned(), cpu_ns });
        }
    }
    threads.sort_by_key(|thread| thread.id);
    Ok(threads)
}

fn tasks(pid: u32) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub resident: u64,
    pub anonymous: u64,
    /// Pages shared by n processes count one nth.
    pub proportional: u64,
}

impl Memory {
    /// The sum over `pids`.
    pub fn of(pids: &[u32]) -> io::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let octets = |name| field(&text, name).unwrap_or(0) * 1024;
            sum.resident += octets("Rss:");
            sum.anonymous += octets("Anonymous:");
            sum.proportional += octets("Pss:");
        }
        Ok(sum)
    }
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Where the machine's CPU time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nanoseconds.
    Cpuacct,
    /// Ticks of 10 ms.
    Stat,
}

impl Source {
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Cpuacct => "the root cgroup's cpuacct, in nanoseconds",
            Self::Stat => "/proc/stat, in ticks of 10 ms",
        }
    }
}

/// Busy time of each CPU since the start of the machine, or the difference of two such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    pub source: Source,
    pub busy_ns: Vec<u64>,
}

const CPUACCT: &str = "/sys/fs/cgroup/cpuacct/cpuacct.usage_percpu";
const TICK_NS: u64 = 10_000_000;

impl Machine {
    pub fn now() -> io::Result<Self> {
        if let Ok(text) = fs::read_to_string(CPUACCT) {
            let busy_ns: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
            if !busy_ns.is_empty() {
                return Ok(Self { source: Source::Cpuacct, busy_ns });
            }
        }
        let busy_ns = stat_busy_ns(&fs::read_to_string("/proc/stat")?);
        Ok(Self { source: Source::Stat, busy_ns })
    }

    pub fn total_ns(&self) -> u64 {
        self.busy_ns.iter().sum()
    }

    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.busy_ns.iter().zip(&earlier.busy_ns);
        let busy_ns = pairs.map(|(now, then)| now.saturating_sub(*then)).collect();
        Self { source: self.source, busy_ns }
    }
}

/// `cpuN user nice system idle iowait irq softirq steal …`: all but idle, iowait and steal.
fn stat_busy_ns(text: &str) -> Vec<u64> {
    let of_cpu = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        let number = name.strip_prefix("cpu")?;
        (!number.is_empty()).then_some(())?;
        let ticks: Vec<u64> = rest.split_whitespace().flat_map(str::parse).collect();
        let busy = [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at));
        Some(busy.sum::<u64>() * TICK_NS)
    };
    text.lines().filter_map(of_cpu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    /// A child that counts so far, says so, and stays.
    fn burner(turns: u32) -> std::process::Child {
        let script = format!("n=0; while [ $n -lt {turns} ]; do n=$((n+1)); done; echo; read x");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        shell.spawn().unwrap()
    }

    #[test]
    fn what_a_child_burns_is_what_is_counted() {
        let mut child = burner(300_000);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let usage = Usage::of(&[child.id()]).unwrap();
        // The kernel's other book: ticks of 10 ms in fields 14 and 15.
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let fields: Vec<i64> =
            stat.rsplit(") ").next().unwrap().split(' ').flat_map(str::parse).collect();
        // Behind the name and the state, which is no number: 10 numbers, then utime and stime.
        let ticks = u64::try_from(fields[10] + fields[11]).unwrap();
        let differs = usage.cpu_ns.abs_diff(ticks * TICK_NS);
        assert!(usage.cpu_ns > 50_000_000, "{usage:?}");
        assert!(differs <= 2 * TICK_NS, "{} ns against {ticks} ticks", usage.cpu_ns);
        let threads = threads(child.id()).unwrap();
        assert_eq!((threads.len(), threads[0].name.as_str()), (1, "sh"));
        assert!(threads[0].cpu_ns.abs_diff(usage.cpu_ns) < TICK_NS);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(Usage::of(&[child.id()]).is_err(), "a process that is gone is no zero");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "threads that end are what this is about")]
    fn threads_that_ended_are_counted() {
        let before = cpu_ns(std::process::id()).unwrap();
        let burnt = std::thread::spawn(|| {
            let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
            while Duration::from(clock.now().unwrap()) < Duration::from_millis(60) {}
        });
        burnt.join().unwrap();
        assert!(cpu_ns(std::process::id()).unwrap() - before >= 60_000_000);
    }

    #[test]
    fn a_wait_is_a_voluntary_switch() {
        let before = Usage::of(&[std::process::id()]).unwrap();
        let output = Command::new("true").output().unwrap();
        assert!(output.status.success());
        let after = Usage::of(&[std::process::id()]).unwrap() - before;
        assert!(after.voluntary_switches > 0);
    }

    #[test]
    fn memory_is_counted() {
        let memory = Memory::of(&[std::process::id()]).unwrap();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0);
        assert!(memory.proportional <= memory.resident && memory.proportional > 0);
    }

    #[test]
    fn the_machine_is_at_least_as_busy_as_one_thread() {
        let before = Machine::now().unwrap();
        let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
        let end = Duration::from(clock.now().unwrap()) + Duration::from_millis(120);
        while Duration::from(clock.now().unwrap()) < end {}
        let busy = Machine::now().unwrap().since(&before);
        assert!(busy.total_ns() >= 90_000_000, "{busy:?}");
    }

    #[test]
    fn ticks_of_stat_are_summed_without_idle_iowait_and_steal() {
        let text =
            "cpu  3 0 0 9\ncpu0 1 2 4 1000 2000 8 16 32 64 128\ncpu1 1 0 0 5 5 0 0 0\nintr 1\n";
        assert_eq!(stat_busy_ns(text), [31 * TICK_NS, TICK_NS]);
    }
}
