//! A network of the test's own, for mDNS and fixed ports.
//!
//! The test binary runs the one test again inside new network and process namespaces: everything
//! that it starts is inside too, and nothing outlives it.

use super::process::command;
use std::env;

const INSIDE: &str = "RINGSIDE_TEST_INSIDE";

/// Loopback with multicast, as mDNS needs it. The shell stays, as the namespace's process 1.
const SETUP: &str = "ip link set lo up && ip link set lo multicast on \
    && ip route add 224.0.0.0/4 dev lo && \"$0\" \"$@\"; exit $?";

/// How long a test may take inside; its own waits end long before.
const LIMIT_S: &str = "240";

/// Runs `body` in a network of its own. `name` is the test's full name.
#[macro_export]
macro_rules! isolated {
    ($name:literal, $body:block) => {
        $crate::peer::netns::isolated(concat!(module_path!(), "::", $name), || $body)
    };
}

/// Names this test run: the process number that the host sees, inside as well.
pub fn run_id() -> String {
    env::var(INSIDE).unwrap_or_else(|_| std::process::id().to_string())
}

pub fn isolated(path: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let name = path.split_once("::").map_or(path, |(_crate, name)| name);
    let mut run = command("timeout");
    run.args([LIMIT_S, "unshare"]);
    if !rustix::process::geteuid().is_root() {
        run.arg("--map-root-user");
    }
    run.args(["--net", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", SETUP]);
    run.arg(env::current_exe().expect("the path of this test binary"));
    run.args([name, "--exact", "--nocapture"]).env(INSIDE, std::process::id().to_string());
    let done = run.output().expect("setpriv, timeout and unshare (util-linux, coreutils) run");
    let said = String::from_utf8_lossy(&done.stdout);
    let complained = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success() && said.contains("1 passed"),
        "inside its own network (needs unshare and ip: Debian util-linux, iproute2), {name} \
         ended with {}\n{said}\n{complained}",
        done.status,
    );
}
