//! The floor: two hops that only pass bytes on, by our own relay and by HAProxy in TCP mode.

use super::process::Process;
use super::programs::Program;
use super::{Hop, Ingredients, Kind, Ready, Running, StartError, ports};
use std::net::SocketAddr;

pub(super) fn own(app: SocketAddr, ingredients: &Ingredients) -> Result<Running, StartError> {
    let hop = |to: SocketAddr| {
        let at = ports::claim()?;
        let mut command = ingredients.programs.command(Program::Loadtest)?;
        command.args(["relay", "--listen", &at.to_string(), "--to", &to.to_string()]);
        let process = Process::spawn(&ingredients.folder("relay")?, "relay", command)?;
        Ok((at, Hop { process, ready: Ready::Listens(at) }))
    };
    let (middle, inner) = hop(app)?;
    let (entry, outer) = hop(middle)?;
    Ok(Running::new(Kind::Relay, entry, vec![outer, inner]))
}

pub(super) fn haproxy(app: SocketAddr, ingredients: &Ingredients) -> Result<Running, StartError> {
    let hop = |to: SocketAddr| {
        let at = ports::claim()?;
        let command = ingredients.programs.command(Program::Haproxy)?;
        let folder = ingredients.folder("haproxy-tcp")?;
        let process = super::proxies::haproxy_process(&folder, &tcp_mode(at, to), command)?;
        Ok((at, Hop { process, ready: Ready::Listens(at) }))
    };
    let (middle, inner) = hop(app)?;
    let (entry, outer) = hop(middle)?;
    Ok(Running::new(Kind::HaproxyTcp, entry, vec![outer, inner]))
}

/// Reads of 64 KiB, as the relays have: its default of 16 KiB would make bulk dearer.
fn tcp_mode(at: SocketAddr, to: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 8000\n  tune.bufsize 65536\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen hop\n  bind {at}\n  server next {to}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haproxy_is_told_both_ends() {
        let [at, to] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let config = tcp_mode(at, to);
        assert!(config.contains("\n  bind 127.0.0.1:1\n  server next 127.0.0.1:2\n"), "{config}");
        assert!(config.contains("nbthread 1") && config.contains("\n  tune.bufsize 65536\n"));
    }
}
