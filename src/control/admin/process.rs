//! What Linux says of this process, for the `process_*` series.
//!
//! Source: proc(5): `/proc/self/{stat,limits,fd}`, `/proc/stat`.

use crate::observe::exposition::Process;
use std::fs;

/// `None` without a readable `/proc`.
pub fn process() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let open_fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    parse(&stat, &limits, &boot, open_fds)
}

fn parse(stat: &str, limits: &str, boot: &str, open_fds: u64) -> Option<Process> {
    // The second field is a name in parentheses that may hold anything; the third is next.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let booted = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
    let fds_max = limits.lines().find_map(|line| {
        line.strip_prefix("Max open files")?.split_ascii_whitespace().next()?.parse().ok()
    });
    Some(Process {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        resident_octets: field(24)? * rustix::param::page_size() as u64,
        virtual_octets: field(23)?,
        open_fds,
        fds_max: fds_max.unwrap_or(0),
        threads: field(20)?,
        start_seconds: booted.unwrap_or(0.0) + field(22)? as f64 / ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stat_line() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 5 0 0 0 100 50 0 0 20 0 4 0 1000 8192 3 1 1";
        let limits = "Max open files            1024                 4096      files\n";
        let read = parse(stat, limits, "btime 1000000\n", 9).unwrap();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(read.cpu_seconds, 150.0 / ticks);
        assert_eq!(read.threads, 4);
        assert_eq!(read.virtual_octets, 8192);
        assert_eq!(read.resident_octets, 3 * rustix::param::page_size() as u64);
        assert_eq!((read.open_fds, read.fds_max), (9, 1024));
        assert_eq!(read.start_seconds, 1_000_000.0 + 1000.0 / ticks);
        assert!(process().is_some_and(|me| me.resident_octets > 0 && me.open_fds > 0));
    }
}
