//! What an app can do to its sidecar, and to whoever calls it.

use super::app::{State, answer};
use super::headers::{in_frames, padding};
use super::line::{Line, Manners};
use super::strike::{Door, Strike, pause};
use super::wire::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, MAX_CONCURRENT_STREAMS, NEWEST,
};
use crate::serve;
use std::time::Duration;

const CALLERS: usize = 4;
const CALLS_EACH: u64 = 32;
const PAUSE: Duration = Duration::from_millis(1);
/// Frames of a flood for each request.
const FLOOD: u32 = 10_000;

/// The calls that the app answers in its way: a few connections, each with a few calls in flight.
fn calls(on: &mut Strike<'_>, octets: usize) {
    let block = wire::call_block(&on.call(Door::Api, serve::UNARY));
    let body = vec![b'a'; octets];
    let mut lines: Vec<Line> = Vec::new();
    while on.goes_on() {
        lines.retain(|line| !line.was_closed());
        while lines.len() < CALLERS {
            let Some(line) = on.greeted(Door::Api, &[]) else { return };
            lines.push(line);
        }
        for line in &mut lines {
            while line.outstanding(line.heard.units) < CALLS_EACH {
                let stream = wire::stream_id(line.heard.units as u32);
                wire::frame(&mut line.out, HEADERS, END_HEADERS, stream, &block);
                in_data(&mut line.out, stream, &body);
                line.heard.units += 1;
            }
            line.turn();
        }
        pause(PAUSE);
    }
}

fn in_data(out: &mut Vec<u8>, stream: u32, body: &[u8]) {
    let framed = crate::framing::frame(body);
    let mut pieces = framed.chunks(16 << 10).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_STREAM } else { 0 };
        wire::frame(out, DATA, flags, stream, piece);
    }
}

pub fn small_calls(on: &mut Strike<'_>) {
    calls(on, 100);
}

/// Within the first windows of each stream, so that nobody is asked for more.
pub fn large_calls(on: &mut Strike<'_>) {
    calls(on, 60 << 10);
}

/// The same octets so often, as long as the sidecar listens.
fn repeat(line: &mut Line, count: u32, state: &State, octets: &[u8]) {
    for _ in 0..count {
        line.out.extend_from_slice(octets);
        if !state.is_armed() || !line.flush_batch() {
            return;
        }
    }
}

fn flood(line: &mut Line, stream: u32, state: &State, kind: u8, payload: &[u8]) {
    let mut octets = Vec::new();
    wire::frame(&mut octets, kind, 0, 0, payload);
    repeat(line, FLOOD, state, &octets);
    answer(line, stream);
}

pub fn pings(line: &mut Line, stream: u32, state: &State) {
    flood(line, stream, state, wire::PING, b"ping-eat");
}

pub fn settings(line: &mut Line, stream: u32, state: &State) {
    flood(line, stream, state, wire::SETTINGS, &[]);
}

pub fn window_updates(line: &mut Line, stream: u32, state: &State) {
    flood(line, stream, state, wire::WINDOW_UPDATE, &1_u32.to_be_bytes());
}

pub fn goaways(line: &mut Line, stream: u32, state: &State) {
    let last = [stream.to_be_bytes(), [0; 4]].concat();
    flood(line, stream, state, wire::GOAWAY, &last);
}

/// One GOAWAY after each answer: no connection serves twice.
pub fn leaves(line: &mut Line, stream: u32, _: &State) {
    answer(line, stream);
    let last = [stream.to_be_bytes(), [0; 4]].concat();
    wire::frame(&mut line.out, wire::GOAWAY, 0, 0, &last);
}

pub fn resets(line: &mut Line, stream: u32, _: &State) {
    wire::reset(&mut line.out, stream, 0x2);
}

/// REFUSED_STREAM: the call may be tried again.
pub fn refuses(line: &mut Line, stream: u32, _: &State) {
    wire::reset(&mut line.out, stream, 0x7);
}

pub fn endless_head(line: &mut Line, stream: u32, state: &State) {
    wire::frame(&mut line.out, HEADERS, 0, stream, &wire::answer_block());
    let mut octets = Vec::new();
    wire::frame(&mut octets, CONTINUATION, 0, stream, &padding(16 << 10));
    repeat(line, u32::MAX, state, &octets);
}

/// 103 Early Hints for ever.
pub fn endless_hints(line: &mut Line, stream: u32, state: &State) {
    let mut octets = Vec::new();
    wire::frame(&mut octets, HEADERS, END_HEADERS, stream, b"\x08\x03103");
    repeat(line, u32::MAX, state, &octets);
}

/// A message of 4 GiB, in whole frames, whatever the windows say.
pub fn beyond_windows(line: &mut Line, stream: u32, state: &State) {
    wire::frame(&mut line.out, HEADERS, END_HEADERS, stream, &wire::answer_block());
    wire::frame(&mut line.out, DATA, 0, stream, &[0, 255, 255, 255, 255]);
    let mut octets = Vec::new();
    wire::frame(&mut octets, DATA, 0, stream, &[0; 16 << 10]);
    repeat(line, u32::MAX, state, &octets);
}

/// Messages of no octet, an octet of them in each frame.
pub fn crumbs(line: &mut Line, stream: u32, state: &State) {
    wire::frame(&mut line.out, HEADERS, END_HEADERS, stream, &wire::answer_block());
    let mut octets = Vec::new();
    wire::frame(&mut octets, DATA, 0, stream, &[0]);
    repeat(line, FLOOD, state, &octets);
    wire::frame(&mut line.out, HEADERS, END_HEADERS | END_STREAM, stream, &wire::ok_block());
}

pub fn empty_data(line: &mut Line, stream: u32, state: &State) {
    wire::frame(&mut line.out, HEADERS, END_HEADERS, stream, &wire::answer_block());
    let mut octets = Vec::new();
    wire::frame(&mut octets, DATA, 0, stream, &[]);
    repeat(line, u32::MAX, state, &octets);
}

pub fn huge_trailers(line: &mut Line, stream: u32, _: &State) {
    wire::frame(&mut line.out, HEADERS, END_HEADERS, stream, &wire::answer_block());
    let block = [wire::ok_block(), padding(2 << 20)].concat();
    in_frames(&mut line.out, stream, END_STREAM, &block);
}

/// 780 KB of fields from 0.3 KB, in each answer.
pub fn small_bomb(line: &mut Line, stream: u32, _: &State) {
    let mut block = wire::answer_block();
    wire::kept_field(&mut block, b"x-large", &[b'a'; 3_900]);
    block.extend_from_slice(&[NEWEST; 200]);
    wire::frame(&mut line.out, HEADERS, END_HEADERS, stream, &block);
    wire::frame(&mut line.out, HEADERS, END_HEADERS | END_STREAM, stream, &wire::ok_block());
}

/// No answer at all.
pub fn silent(_: &mut Line, _: u32, _: &State) {}

/// Reads no more; requests pile up on the way to it.
pub fn deaf(line: &mut Line, _: u32, state: &State) {
    line.manners = Manners::Deaf;
    while state.is_armed() && line.is_open() {
        pause(Duration::from_millis(20));
    }
}

/// No further stream is welcome.
pub fn closes_up(line: &mut Line, stream: u32, _: &State) {
    wire::settings(&mut line.out, &[(MAX_CONCURRENT_STREAMS, 0)]);
    wire::reset(&mut line.out, stream, 0x7);
}

/// Closes the socket at each request.
pub fn hangs_up(line: &mut Line, _: u32, _: &State) {
    line.hang_up();
}

pub fn no_http2(line: &mut Line, _: u32, _: &State) {
    line.out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
}
