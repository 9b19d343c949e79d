//! An app that fails as it is told: each call names its case and the case's script, and the case's
//! n-th attempt gets the script's n-th step.

use crate::peer::ports::claim;
use crate::peer::sidecar::loopback;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;

type Attempts = Arc<Mutex<HashMap<String, usize>>>;

/// Ends with the test run.
pub struct ScriptedApp {
    pub port: u16,
    attempts: Attempts,
}

impl ScriptedApp {
    pub fn start() -> Self {
        let port = claim();
        let listener = std::net::TcpListener::bind(loopback(port)).expect("the port");
        listener.set_nonblocking(true).expect("a listener for tokio");
        let attempts = Attempts::default();
        let counted = Arc::clone(&attempts);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&counted)));
                }
            });
        });
        Self { port, attempts }
    }

    /// How many attempts of a case the app has seen.
    pub fn attempts(&self, case: &str) -> usize {
        self.attempts.lock().expect("no server panics").get(case).copied().unwrap_or_default()
    }
}

async fn serve(stream: TcpStream, attempts: Attempts) {
    // Whoever only looks whether somebody listens says nothing.
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, answer))) = connection.accept().await {
        let field = |name| {
            let value = request.headers().get(name);
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (case, script) = (field("x-case"), field("x-script"));
        let attempt = {
            let mut attempts = attempts.lock().expect("no server panics");
            let count = attempts.entry(case).or_default();
            *count += 1;
            *count
        };
        let steps: Vec<&str> = script.split(',').collect();
        let step = steps[(attempt - 1).min(steps.len() - 1)].to_owned();
        // What becomes of an answer is the caller's affair.
        tokio::spawn(async move { play(&step, attempt, request, answer).await });
    }
}

/// `14` alone, `h14` behind a head, `m14` behind a message, `p14` with a pushback; `r2` resets;
/// `ok` echoes, `late` after three seconds, `hang` never answers.
async fn play(
    step: &str,
    attempt: usize,
    request: Request<h2::RecvStream>,
    mut answer: SendResponse<bytes::Bytes>,
) -> Option<()> {
    let body = read(request.into_body()).await;
    let (kind, code) = match step.split_at_checked(1) {
        Some((kind @ ("h" | "m" | "p" | "r"), code)) if code.parse::<u32>().is_ok() => (kind, code),
        Some(_) | None => ("", step),
    };
    let head = || Response::builder().header("content-type", "application/grpc");
    let message = format!("attempt {attempt}");
    let trailers = |code: &str| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.parse().expect("a value"));
        if code != "0" {
            trailers.insert("grpc-message", message.parse().expect("a value"));
        }
        if kind == "p" {
            trailers.insert("grpc-retry-pushback-ms", "-1".parse().expect("a value"));
        }
        trailers
    };
    match (kind, code) {
        ("r", code) => answer.send_reset(Reason::from(code.parse::<u32>().ok()?)),
        ("", "hang") => {
            std::future::poll_fn(|context| answer.poll_reset(context)).await.ok()?;
        }
        ("", "ok" | "late") => {
            if code == "late" {
                tokio::time::sleep(std::time::Duration::from_secs(3)).await;
            }
            let mut stream = answer.send_response(head().body(()).ok()?, false).ok()?;
            stream.send_data(body.into(), false).ok()?;
            stream.send_trailers(trailers("0")).ok()?;
        }
        ("h" | "m", code) => {
            let mut stream = answer.send_response(head().body(()).ok()?, false).ok()?;
            if kind == "m" {
                stream.send_data(body.into(), false).ok()?;
            }
            stream.send_trailers(trailers(code)).ok()?;
        }
        (_, code) => {
            let mut only = head().body(()).ok()?;
            only.headers_mut().extend(trailers(code));
            answer.send_response(only, true).ok()?;
        }
    }
    Some(())
}

async fn read(mut body: h2::RecvStream) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        read.extend_from_slice(&data);
    }
    read
}
