//! One child process, its log, and its end.
//!
//! 1. A child ends with its [`Process`], and with the thread that started it if that is killed
//!    (`setpriv --pdeathsig` of util-linux, which then becomes the program: one process number).
//! 2. Every wait is bounded, ends early when the child does, and fails with the end of its log.

use super::StartError;
use crate::interrupt;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(2);
const LOG_TAIL_LINES: usize = 12;
const LOG_TAIL_COLUMNS: usize = 300;
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
const ANSWER_OCTETS_MAX: u64 = 4 << 20;

#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

/// `program` such that it dies with the thread that starts it.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

impl Process {
    /// Starts `command`; both its outputs go to `<folder>/<name>.log`.
    pub fn spawn(folder: &Path, name: &str, mut command: Command) -> Result<Self, StartError> {
        let log = folder.join(format!("{name}.log"));
        let out = File::create(&log).map_err(|e| StartError::file(&log, &e))?;
        let err = out.try_clone().map_err(|e| StartError::file(&log, &e))?;
        command.current_dir(folder).stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            StartError::new(format!("cannot start {name}: {program}: {error}"))
        })?;
        Ok(Self { child, name: name.to_owned(), log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Fails when the process has ended.
    pub fn check(&mut self) -> Result<(), StartError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.complaint(&format!("ended ({status})"))),
            Err(error) => Err(self.complaint(&format!("cannot be asked ({error})"))),
        }
    }

    pub fn await_port(&mut self, at: SocketAddr, patience: Duration) -> Result<(), StartError> {
        let what = format!("a listener on {at}");
        self.wait(&what, patience, |_| TcpStream::connect(at).ok().map(drop))
    }

    pub fn await_health(&mut self, at: SocketAddr, patience: Duration) -> Result<(), StartError> {
        let what = format!("http://{at}/v1.0/healthz");
        self.wait(&what, patience, |_| (http_get(at, "/v1.0/healthz")?.0 == 204).then_some(()))
    }

    /// Asks until the answer is there.
    pub fn wait<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut ask: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, StartError> {
        let mut ended = None;
        let answer = until(patience, || {
            ended = self.check().err();
            // Asked once more after the end: the answer may be the process's last words.
            ask(self).map(Some).or_else(|| ended.is_some().then_some(None))
        });
        match (answer.flatten(), ended) {
            (Some(answer), _) => Ok(answer),
            (None, Some(ended)) => Err(ended),
            (None, None) => Err(self.complaint(&format!("has no {what} in {patience:?}"))),
        }
    }

    fn complaint(&self, what: &str) -> StartError {
        let log = self.log();
        let skipped = log.lines().count().saturating_sub(LOG_TAIL_LINES);
        let mut text = format!("{} {what}; the end of {}:", self.name, self.log.display());
        for line in log.lines().skip(skipped) {
            text.push_str("\n  ");
            text.extend(line.chars().take(LOG_TAIL_COLUMNS));
        }
        StartError::new(text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A child that has ended already needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks every few milliseconds until the answer is there; `None` when patience ran out or a
/// signal came.
#[expect(clippy::disallowed_methods, reason = "foreign processes tell nobody when they are ready")]
pub fn until<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > end || interrupt::came() {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// Status and body of `GET path`, if somebody answers HTTP there.
pub fn http_get(at: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_OCTETS_MAX).read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Some((status, body.to_owned()))
}

/// Raises the limit of open files to what is allowed; children inherit it.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Nobody may be kept from a small run by a low limit.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child in a folder of its own, which goes with it.
    struct Shell {
        process: Process,
        folder: PathBuf,
    }

    impl Shell {
        fn new(name: &str, script: &str) -> Self {
            let own = format!("loadtest-process-{}-{name}", std::process::id());
            let folder = std::env::temp_dir().join(own);
            fs::create_dir_all(&folder).unwrap();
            let mut shell = command("sh");
            shell.args(["-c", script]);
            let process = Process::spawn(&folder, name, shell).unwrap();
            Self { process, folder }
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.folder).unwrap();
        }
    }

    #[test]
    fn a_child_ends_with_its_process() {
        let child = Shell::new("ends", "sleep 600");
        let pid = child.process.pid();
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn the_end_of_a_child_is_told_with_its_last_words() {
        let mut child = Shell::new("told", "echo no such option; exit 3");
        let error =
            child.process.wait("port", Duration::from_secs(20), |_| None::<()>).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("ended (exit status: 3)") && error.contains("no such option"));
    }

    #[test]
    fn patience_ends() {
        let mut child = Shell::new("patience", "sleep 600");
        let error =
            child.process.wait("answer", Duration::from_millis(5), |_| None::<()>).unwrap_err();
        assert!(error.to_string().contains("no answer in 5ms"), "{error}");
    }
}
