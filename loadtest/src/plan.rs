//! What one run sends, and when.

use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;

/// One run against one address.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Plaintext HTTP/2 with prior knowledge.
    pub target: SocketAddr,
    /// `:authority`.
    pub authority: String,
    /// `/package.Service/Method`.
    pub path: String,
    /// Sent with every call, after the fields that gRPC needs. Values of `-bin` keys are raw
    /// octets.
    pub metadata: Vec<(String, Vec<u8>)>,
    /// Names of fields with a value that no other call has.
    pub unique: Vec<String>,
    pub shape: Shape,
    /// One request message, without its length prefix; streams send it again and again.
    pub request: Bytes,
    pub expect: Expect,
    /// TCP connections, opened before the clock starts.
    pub connections: usize,
    /// Calls in flight on one connection at most.
    pub streams: usize,
    pub schedule: Schedule,
    /// Load like the rest (open loop: at its first rate) whose results are thrown away. All its
    /// calls have ended when the measured part begins.
    pub warmup: Duration,
    pub end: End,
    /// Each call's deadline, also sent as `grpc-timeout`; `None`: no deadline.
    pub timeout: Option<Duration>,
}

/// The kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Unary,
    /// This many request messages, then one response.
    ClientStream {
        messages: u64,
    },
    /// One request; the response's messages are counted.
    ServerStream,
    /// One message out, one back, so often; the latency is that of a round trip.
    PingPong {
        round_trips: u64,
    },
}

/// What a response must hold; anything else is an error of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Any message.
    Anything,
    /// Each response message is the request's.
    Echo,
    /// Each response message is this one.
    Each(Bytes),
    /// So many messages of so many octets.
    Messages { count: u64, octets: usize },
}

/// When calls begin.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// Each stream begins its next call when the last one ended: finds throughput, hides queueing.
    Closed,
    /// Open loop: calls begin when they are due, whatever the earlier ones do, and their latency
    /// counts from that moment. Segments follow each other; the last one's final rate goes on
    /// until the run's end.
    Open(Vec<Segment>),
}

/// A stretch of an open schedule: the rate goes linearly from `from` to `to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// Calls per second.
    pub from: f64,
    pub to: f64,
    pub length: Duration,
}

/// No call begins after it; those that have begun, or were due before it, are waited for, and
/// count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Ping-pong calls end early, after the round trip under way.
    After(Duration),
    Calls(u64),
}
