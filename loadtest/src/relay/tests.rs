//! Through real sockets on loopback, with the other ends on threads of their own.

use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};

/// A relay's address and the listener behind it.
fn relayed() -> (SocketAddr, TcpListener) {
    let behind = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, to) = (front.local_addr().unwrap(), behind.local_addr().unwrap());
    spawn(move || run(&front, to));
    (at, behind)
}

#[expect(clippy::disallowed_methods, reason = "each end of a wire needs a thread of its own")]
fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(body)
}

/// Bytes without a short period.
fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(count)
        .collect()
}

#[test]
fn bytes_arrive_exactly_through_a_full_pipe() {
    const COUNT: usize = 24 << 20;
    let (at, behind) = relayed();
    let mut near = TcpStream::connect(at).unwrap();
    let (mut far, _) = behind.accept().unwrap();
    // Nobody reads while everything is written: the kernel's buffers fill, sends become short.
    let mut writer = near.try_clone().unwrap();
    let writing = spawn(move || {
        writer.write_all(&bytes(COUNT)).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut first = [0; 1];
    far.read_exact(&mut first).unwrap();
    let mut answer = far.try_clone().unwrap();
    let answering = spawn(move || answer.write_all(&bytes(COUNT / 2)).unwrap());
    let mut got = first.to_vec();
    // Short reads keep the relay's own sends short.
    let mut piece = [0; 4093];
    loop {
        let read = far.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        got.extend_from_slice(&piece[..read]);
    }
    assert!(got == bytes(COUNT), "what arrived is what was sent");
    writing.join().unwrap();
    let mut back = vec![0; COUNT / 2];
    near.read_exact(&mut back).unwrap();
    assert!(back == bytes(COUNT / 2), "and so is the answer");
    answering.join().unwrap();
}

#[test]
fn an_end_is_passed_on_alone() {
    let (at, behind) = relayed();
    let mut near = TcpStream::connect(at).unwrap();
    let (mut far, _) = behind.accept().unwrap();
    near.write_all(b"question").unwrap();
    near.shutdown(std::net::Shutdown::Write).unwrap();
    let mut question = String::new();
    far.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    far.write_all(b"answer after the end").unwrap();
    drop(far);
    let mut answer = String::new();
    near.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer after the end");
}

#[test]
fn who_dials_is_told_when_nobody_is_behind() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = front.local_addr().unwrap();
    spawn(move || run(&front, gone));
    let mut near = TcpStream::connect(at).unwrap();
    // An end or a reset, but no wait.
    assert!(matches!(near.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn slots_are_used_again() {
    let (at, behind) = relayed();
    for round in 0..200u32 {
        let mut near = TcpStream::connect(at).unwrap();
        let (mut far, _) = behind.accept().unwrap();
        near.write_all(&round.to_le_bytes()).unwrap();
        let mut got = [0; 4];
        far.read_exact(&mut got).unwrap();
        assert_eq!(u32::from_le_bytes(got), round);
    }
}
