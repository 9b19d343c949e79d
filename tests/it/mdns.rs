//! Our mDNS and daprd's, each finding the other, in a network of the test's own.

use crate::peer::process::until;
use crate::peer::sidecar::{Naming, Options};
use crate::peer::{Kind, Sidecar, World};
use ringside::control::resolver::{Announced, Publish, Resolver, Source};
use ringside::identity::{AppId, Namespace, Target};
use ringside::resolve::Resolution;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const WAIT: Duration = Duration::from_secs(20);

/// A resolver of ours on a thread of its own; dropped, it says goodbye.
struct Ours {
    ask: Option<UnboundedSender<Target>>,
    heard: Receiver<Resolution>,
    thread: Option<JoinHandle<()>>,
}

impl Ours {
    fn announce(app_id: &str, internal_port: u16) -> Self {
        let (ask, mut asked) = unbounded_channel();
        let (told, heard) = channel();
        let announced = Announced {
            app_id: AppId::new(app_id).unwrap(),
            address: Ipv4Addr::LOCALHOST.into(),
            internal_port,
            host: "host".to_owned(),
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let publish: Publish = Rc::new(move |resolution| {
                let _ = told.send(resolution);
            });
            let work = async {
                let resolver = Resolver::start(Source::Mdns(announced), publish).unwrap();
                while let Some(target) = asked.recv().await {
                    resolver.resolve(target);
                }
                resolver.close().await;
            };
            tokio::task::LocalSet::new().block_on(&runtime.unwrap(), work);
        });
        Self { ask: Some(ask), heard, thread: Some(thread) }
    }

    fn ask(&self, app_id: &str) {
        let target = Target::parse(app_id, &Namespace::new("default")).unwrap();
        self.ask.as_ref().unwrap().send(target).unwrap();
    }

    /// What is said next: endpoints, or the text of the failure.
    fn hear(&self) -> Result<Vec<String>, String> {
        let resolution = self.heard.recv_timeout(WAIT).unwrap();
        let shown = |all: &[ringside::resolve::Endpoint]| {
            all.iter().map(|endpoint| endpoint.0.to_string()).collect()
        };
        resolution.result.map(|all| shown(&all)).map_err(|error| error.to_string())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn by_mdns() -> Options<'static> {
    let env = vec![("DAPR_HOST_IP", "127.0.0.1")];
    Options { naming: Naming::Mdns, env, ..Options::default() }
}

#[test]
fn finds_daprds_and_hears_them_go() {
    crate::isolated!("finds_daprds_and_hears_them_go", {
        let mut world = World::new("mdns-finds");
        world.reserve(&["server"]);
        let mut daprd = Sidecar::start(&world, Kind::Daprd, "server", by_mdns());
        let ours = Ours::announce("client", 50002);
        let begun = Instant::now();
        ours.ask("server.production");
        let there = format!("127.0.0.1:{}", daprd.ports.internal);
        assert_eq!(ours.hear(), Ok(vec![there.clone()]), "mDNS knows no namespaces");
        assert!(begun.elapsed() < Duration::from_millis(900), "the first answer is enough");
        ours.ask("server");
        assert_eq!(ours.hear(), Ok(vec![there]));
        daprd.process.terminate();
        let gone = Err("couldn't find service: server".to_owned());
        assert_eq!([ours.hear(), ours.hear()], [gone.clone(), gone], "both targets are told");
    });
}

#[test]
fn an_unknown_app_fails_after_a_second() {
    crate::isolated!("an_unknown_app_fails_after_a_second", {
        let ours = Ours::announce("client", 50002);
        for _ in 0..2 {
            let begun = Instant::now();
            ours.ask("nobody");
            ours.ask("nobody.production");
            let failed = Err("couldn't find service: nobody".to_owned());
            assert_eq!([ours.hear(), ours.hear()], [failed.clone(), failed]);
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(900), "{took:?}");
            assert!(took < Duration::from_millis(1900), "{took:?}");
        }
    });
}

#[test]
fn two_of_ours_find_each_other_and_replicas() {
    crate::isolated!("two_of_ours_find_each_other_and_replicas", {
        let first = Ours::announce("server", 1001);
        let client = Ours::announce("client", 50002);
        client.ask("server");
        assert_eq!(client.hear(), Ok(vec!["127.0.0.1:1001".to_owned()]));
        first.ask("client");
        assert_eq!(first.hear(), Ok(vec!["127.0.0.1:50002".to_owned()]));
        drop(first);
        assert_eq!(client.hear(), Err("couldn't find service: server".to_owned()));
        // An announcement, which nobody asked for, is enough once the app is in use.
        client.ask("server");
        let _second = Ours::announce("server", 1002);
        assert_eq!(client.hear(), Ok(vec!["127.0.0.1:1002".to_owned()]));
    });
}

#[test]
fn garbage_on_the_group_changes_nothing() {
    crate::isolated!("garbage_on_the_group_changes_nothing", {
        let _server = Ours::announce("server", 1001);
        let client = Ours::announce("client", 50002);
        let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
        let group = (Ipv4Addr::new(224, 0, 0, 251), 5353);
        let query = ringside::resolve::mdns::question("server").unwrap();
        for n in 0..2000_usize {
            let mut packet = query.clone();
            // A length, a count, a pointer: each octet in its turn is wrong, and the tail is cut.
            let at = n % packet.len();
            packet[at] ^= (n % 255 + 1) as u8;
            packet.truncate(packet.len() - n % 7);
            let _ = noise.send_to(&packet, group);
        }
        client.ask("server");
        assert_eq!(client.hear(), Ok(vec!["127.0.0.1:1001".to_owned()]));
    });
}

/// Connects to daprd's API and calls `app_id`; whether the call succeeds is nobody's concern.
async fn call(port: u16, app_id: &str) {
    let stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let request = http::Request::post(format!("http://127.0.0.1:{port}/p.S/M"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("dapr-app-id", app_id)
        .body(())
        .unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    tokio::select! {
        _ = response => {}
        _ = connection => {}
    }
}

#[test]
fn is_found_by_daprd() {
    crate::isolated!("is_found_by_daprd", {
        let mut world = World::new("mdns-found");
        world.reserve(&["client"]);
        let internal = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = Ours::announce("server", internal.local_addr().unwrap().port());
        let daprd = Sidecar::start(&world, Kind::Daprd, "client", by_mdns());
        let port = daprd.ports.grpc;
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(call(port, "server"));
        });
        internal.set_nonblocking(true).unwrap();
        let came = until(|| internal.accept().ok());
        let (mut dialled, _): (TcpStream, _) = came.expect("daprd dials what we announced");
        dialled.set_nonblocking(false).unwrap();
        let mut preface = [0; 24];
        dialled.read_exact(&mut preface).unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        drop(ours);
    });
}
