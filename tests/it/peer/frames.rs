//! An app below gRPC: it answers in HTTP/2 frames, as a script says, and so does what no gRPC
//! library would. It knows no HPACK but how to write literals, and no flow control: bodies are
//! smaller than the first window.

use super::ports::claim;
use super::sidecar::loopback;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const PREFACE: usize = 24;
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// What the app heard of a call, when it is the script's turn.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Of all calls of this app, over all connections.
    pub call: usize,
    pub stream: u32,
    /// The request is whole, as against: its head is here.
    pub whole: bool,
    pub body: Vec<u8>,
}

/// What the app does then.
#[derive(Clone, Debug, Default)]
pub struct Say {
    pub frames: Vec<u8>,
    pub close: bool,
    /// It looks at no stream of this connection above this one any more.
    pub last: Option<u32>,
}

impl Say {
    pub fn frames(parts: &[Vec<u8>]) -> Self {
        Self { frames: parts.concat(), close: false, last: None }
    }
}

type Script = fn(&Heard) -> Say;

/// Threads that end with this.
#[derive(Debug)]
pub struct FrameApp {
    pub port: u16,
    calls: Arc<Mutex<Vec<Heard>>>,
    ended: Arc<AtomicBool>,
}

impl FrameApp {
    pub fn start(script: Script) -> Self {
        let port = claim();
        let listener = TcpListener::bind(loopback(port)).expect("the app's port");
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (ended, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, over) = (Arc::clone(&calls), Arc::clone(&ended));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (told, count) = (Arc::clone(&told), Arc::clone(&count));
                // How a connection ends is the caller's affair.
                std::thread::spawn(move || Connection::new(stream, script, told, count).serve());
            }
        });
        Self { port, calls, ended }
    }

    /// The calls whose request was whole.
    pub fn calls(&self) -> Vec<Heard> {
        self.calls.lock().expect("no app panics").clone()
    }
}

impl Drop for FrameApp {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(loopback(self.port));
    }
}

struct Connection {
    stream: TcpStream,
    script: Script,
    told: Arc<Mutex<Vec<Heard>>>,
    count: Arc<AtomicUsize>,
    /// Those whose request is not whole.
    open: Vec<Heard>,
    last: u32,
}

impl Connection {
    fn new(
        stream: TcpStream,
        script: Script,
        told: Arc<Mutex<Vec<Heard>>>,
        count: Arc<AtomicUsize>,
    ) -> Self {
        Self { stream, script, told, count, open: Vec::new(), last: u32::MAX }
    }

    fn serve(mut self) -> io::Result<()> {
        let mut preface = [0; PREFACE];
        self.stream.read_exact(&mut preface)?;
        self.stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        loop {
            let mut header = [0; 9];
            self.stream.read_exact(&mut header)?;
            let [a, b, c, kind, flags, id @ ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload)?;
            if !self.on_frame(kind, flags, u32::from_be_bytes(id), payload)? {
                return Ok(());
            }
        }
    }

    /// False when the connection is to be closed.
    fn on_frame(&mut self, kind: u8, flags: u8, id: u32, payload: Vec<u8>) -> io::Result<bool> {
        match kind {
            SETTINGS | PING if flags & ACK == 0 => {
                let answer = if kind == PING { payload } else { Vec::new() };
                self.stream.write_all(&frame(kind, ACK, 0, &answer))?;
            }
            HEADERS | DATA if id > self.last => return Ok(true),
            HEADERS => {
                let call = self.count.fetch_add(1, Ordering::Relaxed);
                let heard = Heard { call, stream: id, whole: false, body: Vec::new() };
                self.open.push(heard.clone());
                if !self.act(&heard)? {
                    return Ok(false);
                }
            }
            DATA => {
                let call = self.open.iter_mut().find(|call| call.stream == id);
                call.expect("DATA of a call").body.extend_from_slice(&payload);
            }
            _ => {}
        }
        if !matches!(kind, HEADERS | DATA) || flags & END_STREAM == 0 {
            return Ok(true);
        }
        let Some(at) = self.open.iter().position(|call| call.stream == id) else {
            return Ok(true);
        };
        let heard = Heard { whole: true, ..self.open.remove(at) };
        self.told.lock().expect("no app panics").push(heard.clone());
        self.act(&heard)
    }

    fn act(&mut self, heard: &Heard) -> io::Result<bool> {
        let Say { frames, close, last } = (self.script)(heard);
        self.last = self.last.min(last.unwrap_or(u32::MAX));
        self.stream.write_all(&frames)?;
        Ok(!close)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals with literal names (RFC 7541 §6.2.2), without Huffman's code.
pub fn headers(stream: u32, fields: &[(&str, &str)], end_stream: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let len = u8::try_from(text.len()).ok().filter(|len| *len < 127);
            block.push(len.expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    let end = if end_stream { END_STREAM } else { 0 };
    frame(HEADERS, END_HEADERS | end, stream, &block)
}

pub fn data(stream: u32, octets: &[u8], end_stream: bool) -> Vec<u8> {
    frame(DATA, if end_stream { END_STREAM } else { 0 }, stream, octets)
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub fn goaway(last: u32, code: u32, debug: &str) -> Vec<u8> {
    let octets = [&last.to_be_bytes()[..], &code.to_be_bytes(), debug.as_bytes()].concat();
    frame(GOAWAY, 0, 0, &octets)
}
