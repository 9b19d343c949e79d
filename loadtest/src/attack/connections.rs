//! Connections: silent ones, idle ones, short ones.

use super::line::{Line, Manners};
use super::strike::{Door, Strike};
use super::wire;
use std::net::TcpStream;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(250);
/// Of one attack at once.
const IDLE: usize = 5000;
const SILENT: usize = 2000;

/// They never say a word.
pub fn silent(on: &mut Strike<'_>) {
    bare(on, Door::Api, SILENT, &[]);
}

/// They say the preface, an octet each 250 ms.
pub fn slow_preface(on: &mut Strike<'_>) {
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..SILENT / 2 {
        let Some(mut line) = on.silent(Door::Api) else { break };
        line.manners = Manners::Rude;
        lines.push(line);
    }
    on.hold(&mut lines, TICK, |line, round| {
        line.heard.units += 1;
        line.out.extend(wire::PREFACE.get(round));
    });
}

/// They say what they must, and no more.
pub fn idle(on: &mut Strike<'_>) {
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..IDLE {
        let Some(mut line) = on.greeted(Door::Api, &[]) else { break };
        line.heard.units += 1;
        line.turn();
        lines.push(line);
    }
    on.hold(&mut lines, TICK, |_, _| ());
}

/// They come and go.
pub fn churn(on: &mut Strike<'_>) {
    while let Some(mut line) = on.greeted(Door::Api, &[]) {
        line.heard.units += 1;
        line.turn();
    }
}

/// Bare sockets that have said so much.
pub fn bare(on: &mut Strike<'_>, door: Door, count: usize, octets: &[u8]) {
    let mut sockets: Vec<TcpStream> = Vec::new();
    for _ in 0..count {
        let Some(mut socket) = on.socket(door) else { break };
        // Whoever closes at the first octets is right.
        let _ = std::io::Write::write_all(&mut socket, octets);
        on.count(1);
        sockets.push(socket);
    }
    on.hold(&mut [], TICK, |_, _| ());
    on.count_closed(&sockets);
}
