//! Messages: in crumbs, beyond windows, too slow, and answers that nobody takes.

use super::line::{Line, Manners};
use super::strike::{Door, Strike};
use super::wire::{
    self, DATA, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, PADDED, WINDOW_MAX, stream_id,
};
use crate::serve;
use crate::serve::message::Counts;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(100);
/// A message's prefix that says 1 MiB.
const PREFIX: [u8; 5] = [0, 0, 16, 0, 0];

fn streaming(on: &Strike<'_>, door: Door, path: &str) -> Vec<u8> {
    let mut block = wire::call_block(&on.call(door, path));
    wire::field(&mut block, b"dapr-stream", b"true");
    block
}

/// One call, and the same DATA on it for ever.
fn crumbs(on: &mut Strike<'_>, flags: u8, payload: &[u8]) {
    let block = streaming(on, Door::Api, serve::COLLECT);
    on.flood(
        Door::Api,
        |out| wire::frame(out, HEADERS, END_HEADERS, 1, &block),
        |out, _| {
            wire::frame(out, DATA, flags, 1, payload);
            true
        },
    );
}

pub fn empty(on: &mut Strike<'_>) {
    crumbs(on, 0, &[]);
}

/// Empty messages, an octet of them in each frame.
pub fn one_octet(on: &mut Strike<'_>) {
    crumbs(on, 0, &[0]);
}

/// No octet, and 255 of padding.
pub fn padding(on: &mut Strike<'_>) {
    let mut payload = [0; 256];
    payload[0] = 255;
    crumbs(on, PADDED, &payload);
}

/// Whole frames, whatever the windows say.
pub fn beyond_windows(on: &mut Strike<'_>) {
    let block = streaming(on, Door::Api, serve::PING_PONG);
    on.flood(
        Door::Api,
        |out| wire::frame(out, HEADERS, END_HEADERS, 1, &block),
        |out, _| {
            wire::frame(out, DATA, 0, 1, &[0; 16 << 10]);
            true
        },
    );
}

/// Messages that say 4 GiB.
pub fn huge_messages(on: &mut Strike<'_>) {
    let block = wire::call_block(&on.call(Door::Api, serve::UNARY));
    on.flood(
        Door::Api,
        |_| (),
        |out, turn| {
            wire::frame(out, HEADERS, END_HEADERS, stream_id(turn), &block);
            wire::frame(out, DATA, 0, stream_id(turn), &[0, 255, 255, 255, 255, 0, 0, 0]);
            true
        },
    );
}

/// A hundred thousand calls that begin and never end.
pub fn endless_calls(on: &mut Strike<'_>) {
    let block = wire::call_block(&on.call(Door::Api, serve::UNARY));
    on.flood(
        Door::Api,
        |_| (),
        |out, turn| {
            wire::frame(out, HEADERS, END_HEADERS, stream_id(turn), &block);
            turn < 100_000
        },
    );
}

/// As many connections, each with as many calls that want 100 MiB.
fn unread(on: &mut Strike<'_>, connections: usize, streams: u32, manners: Manners, window: u32) {
    // 100 MiB, in pieces that cost the app little to make.
    let wanted = Counts { messages: 6400, octets: 16 << 10 }.encode();
    let block = streaming(on, Door::Api, serve::STREAM);
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..connections {
        let settings = [(INITIAL_WINDOW_SIZE, window)];
        let Some(mut line) = on.greeted(Door::Api, &settings) else { break };
        line.manners = manners;
        if window > 0 {
            wire::window_update(&mut line.out, 0, WINDOW_MAX - 65_535);
        }
        for turn in 0..streams {
            wire::frame(&mut line.out, HEADERS, END_HEADERS, stream_id(turn), &block);
            wire::message(&mut line.out, stream_id(turn), &wanted);
        }
        line.heard.units += u64::from(streams);
        line.flush();
        lines.push(line);
    }
    on.hold(&mut lines, TICK, |_, _| ());
}

/// Windows of zero, and everything else in order.
pub fn zero_windows(on: &mut Strike<'_>) {
    unread(on, 4, 250, Manners::Polite, 0);
}

/// Windows of 2 GiB, and a socket that nobody reads.
pub fn unread_socket(on: &mut Strike<'_>) {
    unread(on, 1, 64, Manners::Deaf, WINDOW_MAX);
}

pub fn unread_sockets(on: &mut Strike<'_>) {
    unread(on, 100, 8, Manners::Deaf, WINDOW_MAX);
}

const SLOW_CONNECTIONS: usize = 100;
const SLOW_STREAMS: u32 = 10;

/// Messages of 1 MiB, an octet each 100 ms.
pub fn slow(on: &mut Strike<'_>) {
    let block = wire::call_block(&on.call(Door::Api, serve::UNARY));
    let mut lines: Vec<Line> = Vec::new();
    for _ in 0..SLOW_CONNECTIONS {
        let Some(mut line) = on.greeted(Door::Api, &[]) else { break };
        for turn in 0..SLOW_STREAMS {
            wire::frame(&mut line.out, HEADERS, END_HEADERS, stream_id(turn), &block);
            wire::frame(&mut line.out, DATA, 0, stream_id(turn), &PREFIX);
        }
        line.turn();
        lines.push(line);
    }
    on.hold(&mut lines, TICK, |line, _| {
        line.heard.units += u64::from(SLOW_STREAMS);
        for turn in 0..SLOW_STREAMS {
            wire::frame(&mut line.out, DATA, 0, stream_id(turn), &[0]);
        }
    });
}

/// Large messages to an app that answers as slowly as it likes: 64 at once, 1 MiB each.
pub fn large_requests(on: &mut Strike<'_>) {
    let block = wire::call_block(&on.call(Door::Api, serve::UNARY));
    on.flood(
        Door::Api,
        |out| {
            for turn in 0..64 {
                wire::frame(out, HEADERS, END_HEADERS, stream_id(turn), &block);
                wire::frame(out, DATA, 0, stream_id(turn), &PREFIX);
            }
        },
        |out, turn| {
            wire::frame(out, DATA, 0, stream_id(turn % 64), &[0; 1 << 10]);
            turn < 64 << 10
        },
    );
}
