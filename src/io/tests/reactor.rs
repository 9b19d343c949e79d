//! The reactor by itself: what is read is all of it, in order, and nobody else's.

use super::*;
use crate::io::reactor::Event;
use crate::io::sys::rooms::ROOM_OCTETS;

/// Asks for what comes next, and waits no longer; true when there was nothing yet.
async fn pending(socket: &Socket) -> bool {
    let mut read = std::pin::pin!(socket.read());
    std::future::poll_fn(|context| std::task::Poll::Ready(read.as_mut().poll(context).is_pending()))
        .await
}

/// Some turns go by.
async fn turns(runtime: &Runtime) {
    let (others, peers) = unix_pair(runtime);
    for _ in 0..3 {
        peers.send_octets(b"x").unwrap();
        others.read().await.unwrap();
    }
}

/// What a socket's events brought: nobody else's are there.
fn text(socket: &Socket, events: &mut Vec<Event>) -> String {
    let mut text = Vec::new();
    for event in events.drain(..) {
        let Event::Read(key, Ok(octets)) = event else { panic!("{event:?}") };
        assert_eq!(key, socket.key());
        text.extend_from_slice(&octets);
    }
    String::from_utf8(text).unwrap()
}

/// Whatever the sizes, and whoever else is read: each gets its own, in order, to the end.
#[test]
fn many_are_read_at_once() {
    on_each_driver(async |runtime| {
        let mut readers = Vec::new();
        let mut writers = Vec::new();
        for number in 0..300 {
            let (ours, theirs) = unix_pair(&runtime);
            readers.push(run(&runtime, read_stream(theirs, None)));
            writers.push((ours, Numbers(number + 1), 0));
        }
        for round in 0..40 {
            for (socket, numbers, at) in &mut writers {
                let size = if numbers.below(20) == round % 20 { 90_000 } else { 300 };
                let chunk = octets(at, 1 + numbers.below(size));
                let mut rest = &chunk[..];
                while !rest.is_empty() {
                    match socket.send_octets(rest) {
                        Ok(sent) => rest = &rest[sent..],
                        Err(error) => {
                            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                            socket.writable().await;
                        }
                    }
                }
            }
        }
        for ((socket, _, sent), reader) in writers.into_iter().zip(readers) {
            drop(socket);
            assert_eq!(reader.join().await, sent);
        }
    });
}

/// What came before a connection is delivered comes first, then the rest, then the end: also when a
/// read that was asked for once is still under way.
#[test]
fn what_was_kept_is_delivered_first() {
    on_each_driver(async |runtime| {
        for kept in [true, false] {
            let (ours, theirs) = unix_pair(&runtime);
            theirs.send_octets(b"one").unwrap();
            assert_eq!(ours.read().await.unwrap(), &b"one"[..]);
            // A read that is awaited no more, but was asked for.
            assert!(pending(&ours).await);
            let mut events = Vec::new();
            if kept {
                theirs.send_octets(b"two").unwrap();
                turns(&runtime).await;
                ours.deliver(&mut events);
                assert_eq!(text(&ours, &mut events), "two");
            } else {
                ours.deliver(&mut events);
                theirs.send_octets(b"two").unwrap();
                runtime.reactor.turn(&mut events).unwrap();
                assert_eq!(text(&ours, &mut events), "two");
            }
            for word in ["three", "four", ""] {
                match word {
                    "" => theirs.shutdown(Shutdown::Write),
                    word => assert_eq!(theirs.send_octets(word.as_bytes()).unwrap(), word.len()),
                }
                while events.is_empty() {
                    runtime.reactor.turn(&mut events).unwrap();
                }
                assert_eq!(text(&ours, &mut events), word);
            }
        }
    });
}

/// One that was never read before it is delivered, with more than a turn reads, and its end behind.
#[test]
fn all_is_read_before_the_end() {
    on_each_driver(async |runtime| {
        let (one, mut peer) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&peer).set_send_buffer_size(4 << 20).unwrap();
        let sent: Vec<u8> = (0..1_000_000).map(octet).collect();
        peer.write_all(&sent).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        let ours = Socket::adopt(&runtime.reactor, Stream::Unix(one)).unwrap();
        let (mut events, mut read) = (Vec::new(), Vec::new());
        ours.deliver(&mut events);
        'turns: for _ in 0..100 {
            runtime.reactor.turn(&mut events).unwrap();
            for event in events.drain(..) {
                let Event::Read(_, Ok(octets)) = event else { continue };
                if octets.is_empty() {
                    break 'turns;
                }
                read.extend_from_slice(&octets);
            }
        }
        assert!(read == sent, "{} of {}", read.len(), sent.len());
    });
}

/// Peers that always have more to say, more of it than a turn reads: each gets its share.
#[test]
fn all_are_served() {
    for wanted in DRIVERS {
        for (count, queued) in [(16, 4 << 20), (200, 512 << 10)] {
            let driver = driver(wanted);
            let (least, most, turn_most) = shares(driver.runtime(), count, queued);
            assert!(least * 2 > most, "{wanted:?}, {count}: {least} to {most} octets");
            assert!(turn_most <= 9 << 20, "{wanted:?}, {count}: {turn_most} in a turn");
        }
    }
}

/// What each of `count` connections got in 150 turns, whose peers are never through with what they
/// have: the least and the most; and the most that a turn read.
fn shares(runtime: &Runtime, count: usize, queued: usize) -> (usize, usize, usize) {
    let pair = |_| {
        let (one, peer) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&peer).set_send_buffer_size(8 << 20).unwrap();
        peer.set_nonblocking(true).unwrap();
        (Socket::adopt(&runtime.reactor, Stream::Unix(one)).unwrap(), peer)
    };
    let (sockets, peers): (Vec<_>, Vec<_>) = (0..count).map(pair).unzip();
    let (mut sent, mut got) = (vec![0; count], vec![0; count]);
    let (mut events, mut turn_most) = (Vec::new(), 0);
    let chunk = vec![7; 64 << 10];
    sockets.iter().for_each(|socket| socket.deliver(&mut events));
    for _ in 0..150 {
        for (at, mut peer) in peers.iter().enumerate() {
            while sent[at] - got[at] < queued
                && let Ok(octets) = peer.write(&chunk)
            {
                sent[at] += octets;
            }
        }
        runtime.reactor.turn(&mut events).unwrap();
        let mut octets = 0;
        for event in events.drain(..) {
            let Event::Read(key, Ok(read)) = event else { continue };
            got[sockets.iter().position(|socket| socket.key() == key).unwrap()] += read.len();
            octets += read.len();
        }
        turn_most = turn_most.max(octets);
    }
    (*got.iter().min().unwrap(), *got.iter().max().unwrap(), turn_most)
}

/// What is read lies in memory that was read into before, when that is done with.
#[test]
fn rooms_serve_again() {
    on_each_driver(async |runtime| {
        let (ours, theirs) = unix_pair(&runtime);
        let (mut events, mut places) = (Vec::new(), std::collections::BTreeSet::new());
        ours.deliver(&mut events);
        let mut read = 0;
        while read < 20 << 20 {
            theirs.send_octets(&[7; 1000]).unwrap();
            runtime.reactor.turn(&mut events).unwrap();
            for event in events.drain(..) {
                let Event::Read(_, Ok(octets)) = event else { continue };
                places.insert(octets.as_ptr() as usize / ROOM_OCTETS);
                read += octets.len();
            }
        }
        // Eight are out and one rests; each lies in two such places at the most.
        assert!(places.len() <= 20, "{}", places.len());
    });
}

/// A key is never used again, though its place is.
#[test]
fn who_comes_next_has_another_key() {
    on_each_driver(async |runtime| {
        let (one, _theirs) = unix_pair(&runtime);
        let before = one.key();
        drop(one);
        let (next, _theirs) = unix_pair(&runtime);
        assert_eq!(next.key().index, before.index);
        assert_ne!(next.key(), before);
    });
}

/// What the kernel still says of one that is gone reaches nobody.
#[test]
fn a_late_completion_is_nobodys() {
    on_each_driver(async |runtime| {
        let mut events = Vec::new();
        for _ in 0..100 {
            let (gone, late) = unix_pair(&runtime);
            gone.deliver(&mut events);
            turns(&runtime).await;
            late.send_octets(b"late").unwrap();
            drop(gone);
            let (next, theirs) = unix_pair(&runtime);
            next.deliver(&mut events);
            theirs.send_octets(b"mine").unwrap();
            while events.is_empty() {
                runtime.reactor.turn(&mut events).unwrap();
            }
            assert_eq!(text(&next, &mut events), "mine");
        }
    });
}

/// Who does not read is sent no more than the sockets hold, and what is read after all is whole.
#[test]
fn what_nobody_awaits_is_not_read() {
    on_each_driver(async |runtime| {
        let (ours, theirs) = unix_pair(&runtime);
        let (others, peers) = unix_pair(&runtime);
        let mut sent = 0;
        let mut first = 0;
        for turn in 0..100 {
            loop {
                match theirs.send_octets(&octets(&mut { sent }, 10_000)) {
                    Ok(count) => sent += count,
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
            match turn {
                // One read is awaited, and no more after it.
                0 => {
                    let read = ours.read().await.unwrap();
                    assert!(read.iter().copied().eq((0..read.len()).map(octet)));
                    first = read.len();
                }
                1 => assert!(sent > first, "room for more"),
                _ => {}
            }
            peers.send_octets(b"a turn").unwrap();
            others.read().await.unwrap();
        }
        assert!(sent < 1 << 20, "{sent}");
        theirs.shutdown(Shutdown::Write);
        let mut at = first;
        while at < sent {
            let read = ours.read().await.unwrap();
            assert!(read.iter().copied().eq((at..at + read.len()).map(octet)));
            at += read.len();
        }
        assert!(ours.read().await.unwrap().is_empty(), "the end");
    });
}

/// A number that the kernel gives to another socket at once must not bring the one's octets to the
/// other, nor keep the peer of one that is dropped from seeing its end.
#[test]
fn a_dropped_read_is_forgotten() {
    on_each_driver(async |runtime| {
        for _ in 0..200 {
            let (one, others) = unix_pair(&runtime);
            assert!(pending(&one).await);
            drop(one);
            let (next, peers) = unix_pair(&runtime);
            peers.send_octets(b"mine").unwrap();
            assert!(others.read().await.is_ok_and(|octets| octets.is_empty()), "the end");
            assert_eq!(next.read().await.unwrap(), &b"mine"[..]);
        }
    });
}

/// How often this thread has slept.
fn sleeps() -> usize {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// With a busy-poll window that never ends nobody sleeps; without one who has nothing to do does.
#[test]
#[allow(clippy::disallowed_methods)] // A peer that answers needs a thread of its own.
fn who_looks_for_work_does_not_sleep() {
    const ROUNDS: usize = 50;
    let hour = Window::new(Some(Duration::from_secs(3600)));
    for (wanted, window) in
        DRIVERS.into_iter().flat_map(|driver| [(driver, hour), (driver, Window::default())])
    {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // Says nothing before it was asked, and its answer takes a while.
        let peer = std::thread::spawn(move || {
            let mut octet = [0];
            while theirs.read(&mut octet).unwrap() > 0 {
                std::thread::yield_now();
                theirs.write_all(&octet).unwrap();
            }
        });
        let mut driver = driver_with(wanted, window);
        let runtime = Rc::clone(driver.runtime());
        let slept = driver.block_on(async move {
            let ours = Socket::adopt(&runtime.reactor, Stream::Unix(ours)).unwrap();
            let before = sleeps();
            for _ in 0..ROUNDS {
                ours.send_octets(b"x").unwrap();
                assert_eq!(ours.read().await.unwrap(), &b"x"[..]);
            }
            sleeps() - before
        });
        peer.join().unwrap();
        println!("{wanted:?}, {window:?}: slept {slept} times");
        assert!(!window.is_open() || slept < ROUNDS / 5, "{wanted:?}: slept {slept} times");
    }
}
