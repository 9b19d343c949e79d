//! Field blocks: too long, too many, too well compressed, never ended.

use super::line::{Line, Manners};
use super::strike::{Door, Strike};
use super::wire::{self, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, NEWEST, stream_id};
use crate::serve;
use std::time::Duration;

/// The largest frame that everybody takes.
const FRAME_OCTETS: usize = 16 << 10;

fn call(on: &Strike<'_>) -> Vec<u8> {
    wire::call_block(&on.call(Door::Api, serve::UNARY))
}

/// A block in HEADERS and as many CONTINUATION frames as it takes.
pub fn in_frames(out: &mut Vec<u8>, stream: u32, flags: u8, block: &[u8]) {
    let mut pieces = block.chunks(FRAME_OCTETS).peekable();
    let (mut kind, mut flags) = (HEADERS, flags);
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        wire::frame(out, kind, flags | end, stream, piece);
        (kind, flags) = (CONTINUATION, 0);
    }
}

/// Fields of about a thousand octets, so many octets in all.
pub fn padding(octets: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets);
    for number in 0..octets / 1000 {
        wire::field(&mut out, format!("x-{number}").as_bytes(), &[b'a'; 988]);
    }
    out
}

/// One block for ever: each CONTINUATION full of fields, or empty. Rude, since an acknowledgement
/// amid a block would be the end of it.
fn endless(on: &mut Strike<'_>, door: Door, piece: &[u8]) {
    let block = wire::call_block(&on.call(door, serve::UNARY));
    while let Some(mut line) = on.greeted(door, &[]) {
        line.manners = Manners::Rude;
        wire::frame(&mut line.out, HEADERS, 0, 1, &block);
        while line.flush_batch() {
            wire::frame(&mut line.out, CONTINUATION, 0, 1, piece);
            line.heard.units += 1;
        }
    }
}

pub fn endless_full(on: &mut Strike<'_>) {
    endless(on, Door::Api, &padding(FRAME_OCTETS));
}

pub fn endless_empty(on: &mut Strike<'_>) {
    endless(on, Door::Api, &[]);
}

pub fn endless_internal(on: &mut Strike<'_>) {
    endless(on, Door::Internal, &padding(FRAME_OCTETS));
}

/// Each stream begins with this block.
fn each(on: &mut Strike<'_>, block: &[u8]) {
    on.flood(
        Door::Api,
        |_| (),
        |out, turn| {
            in_frames(out, stream_id(turn), END_STREAM, block);
            true
        },
    );
}

/// Ended blocks below the limit, each in four frames.
pub fn large(on: &mut Strike<'_>) {
    let block = [call(on), padding(60 << 10)].concat();
    each(on, &block);
}

pub fn too_large(on: &mut Strike<'_>) {
    let block = [call(on), padding(2 << 20)].concat();
    each(on, &block);
}

pub fn many_fields(on: &mut Strike<'_>) {
    let mut block = call(on);
    for _ in 0..10_000 {
        wire::field(&mut block, b"a", b"");
    }
    each(on, &block);
}

const ENTRY_OCTETS: usize = 3_900;

/// One large entry in the table, and so many references to it in each block.
fn references(on: &mut Strike<'_>, count: usize) {
    let call = call(on);
    let first = {
        let mut block = call.clone();
        wire::kept_field(&mut block, b"x-large", &[b'a'; ENTRY_OCTETS]);
        block
    };
    let block = [call, vec![NEWEST; count]].concat();
    on.flood(
        Door::Api,
        |out| in_frames(out, 1, END_STREAM, &first),
        |out, turn| {
            in_frames(out, stream_id(turn + 1), END_STREAM, &block);
            true
        },
    );
}

/// 62 MB from 16 KiB.
pub fn bomb(on: &mut Strike<'_>) {
    references(on, 16_000);
}

/// Below every limit of size: 780 KB from 0.3 KB.
pub fn small_bomb(on: &mut Strike<'_>) {
    references(on, 200);
}

/// What a call carries anyway, once: 4 KB from 0.1 KB.
pub fn amplified(on: &mut Strike<'_>) {
    references(on, 1);
}

const HELD_STREAMS: u32 = 1000;

/// As the bomb below the limits, on calls that never end and whose answers may not be sent.
pub fn held_bomb(on: &mut Strike<'_>) {
    let mut block = call(on);
    let Some(mut line) = on.greeted(Door::Api, &[(wire::INITIAL_WINDOW_SIZE, 0)]) else { return };
    wire::kept_field(&mut block, b"x-large", &[b'a'; ENTRY_OCTETS]);
    in_frames(&mut line.out, 1, 0, &block);
    let block = [call(on), vec![NEWEST; 200]].concat();
    for turn in 1..=HELD_STREAMS {
        in_frames(&mut line.out, stream_id(turn), 0, &block);
        line.heard.units += 1;
        if !line.flush_batch() {
            break;
        }
    }
    line.flush();
    let mut lines: [Line; 1] = [line];
    on.hold(&mut lines, Duration::from_millis(50), |_, _| ());
}

/// An index that goes on for a thousand octets.
pub fn huge_integers(on: &mut Strike<'_>) {
    let block = [call(on), vec![0xff; 1000]].concat();
    each(on, &block);
}

/// A string of 2⁶⁰ octets.
pub fn huge_string(on: &mut Strike<'_>) {
    let mut block = call(on);
    block.push(0);
    wire::integer(&mut block, 0, 7, 1 << 60);
    block.extend_from_slice(&[b'a'; 1000]);
    each(on, &block);
}

/// Nothing but table size updates before the call, 0 and 4,096 in turn.
pub fn table_sizes(on: &mut Strike<'_>) {
    let mut block = Vec::new();
    for turn in 0..4000 {
        wire::table_size(&mut block, if turn % 2 == 0 { 0 } else { 4096 });
    }
    block.extend_from_slice(&call(on));
    each(on, &block);
}

pub fn empty_blocks(on: &mut Strike<'_>) {
    on.flood(
        Door::Api,
        |_| (),
        |out, turn| {
            wire::frame(out, HEADERS, END_HEADERS | END_STREAM, stream_id(turn), &[]);
            true
        },
    );
}

/// Second HEADERS that end nothing, on each stream.
pub fn trailers_without_end(on: &mut Strike<'_>) {
    let block = call(on);
    on.flood(
        Door::Api,
        |_| (),
        |out, turn| {
            wire::frame(out, HEADERS, END_HEADERS, stream_id(turn), &block);
            wire::frame(out, HEADERS, END_HEADERS, stream_id(turn), &[]);
            true
        },
    );
}

const SLOW_CONNECTIONS: usize = 500;

/// Blocks that never end: an octet each 100 ms.
pub fn slow(on: &mut Strike<'_>) {
    let block = call(on);
    let mut lines = Vec::new();
    for _ in 0..SLOW_CONNECTIONS {
        let Some(mut line) = on.greeted(Door::Api, &[]) else { break };
        line.manners = Manners::Rude;
        wire::frame(&mut line.out, HEADERS, 0, 1, &block);
        line.turn();
        lines.push(line);
    }
    on.hold(&mut lines, Duration::from_millis(100), |line, _| {
        line.heard.units += 1;
        wire::frame(&mut line.out, CONTINUATION, 0, 1, &[0]);
    });
}
