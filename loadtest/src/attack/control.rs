//! Frames that carry nothing: floods of them, wrong ones, unknown ones.

use super::line::Manners;
use super::strike::{Door, Strike};
use super::wire::{
    self, END_HEADERS, END_STREAM, HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, WINDOW_MAX, stream_id,
};
use crate::serve;
use crate::serve::message::Counts;
use std::io::Write;
use std::time::Duration;

/// The same frame for ever.
fn frames(on: &mut Strike<'_>, kind: u8, flags: u8, payload: &[u8]) {
    on.flood(
        Door::Api,
        |_| (),
        |out, _| {
            wire::frame(out, kind, flags, 0, payload);
            true
        },
    );
}

pub fn pings(on: &mut Strike<'_>) {
    frames(on, wire::PING, 0, b"ping-eat");
}

pub fn settings(on: &mut Strike<'_>) {
    frames(on, wire::SETTINGS, 0, &[]);
}

pub fn acknowledgements(on: &mut Strike<'_>) {
    frames(on, wire::SETTINGS, wire::ACK, &[]);
}

pub fn window_updates(on: &mut Strike<'_>) {
    frames(on, wire::WINDOW_UPDATE, 0, &1_u32.to_be_bytes());
}

pub fn window_overflows(on: &mut Strike<'_>) {
    frames(on, wire::WINDOW_UPDATE, 0, &WINDOW_MAX.to_be_bytes());
}

pub fn unknown(on: &mut Strike<'_>) {
    frames(on, 0xbe, 0xff, &[0xaa; 8]);
}

pub fn goaways(on: &mut Strike<'_>) {
    frames(on, wire::GOAWAY, 0, &[0; 8]);
}

/// On streams that nobody opened.
pub fn priorities(on: &mut Strike<'_>) {
    on.flood(
        Door::Api,
        |_| (),
        |out, turn| {
            let payload = [0, 0, 0, 0, turn as u8];
            wire::frame(out, wire::PRIORITY, 0, stream_id(turn), &payload);
            true
        },
    );
}

/// PINGs whose answers nobody reads.
pub fn unread_pings(on: &mut Strike<'_>) {
    while let Some(mut line) = on.greeted(Door::Api, &[]) {
        line.manners = Manners::Deaf;
        while line.flush_batch() {
            wire::frame(&mut line.out, wire::PING, 0, 0, b"ping-eat");
            line.heard.units += 1;
        }
    }
}

const WAITING_STREAMS: u32 = 1000;

/// Each SETTINGS changes the windows of a thousand streams that have answers to send.
pub fn settings_with_windows(on: &mut Strike<'_>) {
    let wanted = Counts { messages: 100, octets: 1 << 10 }.encode();
    let block = wire::call_block(&on.call(Door::Api, serve::STREAM));
    let open = |out: &mut Vec<u8>| {
        wire::settings(out, &[(INITIAL_WINDOW_SIZE, 0)]);
        for turn in 0..WAITING_STREAMS {
            wire::frame(out, wire::HEADERS, END_HEADERS, stream_id(turn), &block);
            wire::message(out, stream_id(turn), &wanted);
        }
    };
    on.flood(Door::Api, open, |out, turn| {
        wire::settings(out, &[(INITIAL_WINDOW_SIZE, turn % 2)]);
        true
    });
}

/// Each SETTINGS gives our decoder's table another size, from nothing to 4 GiB.
pub fn settings_with_tables(on: &mut Strike<'_>) {
    on.flood(
        Door::Api,
        |_| (),
        |out, turn| {
            let size = if turn % 2 == 0 { 0 } else { u32::MAX };
            wire::settings(out, &[(HEADER_TABLE_SIZE, size)]);
            true
        },
    );
}

/// A frame that says 16 MiB, and as much of it as is taken.
pub fn oversized(on: &mut Strike<'_>) {
    let block = wire::call_block(&on.call(Door::Api, serve::UNARY));
    on.flood(
        Door::Api,
        |out| {
            wire::frame(out, wire::HEADERS, END_HEADERS, 1, &block);
            wire::head(out, (1 << 24) - 1, wire::DATA, 0, 1);
        },
        |out, turn| {
            out.extend_from_slice(&[0; 1 << 10]);
            turn < 16 << 10
        },
    );
}

/// Frames on streams where they cannot be; each ends its connection.
pub fn wrong_streams(on: &mut Strike<'_>) {
    let block = wire::call_block(&on.call(Door::Api, serve::UNARY));
    let mut round = 0;
    on.flood(
        Door::Api,
        |_| (),
        |out, _| {
            let head = END_HEADERS | END_STREAM;
            round += 1;
            match round % 6 {
                0 => wire::frame(out, wire::HEADERS, head, 0, &block),
                1 => wire::frame(out, wire::HEADERS, head, 2, &block),
                2 => wire::frame(out, wire::DATA, 0, 0, b"x"),
                3 => wire::frame(out, wire::DATA, 0, 9, b"x"),
                4 => wire::reset(out, 9, wire::CANCEL),
                _ => {
                    wire::frame(out, wire::HEADERS, head, 9, &block);
                    wire::frame(out, wire::HEADERS, head, 7, &block);
                }
            }
            true
        },
    );
}

/// What is no HTTP/2 at all: HTTP/1.1, TLS, noise.
pub fn no_http2(on: &mut Strike<'_>) {
    let greetings: [&[u8]; 3] = [
        b"POST /loadtest.Echo/Unary HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0xa5; 512],
    ];
    let mut turn = 0;
    while let Some(mut socket) = on.socket(Door::Api) {
        // Whoever closes at the first octets is right.
        let written = socket.write_all(greetings[turn % greetings.len()]);
        let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
        let mut answer = [0; 512];
        let _ = written.and_then(|()| std::io::Read::read(&mut socket, &mut answer));
        on.count(1);
        turn += 1;
    }
}
