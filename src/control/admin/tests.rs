//! Raw octets against the HTTP ports. Times run on tokio's paused clock, over pipes in memory;
//! what needs the kernel's buffers runs over loopback.

use super::*;
use crate::config::Tracing;
use crate::control::state::tests::options;
use crate::control::state::{Shutdown, StateOptions};
use crate::observe::span::SpanKind;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::Instant;

const HEALTHZ: &[u8] = b"GET /v1.0/healthz HTTP/1.1\r\nHost: x\r\n\r\n";

async fn local<F: Future>(test: F) -> F::Output {
    LocalSet::new().run_until(test).await
}

/// A connection to the API port of `state`, in memory.
fn pipe(state: &Rc<State>, octets: usize) -> DuplexStream {
    pipe_to(state, Surface::Api, octets)
}

fn tracer(tracing: Tracing) -> Rc<Tracer> {
    Rc::new(Tracer::new(tracing, Rc::default()))
}

fn pipe_to(state: &Rc<State>, surface: Surface, octets: usize) -> DuplexStream {
    let (ours, theirs) = duplex(octets);
    let port = Rc::new(Port::new(surface, Rc::clone(state), tracer(Tracing::Off)));
    tokio::task::spawn_local(async move { connection(theirs, None, &port).await });
    ours
}

/// Sends `octets`, says that nothing follows, and reads all answers.
async fn exchange(mut stream: DuplexStream, octets: &[u8]) -> String {
    stream.write_all(octets).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// One request of HTTP/1.1, by its first line, fields and body.
async fn ask(state: &Rc<State>, line: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {fields}\r\n{body}"
    );
    exchange(pipe(state, 1 << 16), request.as_bytes()).await
}

async fn listen(state: &Rc<State>, surface: Surface) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Rc::clone(state);
    let tracer = tracer(Tracing::Off);
    tokio::task::spawn_local(serve(HttpListener::Tcp(listener), surface, state, tracer));
    address
}

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap()
}

#[tokio::test]
async fn healthz_follows_the_targets() {
    local(async {
        let state = State::new(options());
        state.require("runtime");
        state.require("grpc-api-server");
        let answer = ask(&state, "GET /v1.0/healthz", "", "").await;
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
        assert_eq!(
            body_of(&answer),
            r#"{"errorCode":"ERR_HEALTH_NOT_READY","message":"dapr is not ready: [grpc-api-server runtime]"}"#
        );
        let outbound = ask(&state, "GET /v1.0/healthz/outbound", "", "").await;
        assert_eq!(
            body_of(&outbound),
            r#"{"errorCode":"ERR_OUTBOUND_HEALTH_NOT_READY","message":"dapr outbound is not ready"}"#
        );
        state.set_outbound_ready(true);
        let outbound = ask(&state, "GET /v1.0/healthz/outbound", "", "").await;
        assert!(outbound.starts_with("HTTP/1.1 204 "), "{outbound}");
        state.ready("runtime");
        state.ready("grpc-api-server");
        let answer = ask(&state, "GET /v1.0/healthz", "", "").await;
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        assert_eq!(body_of(&answer), "");
        let right = ask(&state, "GET /v1.0/healthz?appid=vsrv", "", "").await;
        assert!(right.starts_with("HTTP/1.1 204 "), "{right}");
        let wrong = ask(&state, "GET /v1.0/healthz?x=1&appid=b", "", "").await;
        assert_eq!(
            body_of(&wrong),
            r#"{"errorCode":"ERR_HEALTH_APPID_NOT_MATCH","message":"dapr app-id does not match"}"#
        );
    })
    .await;
}

#[tokio::test]
async fn metadata_is_put_and_got() {
    local(async {
        let state = State::new(options());
        let put = ask(&state, "PUT /v1.0/metadata/cliPID", "", "4711").await;
        assert!(put.starts_with("HTTP/1.1 204 "), "{put}");
        let got = ask(&state, "GET /v1.0/metadata", "", "").await;
        assert!(got.starts_with("HTTP/1.1 200 "), "{got}");
        let expected = r#""extended":{"cliPID":"4711","daprRuntimeVersion":"1.18.1"},"#;
        assert!(got.contains(expected), "{got}");
        assert!(got.ends_with("}\n"));
    })
    .await;
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    local(async {
        let state = State::new(options());
        let nothing = ask(&state, "GET /v1.0/state/x", "", "").await;
        assert!(nothing.starts_with("HTTP/1.1 404 "), "{nothing}");
        assert_eq!(
            body_of(&nothing),
            r#"{"errorCode":"ERR_DIRECT_INVOKE","message":"failed getting app id either from the URL path or the header dapr-app-id"}"#
        );
        let invoke = ask(&state, "POST /v1.0/invoke/server/method/hello", "", "{}").await;
        assert!(invoke.starts_with("HTTP/1.1 501 "), "{invoke}");
        assert!(body_of(&invoke).contains("not served by ringside"), "{invoke}");
        let port = pipe_to(&state, Surface::Public, 1 << 16);
        let request = b"POST /v1.0/shutdown HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let public = exchange(port, request).await;
        assert!(public.starts_with("HTTP/1.1 404 "), "{public}");
        assert_eq!(body_of(&public), "404 page not found\n");
    })
    .await;
}

#[tokio::test]
async fn the_token_guards_all_but_health() {
    local(async {
        let api_token = Some("secret".to_owned());
        let state = State::new(StateOptions { api_token, ..options() });
        let refused = ask(&state, "GET /v1.0/metadata", "", "").await;
        assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
        assert!(refused.contains("content-type: text/plain; charset=utf-8\r\n"), "{refused}");
        assert_eq!(body_of(&refused), "invalid api token\n");
        let wrong = ask(&state, "GET /v1.0/metadata", "dapr-api-token: secre\r\n", "").await;
        assert!(wrong.starts_with("HTTP/1.1 401 "), "{wrong}");
        let right = ask(&state, "GET /v1.0/metadata", "Dapr-Api-Token: secret\r\n", "").await;
        assert!(right.starts_with("HTTP/1.1 200 "), "{right}");
        state.require("runtime");
        state.ready("runtime");
        let health = ask(&state, "GET /v1.0/healthz", "", "").await;
        assert!(health.starts_with("HTTP/1.1 204 "), "{health}");
        let port = pipe_to(&state, Surface::Public, 1 << 16);
        let request = b"GET /v1.0/metadata HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let public = exchange(port, request).await;
        assert!(public.starts_with("HTTP/1.1 200 "), "{public}");
    })
    .await;
}

#[tokio::test]
async fn shutdown_asks_control() {
    local(async {
        let state = State::new(options());
        let answer = ask(&state, "POST /v1.0/shutdown", "", "").await;
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        assert_eq!(state.shutdown_requested().await, Shutdown { force: false });
        ask(&state, "POST /v1.0/shutdown", "dapr-force-shutdown: TRUE\r\n", "").await;
        assert_eq!(state.shutdown_requested().await, Shutdown { force: true });
    })
    .await;
}

/// Nor is any other, of an invocation that is named as daprd names it.
#[test]
fn a_refused_token_is_in_no_span() {
    let tracing = Tracing::Sampled { rate: 1.0, exported: true };
    let tracer = tracer(tracing);
    let begin = |request: hyper::Request<()>| {
        let traced = tracer.begin(&request, Some(([127, 0, 0, 1], 7).into()));
        traced.unwrap().unwrap()
    };
    let request = hyper::Request::get("http://x/v1.0/invoke/a%20b/method//c/d?e=f");
    let request = request.header("dapr-api-token", "secreT").header("dapr-app-id", "a b");
    let traced = begin(request.body(()).unwrap());
    let text = format!("{traced:?}");
    assert!(!text.contains("secreT") && text.contains("dapr-app-id"), "{text}");
    // Where it was answered as an invocation, it is called after that.
    let invocation = route::Invocation { app_id: "a b".to_owned(), method: "c/d".to_owned() };
    let answer = hyper::Response::builder().status(501).extension(invocation);
    let mut answer = answer.body(()).unwrap();
    let span = Tracer::end(traced, &mut answer).unwrap();
    assert_eq!((span.name.as_str(), span.kind), ("CallLocal/a b/c/d", SpanKind::Client));
    assert_eq!(span.error.as_deref(), Some("Code(501): Not Implemented"));
    let attributes: Vec<_> = span.attributes.iter().map(|(n, v)| (&**n, &**v)).collect();
    assert_eq!(
        attributes,
        [
            ("dapr.protocol", "http"),
            ("dapr.api", "GET /v1.0/invoke/a b/method//c/d"),
            ("http.request.method", "GET"),
            ("url.full", "http://x/v1.0/invoke/a%20b/method//c/d?e=f"),
            ("server.address", "127.0.0.1"),
            ("server.port", "7"),
            ("rpc.service", "ServiceInvocation"),
            ("net.peer.name", "a b"),
            ("dapr.status_code", "501"),
        ]
    );
}

#[tokio::test]
async fn a_preflight_needs_no_token() {
    local(async {
        let (api_token, allowed_origins) = (Some("secret".to_owned()), "*".to_owned());
        let state = State::new(StateOptions { api_token, allowed_origins, ..options() });
        let fields = "Origin: http://a\r\nAccess-Control-Request-Method: PUT\r\n";
        let answer = ask(&state, "OPTIONS /v1.0/metadata/a", fields, "").await;
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        assert!(answer.contains("access-control-allow-origin: *\r\n"), "{answer}");
        let refused = ask(&state, "GET /v1.0/metadata", "Origin: http://a\r\n", "").await;
        assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
        assert!(refused.contains("access-control-allow-origin: *\r\n"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn metrics_answers_on_any_path() {
    local(async {
        let state = State::new(options());
        for path in ["/", "/metrics", "/a/b"] {
            let port = pipe_to(&state, Surface::Metrics, 1 << 16);
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = exchange(port, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
            assert!(answer.contains("\nringside_http_requests_total "), "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    local(async {
        let state = State::new(options());
        let mut octets = Vec::new();
        for line in ["GET /v1.0/metadata", "GET /v1.0/healthz/outbound", "GET /nothing"] {
            octets.extend(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes());
        }
        let answers = exchange(pipe(&state, 1 << 16), &octets).await;
        let codes: Vec<_> =
            answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
        assert_eq!(codes, ["200", "500", "404"], "{answers}");
    })
    .await;
}

#[tokio::test]
async fn garbage_is_refused_and_closed() {
    local(async {
        let state = State::new(options());
        let inputs: [&[u8]; 6] = [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
            b"\0\0\0\0\0\0\0\0",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nno colon here\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ];
        for input in inputs {
            let answer = exchange(pipe(&state, 1 << 16), input).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{input:?}: {answer}");
        }
        let double = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        let answer = exchange(pipe(&state, 1 << 16), double).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame, it is prose";
        let mut stream = pipe(&state, 1 << 16);
        stream.write_all(preface).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    })
    .await;
}

/// The rest of what comes until the server closes, and when that was.
async fn closed_after(mut stream: DuplexStream, begun: Instant) -> (Duration, Vec<u8>) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    (begun.elapsed(), rest)
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_cut() {
    local(async {
        let state = State::new(options());
        for first in [&b""[..], b"G", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let mut stream = pipe(&state, 1 << 16);
            let begun = Instant::now();
            stream.write_all(first).await.unwrap();
            let (after, _) = closed_after(stream, begun).await;
            assert_eq!(after.as_secs(), watch::HEAD_TIME_MAX.as_secs(), "{first:?}");
        }
        // One octet each second does not help.
        let mut stream = pipe(&state, 1 << 16);
        let begun = Instant::now();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
        assert!(begun.elapsed() <= watch::HEAD_TIME_MAX + Duration::from_secs(1));
        assert_eq!(state.counters.http_connections_cut.get(), 5);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_and_then_closed() {
    local(async {
        let state = State::new(options());
        let mut stream = pipe(&state, 1 << 16);
        let mut answer = [0; 4096];
        for _ in 0..3 {
            stream.write_all(HEALTHZ).await.unwrap();
            assert!(stream.read(&mut answer).await.unwrap() > 0);
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
        // The second head on a connection has its ten seconds, too.
        let begun = Instant::now();
        stream.write_all(b"GET / HT").await.unwrap();
        let (after, _) = closed_after(stream, begun).await;
        assert_eq!(after.as_secs(), watch::HEAD_TIME_MAX.as_secs());
        let mut stream = pipe(&state, 1 << 16);
        stream.write_all(HEALTHZ).await.unwrap();
        assert!(stream.read(&mut answer).await.unwrap() > 0);
        let (after, _) = closed_after(stream, Instant::now()).await;
        assert_eq!(after.as_secs(), watch::IDLE_TIME_MAX.as_secs());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_refused() {
    local(async {
        let state = State::new(options());
        let mut stream = pipe(&state, 1 << 16);
        let head = b"PUT /v1.0/metadata/a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nslow";
        stream.write_all(head).await.unwrap();
        let (after, answer) = closed_after(stream, Instant::now()).await;
        assert!(after < Duration::from_secs(41), "{after:?}");
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("ERR_BODY_READ"), "{answer}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_is_cut() {
    local(async {
        let state = State::new(options());
        let mut stream = pipe(&state, 64);
        stream.write_all(b"GET /v1.0/metadata HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(watch::WRITE_TIME_MAX + Duration::from_secs(3)).await;
        assert_eq!(state.counters.http_connections_cut.get(), 1);
        let (_, rest) = closed_after(stream, Instant::now()).await;
        assert_eq!(rest.len(), 64, "what the pipe held, and no more");
    })
    .await;
}

#[tokio::test]
async fn a_body_too_large_is_refused_early() {
    local(async {
        let state = State::new(StateOptions { body_octets_max: 1000, ..options() });
        let text = r#"{"errorCode":"ERR_BODY_READ","message":"failed to read request body: stream too large"}"#;
        // Announced: the answer comes before any of it was sent.
        let mut stream = pipe(&state, 1 << 16);
        let head = "PUT /v1.0/metadata/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let (_, answer) = closed_after(stream, Instant::now()).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert_eq!(body_of(&answer), text);
        // In chunks: as soon as it is too much.
        let mut stream = pipe(&state, 1 << 16);
        let head = "PUT /v1.0/metadata/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("200\r\n{}\r\n", "x".repeat(0x200));
        stream.write_all(chunk.repeat(2).as_bytes()).await.unwrap();
        let (_, answer) = closed_after(stream, Instant::now()).await;
        assert_eq!(body_of(&String::from_utf8(answer).unwrap()), text);
        let fits = ask(&state, "PUT /v1.0/metadata/a", "", &"x".repeat(1000)).await;
        assert!(fits.starts_with("HTTP/1.1 204 "), "{fits}");
    })
    .await;
}

fn resident_octets() -> u64 {
    process::process().unwrap().resident_octets
}

#[tokio::test]
async fn four_hundred_mebibytes_of_header_end_in_431() {
    local(async {
        let state = State::new(options());
        let address = listen(&state, Surface::Api).await;
        let before = resident_octets();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Attack: ").await.unwrap();
        let piece = vec![b'a'; 1 << 16];
        let mut sent = 0_usize;
        while sent < 400 << 20 && stream.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        // What the kernel's buffers took, far from everything.
        assert!(sent < 32 << 20, "{sent} octets of header were taken");
        let grown = resident_octets().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} octets more in memory");
        let other = ask(&state, "GET /v1.0/metadata", "", "").await;
        assert!(other.starts_with("HTTP/1.1 200 "), "{other}");
    })
    .await;
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_answered_431() {
    local(async {
        let state = State::new(options());
        let mut stream = pipe(&state, 1 << 20);
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "a".repeat(9000));
        stream.write_all(head.as_bytes()).await.unwrap();
        let (_, answer) = closed_after(stream, Instant::now()).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000));
        let answer = exchange(pipe(&state, 1 << 20), line.as_bytes()).await;
        let refused = ["HTTP/1.1 431 ", "HTTP/1.1 414 "].iter().any(|s| answer.starts_with(s));
        assert!(refused, "{answer}");
        // As much as Go takes: its limit and its slack.
        let field = format!("X: {}\r\n", "a".repeat(7900));
        let answer = ask(&state, "GET /v1.0/metadata", &field, "").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    local(async {
        let state = State::new(options());
        let address = listen(&state, Surface::Api).await;
        let mut streams = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            streams.push(TcpStream::connect(address).await.unwrap());
        }
        let mut beyond = TcpStream::connect(address).await.unwrap();
        let mut rest = Vec::new();
        beyond.read_to_end(&mut rest).await.unwrap();
        assert_eq!(state.counters.http_connections_refused.get(), 1);
        // One leaves, one may come.
        let first = streams.remove(0);
        drop(first);
        let mut answer = [0; 12];
        let served = async {
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(HEALTHZ).await.unwrap();
                if stream.read_exact(&mut answer).await.is_ok() {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), served).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 500");
    })
    .await;
}

#[tokio::test]
async fn speaks_http2_with_prior_knowledge() {
    local(async {
        let state = State::new(options());
        state.set_outbound_ready(true);
        let (mut client, connection) = h2::client::handshake(pipe(&state, 1 << 16)).await.unwrap();
        tokio::task::spawn_local(connection);
        for (path, status) in [("/v1.0/healthz/outbound", 204), ("/v1.0/healthz", 500)] {
            let uri = format!("http://x{path}");
            let request = http::Request::builder().uri(uri).body(()).unwrap();
            let (response, _) = client.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status(), status);
        }
        // DAPR_HTTP_DISABLE_H2C.
        let state = State::new(StateOptions { h2c: false, ..options() });
        let answer = exchange(pipe(&state, 1 << 16), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 "), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn serves_a_unix_socket_until_closed() {
    local(async {
        let folder = std::env::temp_dir().join(format!("ringside-http-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("dapr-vsrv-http.socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let state = State::new(options());
        let listener = HttpListener::Unix(listener);
        let serving = serve(listener, Surface::Api, Rc::clone(&state), tracer(Tracing::Off));
        let serving = tokio::task::spawn_local(serving);
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        stream.write_all(HEALTHZ).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 500");
        state.close_http();
        serving.await.unwrap().unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    })
    .await;
}
