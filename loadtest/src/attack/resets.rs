//! Streams that end too soon: by the caller, by a mistake of his, by his going away.

use super::line::Line;
use super::strike::{Door, Strike};
use super::wire::{self, CANCEL, END_HEADERS, END_STREAM, WINDOW_MAX, stream_id};
use crate::serve;
use std::time::Duration;

/// HEADERS of a right call.
fn ask(out: &mut Vec<u8>, block: &[u8], flags: u8, stream: u32) {
    wire::frame(out, wire::HEADERS, END_HEADERS | flags, stream, block);
}

fn rapid_reset(on: &mut Strike<'_>, door: Door) {
    let block = wire::call_block(&on.call(door, serve::UNARY));
    on.flood(
        door,
        |_| (),
        |out, turn| {
            ask(out, &block, END_STREAM, stream_id(turn));
            wire::reset(out, stream_id(turn), CANCEL);
            true
        },
    );
}

/// CVE-2023-44487.
pub fn rapid(on: &mut Strike<'_>) {
    rapid_reset(on, Door::Api);
}

pub fn rapid_internal(on: &mut Strike<'_>) {
    rapid_reset(on, Door::Internal);
}

/// CVE-2025-8671: after each HEADERS a frame for which the receiver must reset the stream.
fn made(on: &mut Strike<'_>, flags: u8, mut wrong: impl FnMut(&mut Vec<u8>, u32)) {
    let block = wire::call_block(&on.call(Door::Api, serve::UNARY));
    on.flood(
        Door::Api,
        |_| (),
        |out, turn| {
            ask(out, &block, flags, stream_id(turn));
            wrong(out, stream_id(turn));
            true
        },
    );
}

pub fn made_by_window_overflow(on: &mut Strike<'_>) {
    made(on, 0, |out, stream| wire::window_update(out, stream, WINDOW_MAX));
}

pub fn made_by_window_of_zero(on: &mut Strike<'_>) {
    made(on, 0, |out, stream| wire::window_update(out, stream, 0));
}

pub fn made_by_short_priority(on: &mut Strike<'_>) {
    made(on, 0, |out, stream| wire::frame(out, wire::PRIORITY, 0, stream, &[0; 4]));
}

pub fn made_by_own_dependency(on: &mut Strike<'_>) {
    made(on, 0, |out, stream| {
        let mut payload = stream.to_be_bytes().to_vec();
        payload.push(0);
        wire::frame(out, wire::PRIORITY, 0, stream, &payload);
    });
}

pub fn made_by_data_after_the_end(on: &mut Strike<'_>) {
    made(on, END_STREAM, |out, stream| wire::frame(out, wire::DATA, 0, stream, b"late"));
}

/// Streams that end without the message they promised.
pub fn made_by_wrong_length(on: &mut Strike<'_>) {
    let mut block = wire::call_block(&on.call(Door::Api, serve::UNARY));
    wire::field(&mut block, b"content-length", b"100");
    on.flood(
        Door::Api,
        |_| (),
        |out, turn| {
            ask(out, &block, END_STREAM, stream_id(turn));
            true
        },
    );
}

const VANISHING: usize = 16;
const STREAMS_EACH: u32 = 160;
const HELD: Duration = Duration::from_millis(50);

/// Clients with open calls close their sockets, all at once, again and again.
pub fn vanish(on: &mut Strike<'_>) {
    let mut block = wire::call_block(&on.call(Door::Api, serve::PING_PONG));
    wire::field(&mut block, b"dapr-stream", b"true");
    while on.goes_on() {
        let mut lines: Vec<Line> = Vec::new();
        for _ in 0..VANISHING {
            let Some(mut line) = on.greeted(Door::Api, &[]) else { return };
            for turn in 0..STREAMS_EACH {
                ask(&mut line.out, &block, 0, stream_id(turn));
            }
            line.heard.units += u64::from(STREAMS_EACH);
            line.flush();
            lines.push(line);
        }
        // Long enough for the calls to reach the app.
        for line in &mut lines {
            line.listen(HELD / VANISHING as u32);
        }
        super::strike::pause(HELD);
    }
}
