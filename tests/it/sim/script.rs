//! What a call is meant to be: both ends know it, so each checks every octet of the other.

use super::policy::Fate;
use super::seed::Seed;
use bytes::Bytes;
use ringside::http2::{ErrorCode, FieldSection};
use std::sync::OnceLock;
use std::time::Duration;

/// Names and values, in order.
pub type Fields = Vec<(String, String)>;

/// For whom the call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Remote,
    /// The caller's own app ID.
    Own,
    Unknown,
    Malformed,
}

impl Whom {
    pub fn text(self) -> &'static str {
        match self {
            Self::Remote => "beta",
            Self::Own => "alpha",
            Self::Unknown => "nobody",
            Self::Malformed => "a.b.c",
        }
    }
}

/// How the caller ends its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEnd {
    /// With the last DATA frame, or on HEADERS when there is no message.
    Fused,
    /// An empty DATA frame.
    Apart,
    /// Trailers, which gRPC does not have but HTTP/2 does.
    Trailers,
}

/// How the app ends its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseEnd {
    Trailers,
    /// One HEADERS frame is all there is.
    TrailersOnly,
    /// END_STREAM on DATA, against gRPC's rules.
    None,
}

#[derive(Debug)]
pub struct Script {
    pub id: u32,
    pub whom: Whom,
    /// `dapr-stream`.
    pub stream: bool,
    /// What the app makes of each attempt that it sees first; then it plays its part.
    pub fates: Vec<Fate>,
    pub content_type: &'static str,
    pub metadata: Fields,
    pub timeout: Option<Duration>,
    pub request: Bytes,
    /// How many messages it is.
    pub requests: usize,
    pub request_end: RequestEnd,
    pub head: Fields,
    /// To the first attempt that reaches an app.
    pub response: Bytes,
    /// To later ones.
    others: Vec<Bytes>,
    pub trailers: Fields,
    pub response_end: ResponseEnd,
    pub status: u8,
    /// The app answers only when it has the whole request.
    pub waits: bool,
    /// The app reads and never says anything: only the deadline ends it.
    pub silent: bool,
    /// The app may end before the request does.
    pub early: bool,
    /// The caller cancels when it has sent and received so many octets.
    pub cancel_at: Option<usize>,
    /// The app resets the stream when it has sent and received so many octets.
    pub reset_at: Option<(usize, ErrorCode)>,
    /// The largest message either way.
    pub largest: usize,
}

/// What scripts may contain in this run.
#[derive(Clone, Copy, Debug)]
pub struct Taste {
    /// Largest message.
    pub octets: usize,
    pub cancels: bool,
    pub resets: bool,
    pub deadlines: bool,
    pub strays: bool,
    pub odd_ends: bool,
    /// Policies apply: so many attempts of a call may have a fate.
    pub fates: usize,
    /// And have an end when the app is silent.
    pub timeouts: bool,
}

const TABLE: usize = 1 << 20;

/// Random octets to cut messages from.
fn table() -> &'static Bytes {
    static OCTETS: OnceLock<Bytes> = OnceLock::new();
    OCTETS.get_or_init(|| {
        let mut seed = Seed::new(4711);
        (0..TABLE / 4).flat_map(|_| (seed.next() as u32).to_le_bytes()).collect::<Vec<_>>().into()
    })
}

/// One direction of a call: length-prefixed messages, each with the call's ID and its number.
fn stream(id: u32, way: u8, sizes: &[usize]) -> Bytes {
    let mut out = Vec::with_capacity(sizes.iter().map(|size| size + 5).sum());
    for (number, size) in sizes.iter().enumerate() {
        out.push(0);
        out.extend_from_slice(&(*size as u32).to_be_bytes());
        let mut tag = [id.to_be_bytes(), (number as u32).to_be_bytes()].concat();
        tag.push(way);
        tag.truncate(*size);
        out.extend_from_slice(&tag);
        let rest = size - tag.len();
        let seed = u64::from(way) << 40 | u64::from(id) << 20 | number as u64;
        let at = Seed::new(seed).below(TABLE - rest);
        out.extend_from_slice(&table()[at..at + rest]);
    }
    out.into()
}

impl Script {
    pub fn random(id: u32, taste: Taste, seed: &mut Seed) -> Self {
        let (requests, responses) = sizes(taste, seed);
        let request = stream(id, 0, &requests);
        let response = stream(id, 1, &responses);
        let attempts = if taste.fates > 0 { 2..5 } else { 0..0 };
        let others = attempts.map(|way| stream(id, way, &responses)).collect();
        let length = request.len() + response.len();
        let status = if seed.one_in(4) { 1 + seed.below(16) as u8 } else { 0 };
        let bare = responses.is_empty() && seed.one_in(2);
        let response_end = match () {
            () if taste.odd_ends && seed.one_in(12) && !responses.is_empty() => ResponseEnd::None,
            () if bare => ResponseEnd::TrailersOnly,
            () => ResponseEnd::Trailers,
        };
        let whom = match seed.below(if taste.strays { 16 } else { 12 }) {
            0..=9 => Whom::Remote,
            10 | 11 => Whom::Own,
            12 | 13 => Whom::Unknown,
            14 => Whom::Malformed,
            _ => Whom::Remote,
        };
        let stream = taste.fates > 0 && whom == Whom::Remote && seed.one_in(4);
        let fates = if whom == Whom::Remote { fates(taste, stream, seed) } else { Vec::new() };
        let timeout = (taste.deadlines && seed.one_in(3))
            .then(|| Duration::from_micros(seed.pick(&[1, 900, 20_000, 300_000, 3_000_000])));
        let cancel_at = (taste.cancels && seed.one_in(4)).then(|| seed.below(length + 1));
        let code = seed.pick(&[
            ErrorCode::CANCEL,
            ErrorCode::INTERNAL_ERROR,
            ErrorCode::REFUSED_STREAM,
            ErrorCode::ENHANCE_YOUR_CALM,
            ErrorCode::NO_ERROR,
        ]);
        let reset_at = (taste.resets && seed.one_in(4)).then(|| (seed.below(length + 1), code));
        Self {
            id,
            whom,
            stream,
            fates,
            content_type: seed.pick(&["application/grpc", "application/grpc+proto"]),
            metadata: fields("req", seed),
            timeout,
            request,
            requests: requests.len(),
            request_end: seed.pick(&[
                RequestEnd::Fused,
                RequestEnd::Fused,
                RequestEnd::Apart,
                RequestEnd::Trailers,
            ]),
            head: fields("head", seed),
            response,
            others,
            trailers: trailers(status, seed),
            response_end,
            status,
            waits: seed.one_in(2),
            silent: timeout.is_some() && seed.one_in(3),
            early: seed.one_in(6),
            cancel_at,
            reset_at,
            largest: requests.iter().chain(&responses).copied().max().unwrap_or(0),
        }
    }

    /// A plain call: what directed scenarios start from.
    pub fn plain(id: u32, requests: &[usize], responses: &[usize]) -> Self {
        let mut seed = Seed::new(u64::from(id));
        Self {
            id,
            whom: Whom::Remote,
            stream: false,
            fates: Vec::new(),
            content_type: "application/grpc",
            metadata: Vec::new(),
            timeout: None,
            request: stream(id, 0, requests),
            requests: requests.len(),
            request_end: RequestEnd::Fused,
            head: Vec::new(),
            response: stream(id, 1, responses),
            others: Vec::new(),
            trailers: trailers(0, &mut seed),
            response_end: ResponseEnd::Trailers,
            status: 0,
            waits: false,
            silent: false,
            early: false,
            cancel_at: None,
            reset_at: None,
            largest: requests.iter().chain(responses).copied().max().unwrap_or(0),
        }
    }

    pub fn request_fields(&self) -> FieldSection {
        let mut fields = FieldSection::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/sim.Tagged/Call"),
            (":authority", "localhost:50007"),
            ("content-type", self.content_type),
            ("te", "trailers"),
            ("dapr-app-id", self.whom.text()),
            ("x-sim-call", &self.id.to_string()),
        ] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        if let Some(timeout) = self.timeout {
            let text = format!("{}u", timeout.as_micros());
            fields.push(b"grpc-timeout", text.as_bytes());
        }
        if self.stream {
            fields.push(b"dapr-stream", b"true");
        }
        append(&mut fields, &self.metadata);
        fields
    }

    /// The response to an attempt.
    pub fn response_to(&self, attempt: usize) -> &Bytes {
        match (attempt, self.others.len()) {
            (0, _) | (_, 0) => &self.response,
            (later, count) => &self.others[(later - 1) % count],
        }
    }

    /// Its one HEADERS frame is all there is.
    pub fn is_trailers_only(&self, attempt: usize) -> bool {
        match self.fates.get(attempt) {
            Some(Fate::Status { apart, .. }) => !apart,
            Some(Fate::Reset(_) | Fate::Silent) | None => {
                self.response_end == ResponseEnd::TrailersOnly
            }
        }
    }

    pub fn status_of(&self, attempt: usize) -> u8 {
        match self.fates.get(attempt) {
            Some(Fate::Status { code, .. }) => *code,
            Some(Fate::Reset(_) | Fate::Silent) | None => self.status,
        }
    }

    pub fn trailers_of(&self, attempt: usize) -> Fields {
        let mut fields = match self.fates.get(attempt) {
            Some(Fate::Status { code, pushback, .. }) => {
                let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
                let status = [pair("grpc-status", &code.to_string()), pair("x-sim-end", "app")];
                let pushback = pushback.map(|ms| pair("grpc-retry-pushback-ms", ms));
                status.into_iter().chain(pushback).collect()
            }
            Some(Fate::Reset(_) | Fate::Silent) | None => self.trailers.clone(),
        };
        fields.push((ATTEMPT.to_owned(), attempt.to_string()));
        fields
    }

    pub fn head_fields(&self, attempt: usize) -> FieldSection {
        let mut fields = FieldSection::new();
        fields.push(b":status", b"200");
        fields.push(b"content-type", b"application/grpc+proto");
        append(&mut fields, &self.head);
        match self.is_trailers_only(attempt) {
            true => append(&mut fields, &self.trailers_of(attempt)),
            false => fields.push(ATTEMPT.as_bytes(), attempt.to_string().as_bytes()),
        }
        fields
    }

    pub fn trailer_fields(&self, attempt: usize) -> FieldSection {
        let mut fields = FieldSection::new();
        append(&mut fields, &self.trailers_of(attempt));
        fields
    }
}

/// By which an app says which attempt it answers.
pub const ATTEMPT: &str = "x-sim-attempt";

/// Of the first attempts of a call. Those of a stream that reached an app are the caller's: only
/// what the app refused comes again.
fn fates(taste: Taste, stream: bool, seed: &mut Seed) -> Vec<Fate> {
    if taste.fates == 0 || seed.one_in(2) {
        return Vec::new();
    }
    let count = 1 + seed.below(taste.fates);
    match stream {
        false => (0..count).map(|_| Fate::random(taste.timeouts, seed)).collect(),
        true if seed.one_in(2) => vec![Fate::Reset(ErrorCode::REFUSED_STREAM); count],
        true => vec![Fate::Status { code: 14, apart: false, pushback: None }],
    }
}

fn append(to: &mut FieldSection, fields: &Fields) {
    for (name, value) in fields {
        to.push(name.as_bytes(), value.as_bytes());
    }
}

/// Unary, client streaming, server streaming, bidirectional, or nothing at all.
fn sizes(taste: Taste, seed: &mut Seed) -> (Vec<usize>, Vec<usize>) {
    let (up, down) = match seed.below(6) {
        0 | 1 => (1, 1),
        2 => (seed.below(8), 1),
        3 => (1, seed.below(8)),
        4 => (seed.below(8), seed.below(8)),
        _ => (0, 0),
    };
    let mut draw = |count: usize| -> Vec<usize> {
        (0..count)
            .map(|_| {
                let exact = [0, 1, 8, 100, 16_379, 16_384, 65_530, 262_144, 700_000];
                let size = if seed.one_in(2) { seed.pick(&exact) } else { seed.below(20_000) };
                size.min(seed.below(taste.octets + 1))
            })
            .collect()
    };
    (draw(up), draw(down))
}

/// Metadata with repeated keys, binary values, empty values, long ones.
fn fields(kind: &str, seed: &mut Seed) -> Fields {
    let mut fields = Fields::new();
    for _ in 0..seed.below(6) {
        let name = match seed.below(5) {
            0 => format!("x-{kind}-blob-bin"),
            1 => "x-shared".to_owned(),
            2 => format!("x-{kind}-{}", seed.below(40)),
            3 => "user-agent".to_owned(),
            _ => format!("x-{kind}-again"),
        };
        let value = match seed.below(5) {
            0 => String::new(),
            1 => "AAECAwQF".to_owned(),
            2 => format!("value {}", seed.below(10)),
            3 => format!("{:x}", seed.next()),
            _ => "long,".repeat(1 + seed.below(300)),
        };
        fields.push((name, value));
    }
    fields
}

fn trailers(status: u8, seed: &mut Seed) -> Fields {
    let mut all = vec![("grpc-status".to_owned(), status.to_string())];
    if status != 0 {
        all.push(("grpc-message".to_owned(), format!("scripted%20{status}")));
        all.push(("grpc-status-details-bin".to_owned(), "CAUSBG5vcGU".to_owned()));
    }
    all.push(("x-sim-end".to_owned(), "app".to_owned()));
    all.extend(fields("trailer", seed));
    all
}

pub fn owned(fields: &FieldSection) -> Fields {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|field| (text(field.name), text(field.value))).collect()
}

pub fn value<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}
