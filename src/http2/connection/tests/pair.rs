//! A client and a server in memory, joined by two pipes that cut, delay and deliver octets as a
//! seed says. The server echoes; both sides cancel now and then.
//!
//! Each step checks the invariants of both; the end checks that every call that nobody cancelled
//! came back whole, that nothing is left anywhere, and that both agree on the windows.

use super::*;
use crate::http2::OpenError;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
enum Fragments {
    Octets,
    Random,
    Whole,
}

/// Octets on their way in one direction.
#[derive(Default)]
struct Pipe {
    octets: Vec<u8>,
    stalled_for: u64,
}

/// What the client knows of a call.
#[derive(Debug, Default)]
struct Call {
    sent: Vec<u8>,
    to_send: usize,
    ended: bool,
    received: Vec<u8>,
    held: usize,
    answered: bool,
    /// Somebody cancelled, refused or failed it.
    broken: bool,
    complete: bool,
}

/// What the server knows of a call.
#[derive(Debug, Default)]
struct Echo {
    /// Sent back and not yet handed out: as many octets are still held.
    owed: u32,
}

struct Pair {
    seed: Seed,
    now: Instant,
    fragments: Fragments,
    client: Connection,
    server: Connection,
    up: Pipe,
    down: Pipe,
    calls: BTreeMap<u32, Call>,
    echoes: BTreeMap<u32, Echo>,
    /// Request heads that the client's owner keeps, by their tags.
    lent: BTreeMap<Tag, FieldSection>,
    cancels: bool,
}

fn limits(seed: &mut Seed) -> Limits {
    Limits {
        stream_window: seed.pick(&[1, 100, 30_000, 65_535, 256 << 10]),
        connection_window: seed.pick(&[65_535, 100_000, 4 << 20]),
        held_bytes_max: seed.pick(&[0, 1000, 16 << 20]),
        max_concurrent_streams: seed.pick(&[None, Some(1), Some(7)]),
        header_table_size: seed.pick(&[0, 100, 4096, 16_384]),
        encoder_table_size_max: seed.pick(&[0, 200, 4096]),
        max_frame_size: seed.pick(&[16_384, 100_000]),
        resets_burst: u32::MAX,
        control_burst: u32::MAX,
        ..Limits::default()
    }
}

impl Pair {
    fn new(number: u64) -> Self {
        let mut seed = Seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let now = start();
        let (ours, theirs) = (limits(&mut seed), limits(&mut seed));
        let fragments = seed.pick(&[Fragments::Octets, Fragments::Random, Fragments::Whole]);
        let cancels = seed.one_in(2);
        Self {
            seed,
            now,
            fragments,
            client: Connection::new(Role::Client, ours, classify_none, now),
            server: Connection::new(Role::Server, theirs, classify_none, now),
            up: Pipe::default(),
            down: Pipe::default(),
            calls: BTreeMap::new(),
            echoes: BTreeMap::new(),
            lent: BTreeMap::new(),
            cancels,
        }
    }

    fn open(&mut self) {
        let number = self.calls.len();
        let value = format!("value-{}", number % 5);
        let mut fields = section(&REQUEST);
        fields.push(b"x-some", value.as_bytes());
        let window = self.client.limits.stream_window.min(self.server.limits.stream_window);
        let most = window as usize * 20;
        let to_send = self.seed.pick(&[0, 0, 1, 10, 1000, 3000]).min(most);
        let bare = to_send == 0 && self.seed.one_in(2);
        let tag = number as u64;
        let opened = if self.seed.one_in(2) {
            let opened = self.client.open_lent(&fields, bare, tag);
            self.lent.insert(tag, fields);
            opened
        } else {
            self.client.open(fields, bare, tag)
        };
        match opened {
            Ok(id) => {
                assert!(id.0 as usize == 2 * number + 1);
                let call = Call { to_send, ended: bare, ..Call::default() };
                self.calls.insert(id.0, call);
            }
            Err(OpenError::Full) => assert_eq!(self.client.can_open(), 0),
            Err(OpenError::Retired) => panic!("nobody retired"),
        }
    }

    /// The client goes on with one of its calls.
    fn speak(&mut self) {
        let ids: Vec<u32> = self.calls.iter().filter(|c| !c.1.complete).map(|c| *c.0).collect();
        if ids.is_empty() {
            return;
        }
        let id = self.seed.pick(&ids);
        let call = self.calls.get_mut(&id).unwrap();
        if self.seed.one_in(10)
            && let Some(fields) = self.lent.remove(&u64::from(id / 2))
        {
            self.client.give_head(StreamId(id), fields);
        }
        if self.cancels && self.seed.one_in(30) {
            self.client.send_reset(StreamId(id), ErrorCode::CANCEL);
            call.broken = true;
            call.complete = true;
            return;
        }
        if call.held > 0 && self.seed.one_in(2) {
            let octets = 1 + self.seed.below(call.held as u64) as usize;
            call.held -= octets;
            self.client.release(StreamId(id), octets as u32);
        }
        if call.ended {
            return;
        }
        let len = (1 + self.seed.below(700) as usize).min(call.to_send);
        let piece: Vec<u8> = (0..len).map(|_| self.seed.next() as u8).collect();
        call.to_send -= len;
        call.sent.extend_from_slice(&piece);
        call.ended = call.to_send == 0 && self.seed.one_in(2);
        let with_trailers = call.ended && self.seed.one_in(3);
        let end_stream = call.ended && !with_trailers;
        self.client.send_data(StreamId(id), piece.into(), end_stream);
        if with_trailers {
            let fields = section(&[("x-trailer", "1")]);
            self.client.send_headers(StreamId(id), fields, true);
        }
    }

    fn on_client_event(&mut self, event: &Event) {
        match seen(event) {
            Seen::Headers(id, kind, fields, end) => {
                let call = self.calls.get_mut(&id).unwrap();
                assert!(!call.complete, "events stop with the stream");
                match kind {
                    SectionKind::Response => call.answered = true,
                    SectionKind::Trailers => assert_eq!(fields[0].0, "grpc-status"),
                    SectionKind::Informational => assert!(!call.answered),
                    SectionKind::Request => panic!("in a client"),
                }
                call.complete |= end;
            }
            Seen::Data(id, data, end) => {
                let call = self.calls.get_mut(&id).unwrap();
                assert!(call.answered && !call.complete);
                call.held += data.len();
                call.received.extend_from_slice(&data);
                call.complete |= end;
            }
            Seen::Reset(id, _) => {
                let call = self.calls.get_mut(&id).unwrap();
                call.broken = true;
                call.complete = true;
            }
            Seen::Settings | Seen::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }

    fn on_server_event(&mut self, event: &Event) {
        match seen(event) {
            Seen::Headers(id, SectionKind::Request, fields, end) => {
                assert_eq!(fields.len(), REQUEST.len() + 1);
                self.echoes.insert(id, Echo::default());
                if self.seed.one_in(4) {
                    let early = section(&[(":status", "100")]);
                    self.server.send_headers(StreamId(id), early, false);
                }
                let fields = section(&[(":status", "200"), ("content-type", "application/grpc")]);
                self.server.send_headers(StreamId(id), fields, false);
                if end {
                    self.finish_echo(id);
                }
            }
            Seen::Headers(id, _, _, _) => self.finish_echo(id),
            Seen::Data(id, data, end) => {
                let echo = self.echoes.get_mut(&id).unwrap();
                echo.owed += data.len() as u32;
                self.server.send_data(StreamId(id), data.into(), false);
                if self.cancels && self.seed.one_in(40) {
                    self.give_up(id);
                } else if end {
                    self.finish_echo(id);
                }
            }
            Seen::Reset(id, _) => {
                self.echoes.remove(&id);
            }
            // Before its SETTINGS are known.
            Seen::Limited(Limit::Streams) => {}
            Seen::Settings | Seen::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }

    /// An early answer, in one of the ways there are.
    fn give_up(&mut self, id: u32) {
        let code = self.seed.pick(&[ErrorCode::NO_ERROR, ErrorCode::CANCEL]);
        if code == ErrorCode::NO_ERROR {
            let fields = section(&[("grpc-status", "8")]);
            self.server.send_headers(StreamId(id), fields, true);
        }
        self.server.send_reset(StreamId(id), code);
        self.echoes.remove(&id);
    }

    fn finish_echo(&mut self, id: u32) {
        let end_by_data = self.seed.one_in(3);
        if end_by_data {
            self.server.send_data(StreamId(id), Bytes::new(), true);
        } else {
            self.server.send_headers(StreamId(id), section(&[("grpc-status", "0")]), true);
        }
    }

    fn transmit(&mut self, from_client: bool) {
        let octets_max = self.seed.pick(&[1, 100, 20_000, usize::MAX]);
        let (from, pipe) = match from_client {
            true => (&mut self.client, &mut self.up),
            false => (&mut self.server, &mut self.down),
        };
        let wanted = from.wants_transmit();
        let mut out = Transmit::new();
        from.poll_transmit_lent(&mut out, octets_max, |tag| self.lent.get(&tag));
        assert_eq!(wanted, !out.is_empty());
        pipe.octets.extend(out.slices().flatten());
        while let Some(sent) = from.poll_sent() {
            let Some(echo) = self.echoes.get_mut(&sent.stream.0).filter(|_| !from_client) else {
                continue;
            };
            echo.owed -= sent.octets;
            from.release(sent.stream, sent.octets);
        }
    }

    fn deliver(&mut self, to_client: bool) {
        let pipe = if to_client { &mut self.down } else { &mut self.up };
        if pipe.stalled_for > 0 {
            pipe.stalled_for -= 1;
            return;
        }
        if self.seed.one_in(20) {
            pipe.stalled_for = self.seed.below(30);
        }
        let len = match self.fragments {
            Fragments::Octets => 1.min(pipe.octets.len()),
            Fragments::Random => self.seed.below(pipe.octets.len() as u64 + 1) as usize,
            Fragments::Whole => pipe.octets.len(),
        };
        // One by one, but many at a time, or it takes for ever.
        let turns = if matches!(self.fragments, Fragments::Octets) { 200 } else { 1 };
        for _ in 0..turns {
            let pipe = if to_client { &mut self.down } else { &mut self.up };
            let rest = pipe.octets.split_off(len.min(pipe.octets.len()));
            let octets = std::mem::replace(&mut pipe.octets, rest);
            let conn = if to_client { &mut self.client } else { &mut self.server };
            conn.recv(octets.into(), self.now);
            self.take_events(to_client);
        }
    }

    fn take_events(&mut self, of_client: bool) {
        loop {
            let conn = if of_client { &mut self.client } else { &mut self.server };
            let Some(event) = conn.poll_event() else { return };
            match of_client {
                true => self.on_client_event(&event),
                false => self.on_server_event(&event),
            }
            let conn = if of_client { &mut self.client } else { &mut self.server };
            if let Event::Headers { fields, .. } = event {
                conn.recycle(fields);
            }
        }
    }

    fn step(&mut self) {
        match self.seed.below(10) {
            0 => self.open(),
            1..=4 => self.speak(),
            5 => self.transmit(true),
            6 => self.transmit(false),
            7 => self.deliver(true),
            8 => self.deliver(false),
            _ => {
                let first = self.seed.one_in(2);
                let conn = if first { &mut self.client } else { &mut self.server };
                conn.ping([1; 8]);
            }
        }
        self.client.check_invariants();
        self.server.check_invariants();
    }

    /// Lets everything come to its end.
    fn drain(&mut self) {
        for _ in 0..200_000 {
            let open = self.calls.values().any(|call| !call.complete);
            let moving = !self.up.octets.is_empty() || !self.down.octets.is_empty();
            let wanted = self.client.wants_transmit() || self.server.wants_transmit();
            if !open && !moving && !wanted {
                return;
            }
            for from_client in [true, false] {
                self.speak();
                self.transmit(from_client);
                self.deliver(!from_client);
                self.deliver(from_client);
            }
            self.client.check_invariants();
            self.server.check_invariants();
        }
        let stuck = self.calls.iter().filter(|call| !call.1.complete);
        let stuck: Vec<_> = stuck.map(|(id, call)| (id, call.to_send, call.held)).collect();
        let limits = (&self.client.limits, &self.server.limits);
        let windows = (self.client.recv_window, self.server.recv_window);
        panic!("stuck: {stuck:?} {limits:?} {windows:?}");
    }

    fn check_end(&mut self) {
        assert!(!self.client.has_failed() && !self.server.has_failed());
        assert_eq!((self.client.streams(), self.server.streams()), (0, 0));
        for (id, call) in &self.calls {
            if !call.broken && call.ended {
                assert!(call.answered, "{id}");
            }
            // Refused: more than the server's limit, before the client knew it.
            if !self.cancels && !call.broken {
                let lens =
                    (call.sent.len(), call.received.len(), call.to_send, call.ended, call.held);
                assert!(call.sent == call.received, "{id} {lens:?}");
            }
        }
        let agreed = i64::from(self.client.send_window.available());
        assert_eq!(agreed, self.server.recv_window.open());
        let agreed = i64::from(self.server.send_window.available());
        assert_eq!(agreed, self.client.recv_window.open());
    }
}

fn run(number: u64) {
    let mut pair = Pair::new(number);
    for _ in 0..600 {
        pair.step();
    }
    pair.drain();
    pair.check_end();
}

fn sweep(seeds: std::ops::Range<u64>) {
    for number in seeds {
        let result = std::panic::catch_unwind(|| run(number));
        assert!(result.is_ok(), "seed {number}");
    }
}

#[test]
fn seeded_runs() {
    sweep(0..sweep_seeds(40));
}
