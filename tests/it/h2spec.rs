//! The h2spec suite against our HTTP/2 engine alone, as a server on a socket: all of its cases,
//! the strict ones included.

use crate::peer::program;
use bytes::Bytes;
use ringside::http2::field::classify_none;
use ringside::http2::{Connection, Event, FieldSection, Limits, Role, StreamId, Transmit};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// Bounds a connection that h2spec forgets.
const SILENCE: Duration = Duration::from_secs(20);

fn answer(conn: &mut Connection, stream: StreamId) {
    let mut head = FieldSection::new();
    head.push(b":status", b"200");
    head.push(b"content-type", b"text/plain");
    conn.send_headers(stream, head, false);
    conn.send_data(stream, Bytes::from_static(b"hello, h2spec"), true);
}

/// One connection, to its end.
fn serve(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_read_timeout(Some(SILENCE))?;
    socket.set_nodelay(true)?;
    let limits = Limits { max_concurrent_streams: Some(100), ..Limits::default() };
    let mut conn = Connection::new(Role::Server, limits, classify_none, Instant::now());
    let mut out = Transmit::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        while let Some(event) = conn.poll_event() {
            conn.check_invariants();
            match event {
                Event::Headers { stream, end_stream: true, .. } => answer(&mut conn, stream),
                Event::Data { stream, data, end_stream, .. } => {
                    conn.release(stream, data.len() as u32);
                    if end_stream {
                        answer(&mut conn, stream);
                    }
                }
                _ => {}
            }
        }
        conn.poll_transmit(&mut out, usize::MAX);
        let octets: Vec<u8> = out.slices().flatten().copied().collect();
        out.clear();
        socket.write_all(&octets)?;
        if conn.has_failed() {
            return Ok(());
        }
        let len = socket.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        conn.recv(Bytes::copy_from_slice(&buffer[..len]), Instant::now());
    }
}

#[test]
fn every_case_passes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || serve(socket));
        }
    });
    let report = Command::new(program("h2spec"))
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "--strict", "--timeout", "2"])
        .output()
        .expect("h2spec runs");
    let text = String::from_utf8_lossy(&report.stdout);
    assert!(report.status.success(), "{text}");
    let passed = text.lines().find(|line| line.contains("tests,")).unwrap_or_default();
    assert!(passed.contains(" 0 failed"), "{passed}");
}
