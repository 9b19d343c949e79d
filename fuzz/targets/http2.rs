//! A connection of either role between a peer and an owner who do anything at all: octets, frames
//! with plausible headers, field blocks, and every call of the owner, in any order. What must
//! hold: no panic, and the invariants after each step.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringside::http2::field::{FieldSection, classify_none};
use ringside::http2::{Connection, ErrorCode, Event, Limits, Role, StreamId, Transmit};
use std::time::{Duration, Instant};

/// The peer's fields, as literals: what a request, a response and trailers need.
const BLOCKS: [&[u8]; 6] = [
    b"\x83\x86\x84",
    b"\x82\x87\x84\x40\x01x\x01y",
    b"\x88",
    b"\x08\x03100",
    b"\x00\x01t\x01v",
    b"\x83\x86\x84\x0f\x0d\x015",
];

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn octet(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn octets(&mut self, len: u8) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(usize::from(len).min(self.0.len()));
        self.0 = rest;
        taken
    }
}

fn limits(control: u8) -> Limits {
    let small = control & 1 != 0;
    Limits {
        stream_window: if small { 10 } else { 100_000 },
        connection_window: 65_535,
        max_concurrent_streams: (control & 2 != 0).then_some(2),
        header_list_size: if control & 4 != 0 { 120 } else { 1000 },
        header_table_size: if control & 8 != 0 { 0 } else { 4096 },
        held_bytes_max: if control & 16 != 0 { 0 } else { 1000 },
        resets_burst: 20,
        control_burst: 100,
        control_bytes_max: 4000,
        ..Limits::default()
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    let stream = u32::from(stream & 15).to_be_bytes();
    [&len[1..], &[kind, flags], &stream[..], payload].concat()
}

fn section(control: u8) -> FieldSection {
    let mut fields = FieldSection::new();
    match control & 3 {
        0 => fields.push(b":status", b"200"),
        1 => fields.push(b":status", b"103"),
        2 => fields.push(b":method", b"POST"),
        _ => fields.push(b"grpc-status", b"0"),
    }
    fields
}

/// One thing that the owner may do.
fn act(conn: &mut Connection, what: u8, control: u8, held: &mut [u32; 16]) {
    let stream = StreamId(u32::from(control & 15));
    let end_stream = control & 16 != 0;
    match what {
        0 => drop(conn.open(section(2), end_stream, u64::from(control))),
        1 => conn.send_headers(stream, section(control >> 5), end_stream),
        2 => {
            let len = usize::from(control) * 40;
            // DATA before the head is the owner's mistake, which the engine asserts.
            conn.send_headers(stream, section(0), false);
            conn.send_data(stream, Bytes::from(vec![0; len]), end_stream);
        }
        3 => conn.send_reset(stream, ErrorCode(u32::from(control >> 4))),
        4 => {
            let owed = &mut held[stream.0 as usize];
            let octets = (*owed).min(u32::from(control));
            *owed -= octets;
            conn.release(stream, octets);
        }
        5 => conn.ping([control; 8]),
        6 if control > 250 => conn.goaway(ErrorCode::NO_ERROR, "fuzz"),
        6 if control > 240 => conn.goaway_notice(),
        6 => conn.set_tag(stream, u64::from(control)),
        _ => {
            let spare = conn.spare();
            conn.recycle(spare);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let Some(first) = input.octet() else { return };
    let role = if first & 128 != 0 { Role::Client } else { Role::Server };
    #[allow(clippy::disallowed_methods)] // an arbitrary instant to count from
    let mut now = Instant::now();
    let mut conn = Connection::new(role, limits(first), classify_none, now);
    let mut out = Transmit::new();
    let mut held = [0; 16];
    if first & 64 == 0 {
        if role == Role::Server {
            conn.recv(Bytes::from_static(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), now);
        }
        conn.recv(Bytes::from(frame(4, 0, 0, &[])), now);
    }
    while let Some(control) = input.octet() {
        let argument = input.octet().unwrap_or(0);
        match control >> 5 {
            0 => {
                let octets = Bytes::copy_from_slice(input.octets(argument));
                conn.recv(octets, now);
            }
            1 => {
                let flags = input.octet().unwrap_or(0);
                let payload = input.octets(flags >> 2);
                conn.recv(frame(control & 15, flags, argument, payload).into(), now);
            }
            2 => {
                let block = BLOCKS[usize::from(control & 31) % BLOCKS.len()];
                conn.recv(frame(1, (argument >> 4) & 5, argument, block).into(), now);
            }
            3 => {
                let payload = vec![0; usize::from(control & 31) * 30];
                conn.recv(frame(0, (argument >> 4) & 9, argument, &payload).into(), now);
            }
            4 => conn.poll_transmit(&mut out, usize::from(argument) * 50),
            5 => {
                now += Duration::from_millis(u64::from(argument));
                if conn.poll_timeout().is_some_and(|deadline| deadline <= now) {
                    conn.handle_timeout(now);
                }
            }
            _ => act(&mut conn, control & 7, argument, &mut held),
        }
        while let Some(event) = conn.poll_event() {
            match event {
                Event::Data { stream, data, .. } => {
                    if let Some(owed) = held.get_mut(stream.0 as usize) {
                        *owed += data.len() as u32;
                    }
                }
                Event::Headers { fields, .. } => conn.recycle(fields),
                _ => {}
            }
            conn.check_invariants();
        }
        conn.check_invariants();
        let octets: usize = out.slices().map(<[u8]>::len).sum();
        assert_eq!(octets, out.len);
        out.clear();
        while conn.poll_sent().is_some() {}
    }
});
