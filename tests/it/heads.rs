//! Long and broad heads beside another call on the same connection: what is within the limits
//! passes whole, what is beyond them ends one call.

use crate::peer::probe::ProbeApp;
use crate::peer::process::PATIENCE;
use crate::peer::sidecar::loopback;
use crate::peer::{Kind, Sidecar, World};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// More fields than a head may have between sidecars, and anywhere else.
const TOO_MANY: usize = 1100;
const KIB: usize = 1024;

fn message(text: &[u8]) -> Bytes {
    let mut message = BytesMut::from(&[0][..]);
    message.put_u32(u32::try_from(text.len()).expect("a short text"));
    message.put_slice(text);
    message.freeze()
}

struct Client(SendRequest<Bytes>);

impl Client {
    async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(loopback(port)).await.expect("connects");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self(client)
    }

    async fn open(&self, more: &[(String, String)]) -> (ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post("http://server/probe.Probe/Echo")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("dapr-app-id", "server");
        for (name, value) in more {
            request = request.header(name, value);
        }
        let mut client = self.0.clone().ready().await.expect("the connection lives");
        client.send_request(request.body(()).expect("a request"), false).expect("a stream")
    }

    /// The status of one call; `None` when its stream was reset.
    async fn call(&self, more: &[(String, String)]) -> Option<String> {
        let (response, mut out) = self.open(more).await;
        // The reset may be here already.
        let _ = out.send_data(message(b"hello"), true);
        let (head, body) = match response.await {
            Ok(response) => response.into_parts(),
            Err(error) => {
                assert!(error.is_reset(), "the connection broke: {error}");
                return None;
            }
        };
        let trailers = rest(body).await.1;
        let status = trailers.get("grpc-status").or(head.headers.get("grpc-status"));
        status.map(|status| status.to_str().expect("a number").to_owned())
    }
}

async fn rest(mut body: RecvStream) -> (Vec<u8>, HeaderMap) {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("data");
        body.flow_control().release_capacity(data.len()).expect("window");
        all.extend_from_slice(&data);
    }
    (all, body.trailers().await.expect("trailers").unwrap_or_default())
}

/// `count` fields of `octets` in all; no two alike, so that no table makes them small.
fn fields(count: usize, octets: usize) -> Vec<(String, String)> {
    let field = |n: usize| {
        let value: String = (0..octets / count)
            .map(|at| {
                char::from(b'a' + u8::try_from((at * 7 + at / 26 + n * 5) % 26).expect("<26"))
            })
            .collect();
        (format!("x-{n}"), value)
    };
    (0..count).map(field).collect()
}

fn long_heads_disturb_nobody(caller: Kind, callee: Kind) {
    let mut world = World::with_sentry(&format!("heads-{}-{}", caller.name(), callee.name()));
    world.reserve(&["server", "client"]);
    let app = ProbeApp::start(&world);
    let _callee = Sidecar::callee(&world, callee, "server", app.port);
    let caller = Sidecar::caller(&world, caller, "client");
    let story = async {
        let client = Client::connect(caller.ports.grpc).await;
        let (response, mut out) = client.open(&[]).await;
        out.send_data(message(b"before "), false).expect("a message");
        let response = response.await.expect("the other call's head");
        for (count, octets) in
            [(20, 20 * KIB), (1, 20 * KIB), (20, 100 * KIB), (1, 100 * KIB), (129, 2 * KIB)]
        {
            let sent = fields(count, octets);
            let status = client.call(&sent).await;
            assert_eq!(status.as_deref(), Some("0"), "{count} fields, {octets} octets");
            let seen = app.seen().pop().expect("the call at the app").metadata;
            for (name, value) in &sent {
                assert_eq!(seen.get(name), Some(&vec![value.clone()]), "{name} of {count}");
            }
        }
        let calls = app.seen().len();
        let status = client.call(&fields(TOO_MANY, TOO_MANY)).await;
        assert_ne!(status.as_deref(), Some("0"), "{TOO_MANY} fields pass");
        assert_eq!(app.seen().len(), calls, "{TOO_MANY} fields came to the app");
        assert_eq!(client.call(&[]).await.as_deref(), Some("0"), "the connection serves on");
        out.send_data(message(b"after"), true).expect("the other call goes on");
        let (echoed, trailers) = rest(response.into_body()).await;
        assert_eq!(echoed, [message(b"before "), message(b"after")].concat());
        assert_eq!(trailers.get("grpc-status").expect("a status"), "0");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .expect("a runtime")
        .block_on(async { timeout(PATIENCE, story).await.expect("all ends in time") });
}

#[test]
fn ringside_to_ringside() {
    long_heads_disturb_nobody(Kind::Ringside, Kind::Ringside);
}

#[test]
fn daprd_to_ringside() {
    long_heads_disturb_nobody(Kind::Daprd, Kind::Ringside);
}

#[test]
fn ringside_to_daprd() {
    long_heads_disturb_nobody(Kind::Ringside, Kind::Daprd);
}
