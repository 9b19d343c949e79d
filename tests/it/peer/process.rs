//! One child process, its log, and its end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take to get ready or to end; two shared cores are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What AddressSanitizer may add to a process's RSS: it keeps in quarantine what was freed.
pub const QUARANTINE_KIB: usize = if cfg!(ringside_asan) { 512 << 10 } else { 0 };
const POLL: Duration = Duration::from_millis(10);
const LOG_TAIL_LINES: usize = 40;
const LOG_TAIL_COLUMNS: usize = 400;

/// Asks until the answer is there; `None` when [`PATIENCE`] ran out.
pub fn until<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > end {
            return None;
        }
        sleep(POLL);
    }
}

/// A command that dies with the thread that starts it, whatever happens to the test run.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.env("DAPR_HOST_IP", "127.0.0.1");
    // Where ringsides have their admin sockets: not where the user's own are.
    command.env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"));
    command
}

#[derive(Debug)]
pub struct Process {
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; both its outputs go to `<folder>/<name>.log`.
    pub fn start(folder: &Path, name: &str, mut command: Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let out = File::create(&log).expect("a log file");
        let err = out.try_clone().expect("a second handle of the log");
        let child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name} with setpriv (util-linux): {e}"));
        Self { name: name.to_owned(), child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has in memory, while it runs.
    pub fn rss_kib(&self) -> usize {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its RSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Asks until the answer is there; fails when the process ends or patience does.
    pub fn wait<T>(&mut self, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        let mut over = None;
        let answer = until(|| {
            let ended = self.child.try_wait().ok().flatten();
            let answer = ask(self);
            // A last look after the end: the answer may be the process's last words.
            match (answer, ended) {
                (Some(answer), _) => Some(Some(answer)),
                (None, Some(status)) => {
                    over = Some(status);
                    Some(None)
                }
                (None, None) => None,
            }
        });
        match (answer.flatten(), over) {
            (Some(answer), _) => answer,
            (None, Some(status)) => {
                panic!("{} ended ({status}) before {what}\n{}", self.name, self.tail())
            }
            (None, None) => panic!("{}: no {what} in {PATIENCE:?}\n{}", self.name, self.tail()),
        }
    }

    /// Waits for a line of the log that holds `text`, and gives that line.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        self.wait(&format!("line with {text:?}"), |process| {
            process.log().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// Waits for the process to end by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        match until(|| self.child.try_wait().ok().flatten()) {
            Some(status) => status,
            None => panic!("{} did not end in {PATIENCE:?}\n{}", self.name, self.tail()),
        }
    }

    /// SIGTERM, and then its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait_for_end()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // A process that has ended already needs no signal.
        let _ = rustix::process::kill_process(pid, signal);
    }

    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn tail(&self) -> String {
        let log = self.log();
        let skipped = log.lines().count().saturating_sub(LOG_TAIL_LINES);
        let mut tail = format!("--- {} ---", self.log.display());
        for line in log.lines().skip(skipped) {
            tail.push('\n');
            tail.extend(line.chars().take(LOG_TAIL_COLUMNS));
        }
        tail
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}
