//! What is sent: workloads W1 to W5s, the same messages for every topology.

use crate::outcome::Outcome;
use crate::plan::{End, Expect, Plan, Schedule, Segment, Shape};
use crate::serve;
use crate::serve::message::{Counts, payload};
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Workload {
    W1,
    W2r,
    W3s,
    W2,
    W3,
    W3u,
    W4a,
    W4b,
    W5,
    W5s,
}

/// What a workload's costs are divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Call,
    RoundTrip,
    Message,
    /// 10⁹ octets of messages, requests and responses together.
    Gigabyte,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::RoundTrip => "round trip",
            Self::Message => "message",
            Self::Gigabyte => "GB",
        }
    }
}

const SMALL: usize = 100;
/// Names that no proxy knows. The client's HPACK takes each value into its table, as usual ones do.
const UNIQUE: &[&str] = &["x-call-id", "x-correlation-id"];
const STREAM_MESSAGES: u64 = 10_000;
/// So many that a call's begin and end do not show.
const ROUND_TRIPS: u64 = 1 << 40;

/// One line of the table of workloads.
struct Terms {
    name: &'static str,
    shape: Shape,
    octets: usize,
    connections: usize,
    streams: usize,
    /// Calls per second of an open loop.
    rate: Option<f64>,
    unit: Unit,
    unique: &'static [&'static str],
}

impl Workload {
    pub const ALL: [Self; 10] = [
        Self::W1,
        Self::W2r,
        Self::W3s,
        Self::W2,
        Self::W3,
        Self::W3u,
        Self::W4a,
        Self::W4b,
        Self::W5,
        Self::W5s,
    ];

    pub fn name(self) -> &'static str {
        self.terms().name
    }

    pub fn meaning(self) -> &'static str {
        match self {
            Self::W1 => "unary, 100 octets, open loop of 1,000 calls/s, 1 connection",
            Self::W2r => "unary, 100 octets, open loop of 2,000 calls/s, 16 connections",
            Self::W3s => "unary, 100 octets, closed loop, 1 connection, 1 call in flight",
            Self::W2 => "unary, 100 octets, closed loop, 16 connections of 10 streams",
            Self::W3 => "unary, 100 octets, closed loop, 1 connection of 100 streams",
            Self::W3u => {
                "unary, 100 octets, closed loop, 1 connection of 100 streams, two header fields \
                 with a value of their own in every call"
            }
            Self::W4a => "unary, 64 KiB echoed, closed loop, 4 connections of 2 streams",
            Self::W4b => "unary, 1 MiB echoed, closed loop, 2 connections of 2 streams",
            Self::W5 => "ping-pong of 100 octets on one stream",
            Self::W5s => "server streams of 10,000 messages of 100 octets, one at a time",
        }
    }

    pub fn unit(self) -> Unit {
        self.terms().unit
    }

    /// Calls begin when they are due: its latencies hold what queueing costs.
    pub fn is_open(self) -> bool {
        self.terms().rate.is_some()
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    fn terms(self) -> Terms {
        let unary = |name, octets, connections, streams| Terms {
            name,
            shape: Shape::Unary,
            octets,
            connections,
            streams,
            rate: None,
            unit: Unit::Call,
            unique: &[],
        };
        match self {
            Self::W1 => Terms { rate: Some(1000.0), ..unary("w1", SMALL, 1, 100) },
            Self::W2r => Terms { rate: Some(2000.0), ..unary("w2r", SMALL, 16, 100) },
            Self::W3s => unary("w3s", SMALL, 1, 1),
            Self::W2 => unary("w2", SMALL, 16, 10),
            Self::W3 => unary("w3", SMALL, 1, 100),
            Self::W3u => Terms { unique: UNIQUE, ..unary("w3u", SMALL, 1, 100) },
            Self::W4a => Terms { unit: Unit::Gigabyte, ..unary("w4a", 64 << 10, 4, 2) },
            Self::W4b => Terms { unit: Unit::Gigabyte, ..unary("w4b", 1 << 20, 2, 2) },
            Self::W5 => Terms {
                shape: Shape::PingPong { round_trips: ROUND_TRIPS },
                unit: Unit::RoundTrip,
                ..unary("w5", SMALL, 1, 1)
            },
            Self::W5s => Terms {
                shape: Shape::ServerStream,
                unit: Unit::Message,
                ..unary("w5s", SMALL, 1, 1)
            },
        }
    }

    /// `metadata` is the topology's.
    pub fn plan(
        self,
        target: SocketAddr,
        metadata: &[(String, Vec<u8>)],
        length: Duration,
        warmup: Duration,
    ) -> Plan {
        let terms = self.terms();
        let (path, request, expect) = match terms.shape {
            Shape::ServerStream => {
                let wanted = Counts { messages: STREAM_MESSAGES, octets: terms.octets as u64 };
                let expect = Expect::Messages { count: STREAM_MESSAGES, octets: terms.octets };
                (serve::STREAM, wanted.encode(), expect)
            }
            Shape::PingPong { .. } => (serve::PING_PONG, payload(terms.octets), Expect::Echo),
            Shape::Unary | Shape::ClientStream { .. } => {
                (serve::UNARY, payload(terms.octets), Expect::Echo)
            }
        };
        let mut metadata = metadata.to_vec();
        // Dapr asks for it where a call streams; others pass it on.
        if terms.shape != Shape::Unary {
            metadata.push(("dapr-stream".to_owned(), b"true".to_vec()));
        }
        let open = |rate| vec![Segment { from: rate, to: rate, length }];
        Plan {
            target,
            authority: "loadtest".to_owned(),
            path: path.to_owned(),
            metadata,
            unique: terms.unique.iter().map(|name| (*name).to_owned()).collect(),
            shape: terms.shape,
            request,
            expect,
            connections: terms.connections,
            streams: terms.streams,
            schedule: terms.rate.map_or(Schedule::Closed, |rate| Schedule::Open(open(rate))),
            warmup,
            end: End::After(length),
            timeout: None,
        }
    }

    /// How many units a run has moved, of calls that ended OK.
    pub fn units(self, outcome: &Outcome) -> f64 {
        match self.unit() {
            // Each has left its latency; what failed has cost CPU and is no call that came back.
            Unit::Call => outcome.latency.len() as f64,
            Unit::RoundTrip | Unit::Message => outcome.messages as f64,
            Unit::Gigabyte => (outcome.request_octets + outcome.response_octets) as f64 / 1e9,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(workload: Workload) -> Plan {
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        let metadata = [("dapr-app-id".to_owned(), b"server".to_vec())];
        workload.plan(at, &metadata, Duration::from_secs(3), Duration::ZERO)
    }

    #[test]
    fn names_find_their_workloads() {
        for workload in Workload::ALL {
            assert_eq!(Workload::named(workload.name()), Some(workload));
        }
        assert_eq!(Workload::named("w9"), None);
    }

    #[test]
    fn plans_are_those_of_the_table() {
        let shape = |workload| (plan(workload).connections, plan(workload).streams);
        assert_eq!(shape(Workload::W2), (16, 10));
        assert_eq!(shape(Workload::W3), (1, 100));
        assert_eq!(shape(Workload::W3s), (1, 1));
        assert_eq!(plan(Workload::W4b).request.len(), 1 << 20);
        assert_eq!(plan(Workload::W3s).schedule, Schedule::Closed);
        let Schedule::Open(segments) = plan(Workload::W1).schedule else { panic!("W1 is open") };
        assert_eq!((segments[0].from, segments[0].to), (1000.0, 1000.0));
        assert!(Workload::W1.is_open() && Workload::W2r.is_open() && !Workload::W5.is_open());
        assert_eq!((shape(Workload::W3u), plan(Workload::W3u).unique.len()), ((1, 100), 2));
        assert!(plan(Workload::W3).unique.is_empty());
        assert_eq!(plan(Workload::W1).metadata.len(), 1);
        assert_eq!(plan(Workload::W5).metadata.len(), 2, "and dapr-stream");
    }

    #[test]
    fn units_are_what_moved() {
        let mut outcome = Outcome {
            calls: 5,
            messages: 40,
            request_octets: 1_500_000_000,
            response_octets: 500_000_000,
            ..Outcome::empty()
        };
        for latency_ns in [1000, 2000, 1000, 3000] {
            outcome.latency.record(latency_ns).unwrap();
        }
        assert_eq!(Workload::W1.units(&outcome), 4.0, "the fifth has failed");
        assert_eq!(Workload::W5.units(&outcome), 40.0);
        assert_eq!(Workload::W4a.units(&outcome), 2.0);
    }
}
