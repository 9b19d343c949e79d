//! OTLP over gRPC and over HTTP with protobuf.
//!
//! 1. A failure that the protocol calls transient is tried again, within the time of one request.
//! 2. A collector may refuse some spans of a batch and say why: those are dropped.
//!
//! Source: the OTLP specification 1.x ("OTLP/gRPC Response", "OTLP/HTTP Response").

mod messages;

use super::gzip::gzip;
use super::http::{Client, Request};
use super::{Finished, Refused, tls};
use crate::config::traces::{Otlp, Url};
use crate::control::rpc::{Address, Channel, Framed, Status};
use crate::grpc::Code;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use messages::{ExportTraceServiceRequest, ExportTraceServiceResponse, PartialSuccess};
use prost::Message;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::ClientConfig;

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Between two tries; doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(500);

/// Why a try failed, and whether another one may do better.
struct Failure {
    why: String,
    /// After so long, if the collector says how long.
    again: Option<Option<Duration>>,
}

pub(super) struct Http {
    client: Client,
    headers: Vec<(HeaderName, HeaderValue)>,
    gzip: bool,
    timeout: Duration,
    resource: Rc<[(String, String)]>,
}

pub(super) struct Grpc {
    url: Url,
    address: Address,
    tls: Option<Arc<ClientConfig>>,
    headers: HeaderMap,
    gzip: bool,
    timeout: Duration,
    resource: Rc<[(String, String)]>,
    channel: Option<Channel>,
}

fn headers(given: &[(String, String)]) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let parse = |(name, value): &(String, String)| {
        let unfit = || format!("spec.tracing.otel.headers: {name:?} is no header, or its value");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| unfit())?;
        // As a rule it is a key.
        value.set_sensitive(true);
        Ok((name, value))
    };
    given.iter().map(parse).collect()
}

/// The time of one request, with what is repeated of it.
async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let late = |_| Err(format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, work).await.unwrap_or_else(late)
}

/// Waits before the next try; gives the failure back if there is to be none.
async fn pause(failure: Failure, pause: &mut Duration) -> Result<(), String> {
    let Some(told) = failure.again else { return Err(failure.why) };
    tokio::time::sleep(told.unwrap_or(*pause)).await;
    *pause *= 2;
    Ok(())
}

impl Http {
    pub(super) fn new(otlp: Otlp, resource: Rc<[(String, String)]>) -> Result<Self, String> {
        let headers = headers(&otlp.headers)?;
        let client = Client::new(otlp.url, &otlp.tls)?;
        let (gzip, timeout) = (otlp.gzip, otlp.timeout);
        Ok(Self { client, headers, gzip, timeout, resource })
    }

    pub(super) async fn export(&mut self, batch: &[Rc<Finished>]) -> Result<Refused, String> {
        let body = ExportTraceServiceRequest::new(batch, &self.resource).encode_to_vec();
        let body = if self.gzip { gzip(&body)? } else { body.into() };
        within(self.timeout, async {
            let mut wait = PAUSE_FIRST;
            loop {
                match self.try_once(body.clone()).await {
                    Ok(refused) => return Ok(refused),
                    Err(failure) => pause(failure, &mut wait).await?,
                }
            }
        })
        .await
    }

    async fn try_once(&mut self, body: Bytes) -> Result<Refused, Failure> {
        const PROTOBUF: &str = "application/x-protobuf";
        let Self { client, headers, gzip, .. } = self;
        let request = Request { content_type: PROTOBUF, headers, gzip: *gzip, body };
        let lost = |why| Failure { why, again: Some(None) };
        let answer = client.post(request).await.map_err(lost)?;
        if (200..=299).contains(&answer.status) {
            let told = answer.content_type.is_some_and(|value| value == PROTOBUF);
            let response = ExportTraceServiceResponse::decode(answer.body);
            // Nobody asked for an answer in another form: the status says enough.
            return Ok(response.ok().filter(|_| told).map(refused).unwrap_or_default());
        }
        let text = String::from_utf8_lossy(answer.body.get(..200).unwrap_or(&answer.body));
        let why = format!("status {}: {}", answer.status, text.trim().escape_debug());
        let seconds =
            answer.retry_after.as_ref().and_then(|value| value.to_str().ok()?.parse().ok());
        let again = matches!(answer.status, 429 | 502 | 503 | 504);
        Err(Failure { why, again: again.then(|| seconds.map(Duration::from_secs)) })
    }
}

impl Grpc {
    pub(super) fn new(otlp: Otlp, resource: Rc<[(String, String)]>) -> Result<Self, String> {
        let Otlp { url, timeout, tls, gzip, .. } = &otlp;
        let no_address = || format!("{:?} is no address", url.authority());
        let address = Address::parse(&url.authority()).ok_or_else(no_address)?;
        let tls = match url.tls {
            true => Some(tls::config(tls, b"h2")?),
            false => None,
        };
        let mut headers: HeaderMap = headers(&otlp.headers)?.into_iter().collect();
        if *gzip {
            headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
        }
        let (url, gzip, timeout, channel) = (url.clone(), *gzip, *timeout, None);
        Ok(Self { url, address, tls, headers, gzip, timeout, resource, channel })
    }

    pub(super) async fn export(&mut self, batch: &[Rc<Finished>]) -> Result<Refused, String> {
        let request = ExportTraceServiceRequest::new(batch, &self.resource);
        let request = match self.gzip {
            true => Framed::compressed(&gzip(&request.encode_to_vec())?),
            false => Framed::new(&request),
        };
        let request = request.map_err(|status| status.to_string())?;
        let exported = within(self.timeout, async {
            let mut wait = PAUSE_FIRST;
            loop {
                match self.try_once(&request).await {
                    Ok(response) => return Ok(refused(response)),
                    Err(failure) => pause(failure, &mut wait).await?,
                }
            }
        })
        .await;
        if exported.is_err() {
            // It may be why.
            self.channel = None;
        }
        exported
    }

    async fn try_once(&mut self, request: &Framed) -> Result<ExportTraceServiceResponse, Failure> {
        let kept = self.channel.take().filter(|channel| !channel.is_lost());
        let channel = match kept {
            Some(channel) => channel,
            None => self.connect().await.map_err(|why| Failure { why, again: Some(None) })?,
        };
        let channel = self.channel.insert(channel);
        let called = channel.unary_with(PATH, request, &self.headers, self.timeout).await;
        called.map_err(|status| {
            let again = is_transient(&status).then_some(None);
            Failure { why: status.to_string(), again }
        })
    }

    async fn connect(&self) -> Result<Channel, String> {
        let connected = match &self.tls {
            Some(tls) => Channel::connect(&self.address, tls).await,
            None => Channel::connect_plainly(&self.address).await,
        };
        connected.map_err(|error| error.to_string())
    }
}

/// The table in "OTLP/gRPC Response".
fn is_transient(status: &Status) -> bool {
    [
        Code::Canceled,
        Code::DeadlineExceeded,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unavailable,
        Code::DataLoss,
    ]
    .into_iter()
    .any(|code| status.is(code))
}

fn refused(response: ExportTraceServiceResponse) -> Refused {
    let PartialSuccess { rejected_spans, error_message } =
        response.partial_success.unwrap_or_default();
    Refused { spans: usize::try_from(rejected_spans).unwrap_or(0), why: error_message }
}

impl fmt::Display for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the collector at {}", self.client)
    }
}

impl fmt::Display for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.url.tls { " with TLS" } else { "" };
        write!(f, "the collector at {}{tls}", self.address)
    }
}
